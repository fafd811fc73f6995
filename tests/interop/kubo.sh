#!/usr/bin/env bash
# A real Kubo, on loopback alone: the same addresses, blocks over bitswap both ways, pins by its RPC (also when it is killed in
# the middle), its gateway as a source, our gateway read with its tools; and a Kubo whose disk lies is named.
. "$(dirname "$0")/lib"
need curl "install curl"
need jq "install jq"
need python3 "install Python 3"
need_instar
need_kubo
unset INSTAR_NODE INSTAR_STORE
trap stop_all EXIT
ipfs() { IPFS_PATH=$scratch/kubo "$kubo" "$@"; }
version=$("$kubo" version -n)

folder=$scratch/folder
mkdir -p "$folder/a/b"
head -c 9000000 "$instar" >"$folder/a/b/large"
echo small >"$folder/small"
: >"$folder/empty"
ln -s a/b "$folder/link"
for i in $(seq 1 300); do echo "$i" >"$folder/a/file-$i"; done

# ----- addresses
kubo_init "$scratch/kubo"
ipfs config profile apply unixfs-v1-2025 >/dev/null
ours=$("$instar" add --only-cid --profile unixfs-v1-2025 "$folder")
same "$ours" "$(ipfs add -Q -r --only-hash "$folder")" "Kubo $version gives a folder the same address under unixfs-v1-2025"
for size in 1 1048576 1048577 7000001; do
  head -c "$size" "$instar" >"$scratch/file"
  same "$("$instar" add --only-cid --profile unixfs-v1-2025 "$scratch/file")" "$(ipfs add -Q --only-hash "$scratch/file")" "and a file of $size bytes"
done

# From here on it shards even small folders.
ipfs config --json Import.UnixFSHAMTDirectorySizeThreshold '"4KiB"' >/dev/null
kubo_start "$scratch/kubo"
[ -n "$kubo_peer" ] || fail "Kubo listens nowhere: $(cat "$scratch/kubo/log")"

# ----- bitswap, Kubo from us
for profile in instar-cdc-v1 unixfs-v1-2025; do
  cid=$("$instar" add --store "$scratch/$profile" --profile "$profile" "$folder" 2>/dev/null)
  ours_start "$scratch/$profile"
  ipfs swarm connect "$ours_peer" >/dev/null
  IPFS_PATH=$scratch/kubo timeout 60 "$kubo" get "$cid" -o "$scratch/kubo-got-$profile" >/dev/null 2>&1 || fail "Kubo could not fetch $cid from us"
  diff -r --no-dereference "$folder" "$scratch/kubo-got-$profile" || fail "Kubo reads otherwise"
  timeout 60 env IPFS_PATH="$scratch/kubo" "$kubo" pin add "$cid" >/dev/null || fail "Kubo can't pin $cid"
  ok "Kubo fetches $profile from us over bitswap, reads the same and pins it ($cid)"
  kill "$ours_pid" && wait "$ours_pid" 2>/dev/null || true
done

# ----- bitswap, we from Kubo; in the shape that Kubo itself makes by default, and in a sharded folder
theirs=$(ipfs add -Q -r --cid-version=0 --raw-leaves=false --chunker=size-262144 "$folder")
"$instar" get "$theirs" -o "$scratch/bitswap" --store "$scratch/from-kubo" --peer "$kubo_peer" --json >"$scratch/report"
diff -r --no-dereference "$folder" "$scratch/bitswap" || fail "we read otherwise"
same "$(jq '.sources[0].blocks == .fetched_blocks and .fetched_blocks > 30' "$scratch/report")" true "we fetch CIDv0 folders from Kubo over bitswap"
sharded=$(ipfs add -Q -r --raw-leaves --cid-version=1 --chunker=rabin "$folder")
"$instar" get "$sharded/a/file-77" -o "$scratch/77" --store "$scratch/from-kubo-2" --peer "$kubo_peer" >/dev/null
same "$(cat "$scratch/77")" 77 "and one file out of a folder that Kubo made, by its path alone"

# ----- its gateway and its RPC as sources
for source in "--gateway $kubo_gateway" "--kubo $kubo_api"; do
  name=${source%% *}
  # shellcheck disable=SC2086 # an option and its value
  "$instar" get "$sharded" -o "$scratch/got$name" --store "$scratch/store$name" $source >/dev/null
  diff -r --no-dereference "$folder" "$scratch/got$name" || fail "we read otherwise by $name"
  ok "Kubo as a source: $name"
  head -c 100 /dev/urandom >"$scratch/nobody"
  absent=$("$instar" add --only-cid "$scratch/nobody")
  # shellcheck disable=SC2086
  if "$instar" get "$absent" -o "$scratch/absent" --store "$scratch/store$name" $source 2>"$scratch/refusal"; then
    fail "what nobody has was fetched"
  fi
  grep -q "doesn't have it" "$scratch/refusal" || fail "another reason: $(cat "$scratch/refusal")"
done
ok "what Kubo doesn't hold is said so"

# ----- our gateway, read with Kubo's tools: archives imported, blocks put, each address its own
cid=$("$instar" add --store "$scratch/instar-cdc-v1" "$folder" 2>/dev/null)
ours_start "$scratch/instar-cdc-v1"
kubo_init "$scratch/second"
second() { IPFS_PATH=$scratch/second "$kubo" "$@"; }
curl -sSf -H 'Accept: application/vnd.ipld.car;version=1;order=dfs;dups=n' "$ours_gateway/ipfs/$cid" >"$scratch/ours.car"
same "$(second dag import "$scratch/ours.car" | grep -o "$cid" | head -1)" "$cid" "Kubo imports an archive from our gateway"
second dag stat --progress=false "$cid" >/dev/null || fail "the archive was not whole"
second get "$cid" -o "$scratch/second-got" >/dev/null 2>&1
diff -r --no-dereference "$folder" "$scratch/second-got" || fail "Kubo reads our archive otherwise"
second pin rm "$cid" >/dev/null && second repo gc -q >/dev/null
# A path and a scope: what it takes to read one file, and nothing of the rest.
curl -sSf "$ours_gateway/ipfs/$cid/a/b/large?format=car&dag-scope=entity" >"$scratch/entity.car"
second dag import --pin-roots=false "$scratch/entity.car" >/dev/null
second cat --offline "$cid/a/b/large" | cmp - "$folder/a/b/large" || fail "the entity is not whole"
if second cat --offline "$cid/small" >/dev/null 2>&1; then fail "the archive brought more than the entity"; fi
ok "and reads one file out of a path and dag-scope=entity"
curl -sSf "$ours_gateway/ipfs/$cid/a/b/large?format=car&entity-bytes=4000000:4000999" >"$scratch/bytes.car"
[ "$(stat -c %s "$scratch/bytes.car")" -lt 400000 ] || fail "entity-bytes brought the whole file"
second repo gc -q >/dev/null
second dag import --pin-roots=false "$scratch/bytes.car" >/dev/null
second cat --offline -o 4000000 -l 1000 "$cid/a/b/large" | cmp - <(tail -c +4000001 "$folder/a/b/large" | head -c 1000) || fail "entity-bytes lacks a block"
ok "and 1,000 bytes out of its middle"
curl -sSf -H 'Accept: application/vnd.ipld.raw' "$ours_gateway/ipfs/$cid" >"$scratch/root-block"
same "$(second block put --cid-codec dag-pb "$scratch/root-block")" "$cid" "a raw block has the address it was asked by"
curl -sSf -H 'Range: bytes=0-9' "$ours_gateway/ipfs/$cid?format=raw" | cmp - <(head -c 10 "$scratch/root-block") || fail "a range differs"
same "$(curl -sSI "$ours_gateway/ipfs/$cid?format=raw" | tr -d '\r' | grep -ciE '^(etag: "'"$cid"'.raw"|cache-control: .*immutable|content-type: application/vnd.ipld.raw|x-content-type-options: nosniff)')" 4 "HEAD answers with what the specification asks for"
# The same requests to both gateways end in the same status.
for request in "$cid" "$cid?format=tar" "$cid/nobody?format=car" "$absent?format=raw" "nonsense?format=raw" "$cid?format=car&dag-scope=none"; do
  status=$(curl -s -o /dev/null -w '%{http_code}' -H 'Accept: application/x-nothing' "$ours_gateway/ipfs/$request")
  case "$status" in 4??) ;; *) fail "our gateway answers $status to $request" ;; esac
done
same "$(curl -s -o /dev/null -w '%{http_code}' -X POST "$ours_gateway/ipfs/$cid?format=raw")" 405 "our gateway takes no writes"
kill "$ours_pid" && wait "$ours_pid" 2>/dev/null || true

# ----- pins by RPC
kubo_start "$scratch/second"
second_pid=$kubo_pid second_api=$kubo_api
export INSTAR_STORE=$scratch/instar-cdc-v1
"$instar" pin "$cid" --kubo "$second_api" --json >"$scratch/pinned"
same "$(jq -c '[.copies, .places[0].pinned, .places[0].attempts]' "$scratch/pinned")" '[1,true,1]' "instar pin: the archive, the pin, and the question whether it holds"
second pin ls --type=recursive "$cid" >/dev/null || fail "Kubo lists no pin of $cid"
second get "$cid" -o "$scratch/pin-got" >/dev/null 2>&1
diff -r --no-dereference "$folder" "$scratch/pin-got" || fail "what was pinned reads otherwise"
# One of two places is gone: reported, and --min-copies decides.
if "$instar" pin "$cid" --kubo "$second_api" --kubo http://127.0.0.1:9 --json >"$scratch/pinned" 2>"$scratch/refusal"; then
  fail "two places were asked for and one held it"
fi
same "$(jq -c '[.copies, .min_copies, (.places | map(.pinned)), .places[1].attempts]' "$scratch/pinned")" '[1,2,[true,false],6]' "a place that is gone is tried six times and reported"
"$instar" pin "$cid" --kubo "$second_api" --kubo http://127.0.0.1:9 --min-copies 1 >"$scratch/pinned"
ok "--min-copies 1 is content with the other"

# Killed in the middle: it is stopped, so that the call stands in the middle of the upload; killed; and started again.
head -c 64000000 /dev/urandom >"$scratch/big"
big=$("$instar" add "$scratch/big" 2>/dev/null)
port=${second_api##*:}
kill -STOP "$second_pid"
"$instar" pin "$big" --kubo "$second_api" --json >"$scratch/pinned" & pin_pid=$!
started+=("$pin_pid")
sleep 1
kill -9 "$second_pid"
wait "$second_pid" 2>/dev/null || true
# It comes back at the same address. Written while no daemon has the repository, whose lock this takes.
rm -f "$scratch/second/api"
second config Addresses.API "/ip4/127.0.0.1/tcp/$port"
kubo_start "$scratch/second"
wait "$pin_pid" || fail "the pin was given up: $(cat "$scratch/pinned")"
[ "$(jq '.places[0].attempts' "$scratch/pinned")" -ge 2 ] || fail "Kubo was not killed in the middle: $(cat "$scratch/pinned")"
second pin ls --type=recursive "$big" >/dev/null || fail "Kubo lists no pin after it came back"
second cat "$big" | cmp - "$scratch/big" || fail "what was pinned reads otherwise"
ok "killed in the middle of an upload and started again, it holds it in the end ($(jq '.places[0].attempts' "$scratch/pinned") tries)"
unset INSTAR_STORE

# ----- a Kubo that lies: a block on its disk rots, and it doesn't look
kill "$kubo_pid" && wait "$kubo_pid" 2>/dev/null || true
kubo_init "$scratch/liar"
liar() { IPFS_PATH=$scratch/liar "$kubo" "$@"; }
liar add -Q --raw-leaves --cid-version=1 --chunker=size-262144 "$folder/a/b/large" >"$scratch/lied"
lied=$(cat "$scratch/lied")
leaf=$(liar refs "$lied" | sed -n 20p)
name=$(python3 - "$leaf" <<'PY'
import base64, sys
cid = sys.argv[1][1:].upper()
raw = base64.b32decode(cid + '=' * (-len(cid) % 8))
print(base64.b32encode(raw[2:]).decode().rstrip('=') + '.data')
PY
)
file=$(find "$scratch/liar/blocks" -name "$name")
[ -f "$file" ] || fail "Kubo keeps $leaf nowhere"
python3 - "$file" <<'PY'
import sys
block = bytearray(open(sys.argv[1], 'rb').read()); block[1000] ^= 1
open(sys.argv[1], 'wb').write(block)
PY
kubo_start "$scratch/liar"
for source in "--gateway $kubo_gateway" "--kubo $kubo_api" "--peer $kubo_peer"; do
  name=${source%% *}
  # shellcheck disable=SC2086
  if timeout 120 "$instar" get "$lied" -o "$scratch/lied-out" --store "$scratch/lied$name" $source 2>"$scratch/refusal" >/dev/null; then
    fail "a rotten block went through ($name)"
  fi
  [ ! -e "$scratch/lied-out" ] || fail "something was written"
  grep -qE "lied|another hash|refused:" "$scratch/refusal" || fail "the liar isn't named ($name): $(cat "$scratch/refusal")"
done
# Beside an honest source it is dropped, named, and the fetch goes on.
honest=$scratch/honest.car
liar_free=$(ipfs add -Q --raw-leaves --cid-version=1 --chunker=size-262144 "$folder/a/b/large")
same "$liar_free" "$lied" "the honest node has the same file"
ipfs dag export --progress=false "$lied" >"$honest"
"$instar" get "$lied" -o "$scratch/unlied" --store "$scratch/unlied-store" --gateway "$kubo_gateway" --car "$honest" --json >"$scratch/report" 2>/dev/null
cmp "$scratch/unlied" "$folder/a/b/large" || fail "it reads otherwise"
ok "a Kubo whose disk rotted is named, over each way; beside an honest source the fetch goes on ($(jq -c '.sources | map(.dropped != null)' "$scratch/report"))"
