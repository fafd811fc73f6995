#!/usr/bin/env bash
# Verification offline: a release with 5 bundles by `instar verify`, against one bundle by sigstore-python, on this machine,
# in one run. Whole commands are timed, as a person waits for them; the median of several runs counts.
#
#   tests/bench/verify.sh            prints both and their ratio
#   tests/bench/verify.sh --check    also fails if ours takes 100 ms or more, or over a fifth of the other
. "$(dirname "$0")/../interop/lib"
need_python
need_instar
need git "install git 2.39 or newer"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
max_ms=100
max_share=5

mkdir "$scratch/source"
tar -C "$root/node/dapps" --exclude=target -c . | tar -C "$scratch/source" -x
git -C "$scratch/source" init --quiet
git -C "$scratch/source" add --all
git -C "$scratch/source" -c user.name=check -c user.email=check@localhost commit --quiet --message "The dapps"
"$instar" build "$scratch/source" --name coin --out "$scratch/out" >/dev/null 2>&1 ||
  fail "the coin can't be built here; \`instar doctor\` says what is missing"
parties=
mkdir "$scratch/bundles"
for who in a b c d e; do
  "$instar" key new builder -o "$scratch/$who.json" >/dev/null
  public=$("$instar" key show "$scratch/$who.json" --json | sed 's/.*"public":"\([0-9a-f]*\)".*/\1/')
  parties="$parties{\"name\":\"$who\",\"operator\":\"$who\",\"key\":\"$public\"},"
  "$instar" attest "$scratch/out" --key "$scratch/$who.json" >/dev/null
  mv "$scratch/out/provenance.sigstore.json" "$scratch/bundles/$who.sigstore.json"
done
echo "{\"format\":\"instar-release-policy-v1\",\"recipes\":[\"cargo-vendored-v1\"],\"builders\":{\"threshold\":5,\"of\":[${parties%,}]}}" >"$scratch/policy.json"

recorded=$root/attest/tests/keyless
ours() { "$instar" verify "$scratch/out" --bundle "$scratch/bundles" --policy "$scratch/policy.json" >"$scratch/said"; }
theirs() {
  "$tools/py/bin/sigstore" verify identity --offline --bundle "$recorded/conda-attestation.sigstore.json" \
    --cert-identity https://github.com/prefix-dev/sigstore-example/.github/workflows/action.yaml@refs/heads/main \
    --cert-oidc-issuer https://token.actions.githubusercontent.com \
    "$recorded/signed-package-2.1.0-hb0f4dca_0.conda" >"$scratch/said" 2>&1
}
median_us() { # times, command
  local runs=$1 i start
  shift
  "$@" || fail "$1 does not verify: $(cat "$scratch/said")"
  for ((i = 0; i < runs; i++)); do
    start=$(date +%s%N)
    "$@"
    echo $((($(date +%s%N) - start) / 1000))
  done | sort -n | sed -n "$(((runs + 1) / 2))p"
}
a=$(median_us 21 ours)
grep -q "5 of 5 builders" "$scratch/said" || fail "ours did not count five builders"
b=$(median_us 5 theirs)
awk -v a="$a" -v b="$b" 'BEGIN {
  printf "instar verify, 5 bundles:    %8.1f ms\n", a / 1000
  printf "sigstore-python, 1 bundle:   %8.1f ms\n", b / 1000
  printf "ratio:                       %8.3f\n", a / b }'
if [ "${1:-}" = --check ]; then
  [ "$a" -lt $((max_ms * 1000)) ] || fail "ours takes $max_ms ms or more"
  [ $((a * max_share)) -le "$b" ] || fail "ours takes more than 1/$max_share of the other"
  ok "below $max_ms ms, and at most 1/$max_share"
fi
