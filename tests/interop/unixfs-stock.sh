#!/usr/bin/env bash
# The stock profile gives the CIDs of the JavaScript importer; what that importer writes in other shapes (content inside
# dag-pb, CIDv0, trickle, sharded folders) comes out again as it went in; a sharded folder that lies is refused.
. "$(dirname "$0")/lib"
need_npm
need_instar
export INSTAR_STORE=$scratch/store
unset INSTAR_NODE

node "$tools/js/stock.mjs" vectors "$root/node/chunks/fixtures/unixfs-v1-2025.json"

folder=$scratch/folder
mkdir -p "$folder/deep/er/empty-not" "$folder/many"
: >"$folder/empty"
head -c 3000000 "$instar" >"$folder/deep/er/large"
printf x >"$folder/deep/er/empty-not/ä"
for i in $(seq 1 600); do echo "$i" >"$folder/many/file-$i"; done
for i in $(seq 1 8); do # files and folders whose sizes nobody chose
  mkdir -p "$folder/random/$((RANDOM % 3))"
  head -c $((RANDOM * RANDOM % 5000000)) "$instar" >"$folder/random/$((RANDOM % 3))-$i" 2>/dev/null
done
find "$folder" -type d -empty -delete
printed=$("$instar" add --only-cid --profile unixfs-v1-2025 "$folder")
node "$tools/js/stock.mjs" folder "$folder" "$printed"

mkdir "$scratch/foreign"
node "$tools/js/stock.mjs" foreign "$folder" "$scratch/foreign" >"$scratch/shapes"
while read -r name cid; do
  car=$scratch/foreign/$name.car
  if [ "$name" = lie ]; then
    if "$instar" get "$cid" -o "$scratch/$name" --car "$car" 2>"$scratch/refusal"; then
      fail "a sharded folder that lies was written out"
    fi
    grep -q "wrong slot" "$scratch/refusal" || fail "it was refused for another reason: $(cat "$scratch/refusal")"
    ok "a sharded folder that lies is refused"
    continue
  fi
  "$instar" get "$cid" -o "$scratch/$name" --car "$car" >/dev/null
  diff -r "$folder" "$scratch/$name" || fail "$name reads otherwise"
  same "$(cat "$("$instar" get "$cid/many/file-77" -o "$scratch/$name-77" --car "$car" >/dev/null && echo "$scratch/$name-77")")" 77 "$name ($cid) reads back, whole and by a path"
done <"$scratch/shapes"
"$instar" store verify >/dev/null
ok "the store that took all of them is sound"
