#!/usr/bin/env bash
# A release that `instar build` and `instar attest` made is verified by cosign, with the builder's plain key and every file of
# the release; it refuses another file, another key, a changed statement and a changed signature. A round's attestation is
# verified too, once its key id, which nobody signs, is taken away.
. "$(dirname "$0")/lib"
need_instar
need_cosign
need jq "install jq"
need xxd "install xxd"
need git "install git 2.39 or newer"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null

mkdir -p "$scratch/source/src"
printf '[package]\nname = "tool"\nversion = "0.1.0"\nedition = "2021"\n' >"$scratch/source/Cargo.toml"
printf 'version = 4\n\n[[package]]\nname = "tool"\nversion = "0.1.0"\n' >"$scratch/source/Cargo.lock"
printf 'fn main() { println!("a tool"); }\n' >"$scratch/source/src/main.rs"
git -C "$scratch/source" init --quiet
git -C "$scratch/source" add --all
git -C "$scratch/source" -c user.name=check -c user.email=check@localhost commit --quiet --message "A tool"
"$instar" build "$scratch/source" --out "$scratch/out" >"$scratch/said" 2>&1 ||
  fail "the tool can't be built here; \`instar doctor\` says what is missing: $(tail -n 3 "$scratch/said")"
for who in a b; do
  "$instar" key new builder -o "$scratch/$who.json" >/dev/null
  "$instar" key show "$scratch/$who.json" --pem >"$scratch/$who.pem"
done
"$instar" attest "$scratch/out" --key "$scratch/a.json" >/dev/null
bundle=$scratch/out/provenance.sigstore.json

verify() { # bundle, key, file or `--digest …`
  local bundle=$1 key=$2
  shift 2
  # No log: a managed key has none, and the ledger is one.
  "$cosign" verify-blob-attestation --bundle "$bundle" --key "$key" --type slsaprovenance1 --insecure-ignore-tlog "$@" \
    >"$scratch/said" 2>&1
}
refused() { # words, what cosign has to say, as for verify
  local words=$1 pattern=$2
  shift 2
  if verify "$@"; then fail "$words: cosign accepts it"; fi
  grep -qE "$pattern" "$scratch/said" || fail "$words: refused for another reason: $(cat "$scratch/said")"
  ok "$words is refused"
}

count=0
while read -r file; do
  verify "$bundle" "$scratch/a.pem" "$file" || fail "$file: $(cat "$scratch/said")"
  count=$((count + 1))
done < <(find "$scratch/out/release" -type f ! -name release.json)
[ "$count" -ge 2 ] || fail "only $count files"
ok "cosign verifies all $count files of the release with the builder's key"
program=$(find "$scratch/out/release" -name tool -type f)
cp "$program" "$scratch/changed"
printf x >>"$scratch/changed"
refused "a changed file" "digest|match" "$bundle" "$scratch/a.pem" "$scratch/changed"
refused "another key" "threshold|signature" "$bundle" "$scratch/b.pem" "$program"
jq -c '.dsseEnvelope.payload |= (@base64d | sub("cargo-vendored-v1"; "cargo-vendored-v2") | @base64)' "$bundle" >"$scratch/statement.json"
refused "a changed statement" "threshold|signature" "$scratch/statement.json" "$scratch/a.pem" "$program"
jq -c '.dsseEnvelope.signatures[0].sig |= (if startswith("A") then "B" else "A" end) + .[1:]' "$bundle" >"$scratch/signature.json"
refused "a changed signature" "threshold|signature" "$scratch/signature.json" "$scratch/a.pem" "$program"
jq -c '.dsseEnvelope.payloadType = "application/json"' "$bundle" >"$scratch/type.json"
refused "another payload type" "." "$scratch/type.json" "$scratch/a.pem" "$program"

vector=$root/attest/tests/vectors/bundle.json
jq -r .bundle "$vector" | jq -c 'del(.dsseEnvelope.signatures[0].keyid)' >"$scratch/round.json"
{ echo "-----BEGIN PUBLIC KEY-----"
  printf '302a300506032b6570032100%s' "$(jq -r .builder "$vector")" | xxd -r -p | base64
  echo "-----END PUBLIC KEY-----"; } >"$scratch/round.pem"
digest=$(jq -r .statement "$vector" | jq -r '.subject[0].digest.sha256')
verify "$scratch/round.json" "$scratch/round.pem" --digest "$digest" --digestAlg sha256 || fail "a round's attestation: $(cat "$scratch/said")"
ok "a build round's attestation is verified"
refused "a digest that it does not name" "digest|match" "$scratch/round.json" "$scratch/round.pem" --digest "${digest//[0-7]/8}" --digestAlg sha256
