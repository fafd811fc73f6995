#!/usr/bin/env bash
# Archives cross over: npm's ipfs-car unpacks what the program exports, and the program reads what ipfs-car packs.
. "$(dirname "$0")/lib"
need_npm
need_instar
export INSTAR_STORE=$scratch/store
unset INSTAR_NODE
ipfs_car() { node "$tools/js/node_modules/ipfs-car/bin.js" "$@"; }

folder=$scratch/folder
mkdir -p "$folder/a/b"
head -c 5000000 "$instar" >"$folder/a/b/large"
echo small >"$folder/small"
: >"$folder/empty"

for profile in instar-cdc-v1 unixfs-v1-2025; do
  cid=$("$instar" add --profile "$profile" "$folder" 2>/dev/null)
  "$instar" store export "$cid" -o "$scratch/$profile.car" >/dev/null
  "$instar" store export "$cid" -o - | cmp - "$scratch/$profile.car" || fail "two exports differ"
  ipfs_car unpack "$scratch/$profile.car" --output "$scratch/$profile-out" >&2
  diff -r "$folder" "$scratch/$profile-out" || fail "ipfs-car reads otherwise"
  same "$(ipfs_car roots "$scratch/$profile.car")" "$cid" "ipfs-car reads our archive ($profile)"
done

ipfs_car pack "$folder" --no-wrap --output "$scratch/theirs.car" >&2
cid=$(ipfs_car roots "$scratch/theirs.car")
INSTAR_STORE=$scratch/other "$instar" store import "$scratch/theirs.car" >/dev/null
INSTAR_STORE=$scratch/other "$instar" get "$cid" -o "$scratch/theirs" >/dev/null
diff -r "$folder" "$scratch/theirs" || fail "we read otherwise"
ok "we read ipfs-car's archive ($cid)"

# The check can fail: one bit in the archive, and it is refused.
python3 - "$scratch/theirs.car" "$scratch/flipped.car" <<'PY'
import sys
data = bytearray(open(sys.argv[1], 'rb').read()); data[len(data) // 2] ^= 1
open(sys.argv[2], 'wb').write(data)
PY
if INSTAR_STORE=$scratch/third "$instar" store import "$scratch/flipped.car" 2>"$scratch/refusal"; then
  fail "a flipped bit went through"
fi
ok "an archive with a flipped bit is refused"
