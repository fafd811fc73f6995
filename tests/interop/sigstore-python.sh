#!/usr/bin/env bash
# Keyless bundles: the recording that our own tests verify is verified by sigstore-python, offline, and each of both refuses
# the same changes. So what we take for a good certificate, log entry and timestamp is what Sigstore's reference client takes.
. "$(dirname "$0")/lib"
need_python
need jq "install jq"
recorded=$root/attest/tests/keyless
file=$recorded/signed-package-2.1.0-hb0f4dca_0.conda
identity=https://github.com/prefix-dev/sigstore-example/.github/workflows/action.yaml@refs/heads/main
issuer=https://token.actions.githubusercontent.com

verify() { # bundle, identity, issuer
  "$tools/py/bin/sigstore" verify identity --offline --bundle "$1" --cert-identity "$2" --cert-oidc-issuer "$3" \
    "$file" >"$scratch/said" 2>&1
}
refused() { # words, bundle, identity, issuer
  if verify "$2" "$3" "$4"; then fail "$1: sigstore-python accepts it"; fi
  ok "$1 is refused"
}
changed() { # jq filter
  jq -c "$1" "$recorded/conda-attestation.sigstore.json" >"$scratch/changed.json"
}

for bundle in conda-attestation; do
  verify "$recorded/$bundle.sigstore.json" "$identity" "$issuer" || fail "$bundle is refused: $(cat "$scratch/said")"
  ok "$bundle verifies, with its certificate long expired"
done
refused "another identity" "$recorded/conda-attestation.sigstore.json" "$identity-x" "$issuer"
refused "another issuer" "$recorded/conda-attestation.sigstore.json" "$identity" https://gitlab.example.org
changed '.verificationMaterial.tlogEntries[0].inclusionProof.hashes |= [.[1], .[0]] + .[2:]'
refused "a bad inclusion proof" "$scratch/changed.json" "$identity" "$issuer"
changed '.verificationMaterial.tlogEntries[0].integratedTime = "1900000000"'
refused "a time that nobody signed" "$scratch/changed.json" "$identity" "$issuer"
changed '.verificationMaterial.tlogEntries = []'
refused "a bundle without a log entry" "$scratch/changed.json" "$identity" "$issuer"
changed ".verificationMaterial.tlogEntries = $(jq -c .verificationMaterial.tlogEntries "$recorded/cosign-v3-blob.sigstore.json")"
refused "the log entry of another artifact" "$scratch/changed.json" "$identity" "$issuer"
