#!/usr/bin/env bash
# The ledger's vectors, checked with git, ssh-keygen and OpenSSL instead of our code.
set -euo pipefail
exec bash "$(dirname "$0")/../../node/ledger/tests/vectors/check.sh"
