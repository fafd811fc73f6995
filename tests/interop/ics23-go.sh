#!/usr/bin/env bash
# Proofs of state keys, and of their absence, are ICS-23: the Cosmos developers' own Go library checks our vectors against
# the root, with the tree's specification written down from docs/formats/state.md, and refuses other roots, keys and values.
. "$(dirname "$0")/lib"
need python3 "install Python 3"
need_go
vectors=$root/node/state/tests/vectors/proofs.json
mkdir -p "$tools/go"
(cd "$here/go/ics23" && GOFLAGS=-mod=readonly go build -o "$tools/go/ics23" .) ||
  fail "the checker could not be built: is a module proxy in reach?"
said=$("$tools/go/ics23" "$vectors") || fail "the Go library refuses a proof"
ok "ics23/go checks $said"
# A proof with one byte changed, at the place where the path of hashes lies.
python3 - "$vectors" >"$scratch/changed.json" <<'END'
import base64, json, sys
file = json.load(open(sys.argv[1]))
for case in file["cases"]:
    proof = bytearray(base64.b64decode(case["proof"]))
    proof[-1] ^= 1
    case["proof"] = base64.b64encode(proof).decode()
json.dump(file, sys.stdout)
END
! "$tools/go/ics23" "$scratch/changed.json" >/dev/null 2>&1 || fail "the Go library accepts a changed proof"
ok "a changed proof is refused"
