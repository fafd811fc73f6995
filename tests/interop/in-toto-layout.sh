#!/usr/bin/env bash
# A release policy, written as an in-toto layout, is checked by stock `in-toto-verify`: a release by two of three builders
# passes; a changed binary, an added file, a missing builder and another owner's layout are refused.
. "$(dirname "$0")/lib"
need_python
need_instar
need git "install git 2.39 or newer"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null

mkdir "$scratch/source"
tar -C "$root/node/dapps" --exclude=target -c . | tar -C "$scratch/source" -x
git -C "$scratch/source" init --quiet
git -C "$scratch/source" add --all
git -C "$scratch/source" -c user.name=check -c user.email=check@localhost commit --quiet --message "The dapps"
"$instar" build "$scratch/source" --name coin --out "$scratch/out" >/dev/null 2>&1 ||
  fail "the coin can't be built here; \`instar doctor\` says what is missing"

parties=
for who in a b c; do
  "$instar" key new builder -o "$scratch/$who.json" >/dev/null
  public=$("$instar" key show "$scratch/$who.json" --json | sed 's/.*"public":"\([0-9a-f]*\)".*/\1/')
  parties="$parties{\"name\":\"$who\",\"operator\":\"$who\",\"key\":\"$public\"},"
done
"$instar" key new builder -o "$scratch/owner.json" >/dev/null
"$instar" key show "$scratch/owner.json" --pem >"$scratch/owner.pem"
"$instar" key show "$scratch/c.json" --pem >"$scratch/other.pem"
cat >"$scratch/policy.json" <<JSON
{ "format": "instar-release-policy-v1", "recipes": ["cargo-vendored-v1"],
  "builders": { "threshold": 2, "of": [${parties%,}] } }
JSON
"$instar" policy layout "$scratch/policy.json" --key "$scratch/owner.json" --expires 2099-01-01T00:00:00Z \
  -o "$scratch/root.layout" >/dev/null || fail "no layout"
for who in a b; do
  "$instar" attest "$scratch/out" --key "$scratch/$who.json" --link build >/dev/null || fail "no link of $who"
done
mkdir "$scratch/links"
mv "$scratch"/out/*.link "$scratch/links/"

check() { # folder of the release, links, owner's key
  (cd "$1" && "$tools/py/bin/in-toto-verify" --layout "$scratch/root.layout" --link-dir "$2" \
    --verification-keys "$3" >"$scratch/said" 2>&1)
}
refused() { # words, folder, links, key, what in-toto has to say
  if check "$2" "$3" "$4"; then fail "$1: in-toto-verify accepts it"; fi
  grep -qE "$5" "$scratch/said" || fail "$1: refused for another reason: $(cat "$scratch/said")"
  ok "$1 is refused"
}
fresh() { rm -rf "$scratch/release"; cp -r "$scratch/out/release" "$scratch/release"; }

fresh
check "$scratch/release" "$scratch/links" "$scratch/owner.pem" || fail "refused: $(cat "$scratch/said")"
ok "in-toto-verify accepts the release by 2 of 3 builders"
fresh
program=$(find "$scratch/release" -name coin -type f)
printf 'x' >>"$program"
refused "a changed binary" "$scratch/release" "$scratch/links" "$scratch/owner.pem" "DISALLOW"
fresh
echo evil >"$scratch/release/evil"
refused "an added file" "$scratch/release" "$scratch/links" "$scratch/owner.pem" "DISALLOW"
fresh
mkdir "$scratch/one"
cp "$(find "$scratch/links" -name '*.link' | head -n 1)" "$scratch/one/"
refused "one builder of two" "$scratch/release" "$scratch/one" "$scratch/owner.pem" "[Tt]hreshold|requires"
fresh
refused "another owner's layout" "$scratch/release" "$scratch/links" "$scratch/other.pem" "[Ss]ignature|verif"
