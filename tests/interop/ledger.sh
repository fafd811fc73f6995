#!/usr/bin/env bash
# The ledger's vectors, checked with git, ssh-keygen and OpenSSL instead of our code.
. "$(dirname "$0")/lib"
for tool in git ssh-keygen openssl python3 xxd; do need "$tool" "install it with your system's package manager"; done
bash "$root/node/ledger/tests/vectors/check.sh"
