#!/usr/bin/env bash
# The DHT, with real Kubo nodes on loopback: we find a provider that nobody named, and Kubo finds us. Kubo leads the way in
# both, as the member that everybody starts from.
. "$(dirname "$0")/lib"
need jq "install jq"
need python3 "install Python 3"
need_instar
need_kubo
unset INSTAR_NODE INSTAR_STORE
trap stop_all EXIT

# A member of the DHT of a local network; loopback addresses count in it only where that is said.
kubo_member() { # folder, member to start from
  kubo_init "$1"
  python3 - "$1/config" "${2:-}" <<'PY'
import json, sys
config = json.load(open(sys.argv[1]))
config['Routing'] = {'Type': 'dhtserver', 'LoopbackAddressesOnLanDHT': True}
config['Provide'] = {'Enabled': True}
config['Bootstrap'] = [sys.argv[2]] if sys.argv[2] else []
json.dump(config, open(sys.argv[1], 'w'))
PY
  kubo_start "$1"
}
router() { IPFS_PATH=$scratch/router "$kubo" "$@"; }
holder() { IPFS_PATH=$scratch/holder "$kubo" "$@"; }

kubo_member "$scratch/router"
start=$kubo_peer
kubo_member "$scratch/holder" "$start"
holder_id=$(holder id -f '<id>')
holder swarm connect "$start" >/dev/null

mkdir -p "$scratch/folder"
head -c 5000000 "$instar" >"$scratch/folder/large"
echo small >"$scratch/folder/small"

# ----- we find what only a Kubo holds that we were never told of
cid=$(holder add -Q -r --cid-version=1 "$scratch/folder")
holder routing provide "$cid" >/dev/null
await 60 "the announcement" bash -c "IPFS_PATH=$scratch/router timeout 5 $kubo routing findprovs $cid | grep -q $holder_id"
timeout 90 "$instar" get "$cid" -o "$scratch/got" --store "$scratch/store" --dht "$start" --dht-network lan --json >"$scratch/report"
diff -r "$scratch/folder" "$scratch/got" || fail "we read otherwise"
same "$(jq '.sources[0].blocks == .fetched_blocks and .fetched_blocks > 10' "$scratch/report")" true "we find a provider through a Kubo's DHT and fetch from it"
if timeout 60 "$instar" get "$cid" -o "$scratch/none" --store "$scratch/none-store" --peer "$start" >/dev/null 2>"$scratch/refusal"; then
  fail "the member that leads the way has it itself, so that nothing was shown"
fi
ok "the member that led there has none of it: without the DHT the fetch fails"

# ----- Kubo finds us
ours=$("$instar" add --store "$scratch/ours" "$scratch/folder" 2>/dev/null)
ours_start "$scratch/ours" --dht "$start" --dht-network lan --dht-serve
ours_id=${ours_peer##*/}
await 60 "our announcement" bash -c "IPFS_PATH=$scratch/holder timeout 5 $kubo routing findprovs $ours | grep -q $ours_id"
ok "what we keep is announced, and Kubo finds us by it"
timeout 90 env IPFS_PATH="$scratch/holder" "$kubo" get "$ours" -o "$scratch/kubo-got" >/dev/null 2>&1 || fail "Kubo could not fetch $ours"
diff -r "$scratch/folder" "$scratch/kubo-got" || fail "Kubo reads otherwise"
ok "and fetches it, never having been told where we are"
