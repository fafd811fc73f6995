#!/usr/bin/env bash
# The auditor's guide is true: its commands are taken out of the page and run, one after the other, against a chain of four
# validators that upgraded itself; then the same commands fail on a bundle in which one byte was changed.
. "$(dirname "$0")/lib"
need_python
need_instar
need_cosign
for tool in git jq xxd openssl ssh-keygen tar; do need "$tool" "install it with your system's package manager"; done
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null

home=$scratch/home
log=$scratch/demo.log
"$instar" demo --no-node --keep --json --home "$home" >"$scratch/demo.json" 2>"$log" &
demo=$!
# The chain goes on after the demo, which says how to stop it.
end() {
  kill "$demo" 2>/dev/null || true
  sed -n 's/^Stop it with: kill //p' "$log" | tr ' ' '\n' | while read -r pid; do kill "$pid" 2>/dev/null || true; done
}
trap end EXIT
wait "$demo" || fail "the demo failed: $(tail -n 5 "$log")"
report=$scratch/report.json
tail -n 1 "$scratch/demo.json" >"$report"
cid=$(jq -r '.upgrades[0].to' "$report")
ledger=$(jq -r .ledger_url "$report")
chain=$(git -C "$home/auditor/ledger" rev-list --max-parents=0 origin/trunk)
ok "a chain runs, and $cid is live on it"

# What others hand to the auditor: the builders' links, and a maintainer's review of the source commit.
mkdir "$scratch/page" "$scratch/page/links"
for validator in "$home"/validators/val-*; do
  cp -r "$validator/runner/dapps-coin-2" "$scratch/out"
  "$instar" attest "$scratch/out" --key "$validator/keys/builder.json" --link build >/dev/null
  mv "$scratch"/out/*.link "$scratch/page/links/"
  rm -rf "$scratch/out"
done
commit=$(jq -r .source.commit "$home/validators/val-1/runner/dapps-coin-2/build.json")
ssh-keygen -q -t ed25519 -N '' -C maintainer -f "$scratch/maintainer"
echo "instar/review/v1 $commit" | ssh-keygen -q -Y sign -n instar-review -f "$scratch/maintainer" >"$scratch/page/review.sig" 2>/dev/null
echo "maintainer $(cut -d' ' -f1,2 "$scratch/maintainer.pub")" >"$scratch/page/maintainers"

# The page's commands, with the names of this chain in the place of the examples'.
repository=$(find "$home" -maxdepth 3 -type d -path '*coin*' -name .git -printf '%h\n' | head -n 1)
{ echo 'set -euo pipefail'
  awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$root/docs/guides/auditor.md" |
    sed -e "s|^NODE=.*|NODE=${ledger%/ledger.git}|" -e "s|^CHAIN=.*|CHAIN=$chain|" -e "s|^CID=.*|CID=$cid|" -e "s|^SOURCE=.*|SOURCE=$repository|"
} >"$scratch/page.sh"
[ "$(grep -cE '^(NODE|CHAIN|CID|SOURCE)=' "$scratch/page.sh")" = 4 ] || fail "the page does not name node, chain, release and source"
PATH=$(dirname "$instar"):$tools/go:$tools/py/bin:$PATH
export PATH
(cd "$scratch/page" && bash "$scratch/page.sh") >"$scratch/page.log" 2>&1 || fail "a command of the page fails: $(tail -n 8 "$scratch/page.log")"
ok "every command of docs/guides/auditor.md holds ($(grep -c . "$scratch/page.sh") lines)"
[ "$(jq .ok "$scratch/page/coin.json")" = true ] || fail "the report says no"
grep -q "Chain of custody: verified" "$scratch/page/coin.html" || fail "the page of the report says no"
grep -q '<script' "$scratch/page/coin.html" && fail "the report's page has a script"
grep -q "CN=\|verified: live since height" "$scratch/page.log" || fail "the program's answer is not what the page says"

# The same file with one byte changed, wherever it is, is refused by the program, offline.
cp "$scratch/page/coin.audit" "$scratch/changed.audit"
size=$(stat -c %s "$scratch/changed.audit")
refusals=0
for at in 700 $((size / 4)) $((size / 2)) $((size / 4 * 3)); do
  cp "$scratch/page/coin.audit" "$scratch/changed.audit"
  byte=$(xxd -s "$at" -l 1 -p "$scratch/changed.audit")
  printf '%02x' $((16#$byte ^ 1)) | xxd -r -p | dd of="$scratch/changed.audit" bs=1 seek="$at" conv=notrunc status=none
  ! "$instar" audit --bundle "$scratch/changed.audit" >"$scratch/said" 2>&1 || fail "byte $at of the audit bundle changed, and it is accepted"
  refusals=$((refusals + 1))
done
ok "the audit bundle with a changed byte is refused, at $refusals places"
# One character is another; one in eight addresses ends with the first that comes to mind.
case "$cid" in *a) other=${cid%?}i ;; *) other=${cid%?}a ;; esac
! "$instar" audit "$other" --bundle "$scratch/page/coin.audit" >"$scratch/said" 2>&1 || fail "it passes as another release's"
ok "it is refused as another release's"
