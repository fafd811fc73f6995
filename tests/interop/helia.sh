#!/usr/bin/env bash
# Blocks cross over with Helia, the JavaScript implementation, over TCP, noise and yamux: it fetches from us and we from it; and a
# block that its store turned is refused, and its sender named.
. "$(dirname "$0")/lib"
need jq "install jq"
need_instar
need_helia
unset INSTAR_NODE INSTAR_STORE
trap stop_all EXIT

folder=$scratch/folder
mkdir -p "$folder/a/b"
head -c 6000000 "$instar" >"$folder/a/b/large"
echo small >"$folder/small"
: >"$folder/empty"

for profile in instar-cdc-v1 unixfs-v1-2025; do
  cid=$("$instar" add --store "$scratch/$profile" --profile "$profile" "$folder" 2>/dev/null)
  ours_start "$scratch/$profile"
  timeout 120 "$node22" "$tools/helia/helia.mjs" get "$ours_peer" "$cid" "$scratch/got-$profile" || fail "Helia could not fetch $cid from us"
  diff -r "$folder" "$scratch/got-$profile" || fail "Helia reads otherwise"
  ok "Helia fetches $profile from us over bitswap and reads the same ($cid)"
done

serve() { # mode: sets helia_peer, helia_cid
  "$node22" "$tools/helia/helia.mjs" "$1" "$folder" >"$scratch/$1" 2>"$scratch/$1.log" 9>&- &
  started+=("$!")
  await 60 "Helia to serve (log: $scratch/$1.log)" grep -q /p2p/ "$scratch/$1"
  read -r helia_peer helia_cid <"$scratch/$1"
}
serve serve
honest_peer=$helia_peer
"$instar" get "$helia_cid" -o "$scratch/from-helia" --store "$scratch/store" --peer "$helia_peer" --json >"$scratch/report"
diff -r "$folder" "$scratch/from-helia" || fail "we read otherwise"
same "$(jq '.sources[0].blocks == .fetched_blocks and .fetched_blocks > 5' "$scratch/report")" true "we fetch from Helia over bitswap ($helia_cid)"

serve lie
if timeout 120 "$instar" get "$helia_cid" -o "$scratch/lied" --store "$scratch/lied-store" --peer "$helia_peer" 2>"$scratch/refusal" >/dev/null; then
  fail "a turned block went through"
fi
grep -q "another hash" "$scratch/refusal" || fail "the liar isn't named: $(cat "$scratch/refusal")"
"$instar" get "$helia_cid" -o "$scratch/unlied" --store "$scratch/lied-store" --peer "$helia_peer" --peer "$honest_peer" >/dev/null 2>&1
diff -r "$folder" "$scratch/unlied" || fail "we read otherwise beside a liar"
ok "a Helia that turns a block is named; beside an honest one the fetch goes on"
