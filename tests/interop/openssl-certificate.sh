#!/usr/bin/env bash
# Nothing of ours is needed to check what was signed: OpenSSL alone verifies a certificate's precommits over the bytes
# that docs/formats/ledger.md describes, an entry, and an attestation's DSSE signature over a pre-authentication
# encoding put together here.
. "$(dirname "$0")/lib"
for tool in openssl xxd jq base64; do need "$tool" "install it with your system's package manager"; done
ledger=$root/node/ledger/tests/vectors
attest=$root/attest/tests/vectors

bytes() { printf '%s' "$1" | xxd -r -p; }
# verify KEY SIGNATURE FILE: an Ed25519 public key becomes DER by a fixed prefix (RFC 8410).
verify() {
  bytes "302a300506032b6570032100$1" >"$scratch/key.der"
  bytes "$2" >"$scratch/sig"
  openssl pkeyutl -verify -pubin -keyform DER -inkey "$scratch/key.der" -rawin -in "$3" -sigfile "$scratch/sig" >/dev/null 2>&1
}
# A verdict counts only beside its opposite: the same signature over the same bytes with one changed.
holds() { # what, KEY, SIGNATURE, FILE
  verify "$2" "$3" "$4" || fail "$1: OpenSSL refuses the signature"
  for at in 0 $(($(stat -c %s "$4") - 1)); do
    cp "$4" "$scratch/changed"
    byte=$(xxd -s "$at" -l 1 -p "$4")
    printf '%02x' $((16#$byte ^ 1)) | xxd -r -p | dd of="$scratch/changed" bs=1 seek="$at" conv=notrunc status=none
    ! verify "$2" "$3" "$scratch/changed" || fail "$1: OpenSSL accepts the signature over other bytes"
  done
  ok "$1"
}

# vote KIND HEIGHT ROUND: the bytes of a vote for the certificate's block.
vote() {
  printf 'instar/vote/v1\0'
  bytes "$(jq -r .chain "$ledger/ids.json")"
  printf '%02x%016x%08x01' "$1" "$2" "$3" | xxd -r -p
  bytes "$(jq -r .block "$ledger/certificate.json")"
}
height=$(jq .height "$ledger/certificate.json")
round=$(jq .round "$ledger/certificate.json")
vote 2 "$height" "$round" >"$scratch/precommit"
cmp "$scratch/precommit" "$ledger/precommit.signed" || fail "the precommit's bytes are not the documented ones"
same "$(jq -r .block "$ledger/certificate.json")" "$(jq -r .block "$ledger/ids.json")" "the certificate names the block"

power=0
while read -r key sig; do
  own=$(jq --arg key "$key" '[.[] | select(.key == $key) | .power] | if length == 1 then .[0] else error("no such validator") end' \
    "$ledger/validators.json")
  holds "precommit of ${key:0:8}" "$key" "$sig" "$scratch/precommit"
  # Not a prevote, nor a precommit of another height or round.
  for other in "1 $height $round" "2 $((height + 1)) $round" "2 $height $((round + 1))"; do
    # shellcheck disable=SC2086
    vote $other >"$scratch/other"
    ! verify "$key" "$sig" "$scratch/other" || fail "the precommit passes as vote $other"
  done
  power=$((power + own))
done < <(jq -r '.signatures[] | .validator + " " + .sig' "$ledger/certificate.json")
total=$(jq 'map(.power) | add' "$ledger/validators.json")
same "$(jq '[.signatures[].validator] | . == unique' "$ledger/certificate.json")" true "signers are sorted, none twice"
[ $((power * 3)) -gt $((total * 2)) ] || fail "the certificate has $power of $total"
ok "the certificate has $power of $total"

holds "entry" "$(jq -r .author "$ledger/entry.json")" "$(jq -r .sig "$ledger/entry.json")" "$ledger/entry.signed"

# The attestation: the envelope as it stands in the bundle, its encoding by DSSE v1.0.
jq -r .bundle "$attest/bundle.json" >"$scratch/bundle.json"
jq -r .dsseEnvelope.payload "$scratch/bundle.json" | base64 -d >"$scratch/payload"
type=$(jq -r .dsseEnvelope.payloadType "$scratch/bundle.json")
{ printf 'DSSEv1 %d %s %d ' "${#type}" "$type" "$(stat -c %s "$scratch/payload")"; cat "$scratch/payload"; } >"$scratch/pae"
bytes "$(jq -r .pae "$attest/bundle.json")" | cmp - "$scratch/pae" || fail "the vector's encoding is not DSSE's"
sig=$(jq -r '.dsseEnvelope.signatures[0].sig' "$scratch/bundle.json" | base64 -d | xxd -p -c 64)
holds "attestation" "$(jq -r .builder "$attest/bundle.json")" "$sig" "$scratch/pae"
