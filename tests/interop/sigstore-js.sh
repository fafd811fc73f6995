#!/usr/bin/env bash
# The attestation's bundle is one that Sigstore's own JavaScript client verifies with the builder's plain key, and it
# refuses the same bundle once a byte of the statement, the signature, the hint or the key differs.
. "$(dirname "$0")/lib"
need_npm
node "$tools/js/sigstore.mjs" "$root/attest/tests/vectors/bundle.json"
