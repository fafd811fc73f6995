#!/usr/bin/env bash
# The chunk profile is ordinary IPFS. A cutter written from docs/formats/chunks.md, with the JavaScript UnixFS importer,
# arrives at every CID of the vectors; the JavaScript exporter reads the content back out of those blocks; the dag-pb
# codec writes the directories' bytes; and what the program prints for a folder is what the importer makes of it.
. "$(dirname "$0")/lib"
need_npm
need_instar

# A folder with an empty file, one of one chunk, one of many, equal ones, and names that sort by their bytes.
folder=$scratch/folder
mkdir -p "$folder/x86_64-unknown-linux-gnu/rootfs/bin" "$folder/a"
: >"$folder/empty"
printf '{}\n' >"$folder/release.json"
for name in b a/b a.b a-b B ä 10 9; do printf 'x' >"$folder/$name"; done
cp "$instar" "$folder/x86_64-unknown-linux-gnu/instar"
head -c 3000000 "$instar" >"$folder/x86_64-unknown-linux-gnu/rootfs/bin/coin"
node "$tools/js/unixfs.mjs" "$root/node/chunks/fixtures/instar-cdc-v1.json" "$folder" \
  "$("$instar" add --only-cid "$folder")"
