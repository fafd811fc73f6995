#!/usr/bin/env bash
# Checks the vectors with git, ssh-keygen and OpenSSL, without a line of ours: ids, the lane commit's signature, and the
# certificate. Ends with a non-zero status at the first thing that does not hold.
set -euo pipefail
cd "$(dirname "$0")"
for tool in git jq openssl python3 ssh-keygen xxd; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: install it with your system's package manager" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git init -q --bare --object-format=sha256 "$work/git"

id() { python3 -c 'import json,sys; print(json.load(open("ids.json"))[sys.argv[1]])' "$1"; }
field() { python3 -c 'import json,sys; v=json.load(open(sys.argv[1])); print(eval("v"+sys.argv[2]))' "$1" "$2"; }
same() { [ "$1" = "$2" ] || { echo "$3: $1 is not $2" >&2; exit 1; }; echo "ok: $3"; }
put() { git --git-dir="$work/git" hash-object -w -t "$1" --stdin --literally; }

# Ids are git's own.
tree() {
  local file
  for file in "$@"; do
    printf '100644 blob %s\t%s\n' "$(put blob <"$file")" "$file"
  done | git --git-dir="$work/git" mktree
}
same "$(tree genesis.json)" "$(sed -n 's/^tree //p' genesis.commit)" "tree of the genesis"
same "$(put commit <genesis.commit)" "$(id chain)" "chain id"
same "$(tree entries.jsonl)" "$(id lane_tree)" "tree of the lane commit"
same "$(put commit <lane.commit)" "$(id lane_commit)" "id of the lane commit"
same "$(tree header.json receipts.jsonl)" "$(id block_tree)" "tree of the block"
same "$(put commit <block.commit)" "$(id block)" "id of the block"
same "$(tree certificate.json)" "$(id tip_tree)" "tree of the tip"
same "$(put commit <tip.commit)" "$(id tip)" "id of the tip"
same "$(put commit <block-2.commit)" "$(id block_2)" "id of the second block"
same "$(put commit <block-3.commit)" "$(id block_3)" "id of the third block, which merges a fork"
same "$(sed -n 's/^parent //p' block-3.commit | tail -n 1)" "$(field header-3.json '["forks"][0]["head"]')" "the fork's block is a parent"
same "$(openssl dgst -sha256 -r receipts-3.jsonl | cut -d' ' -f1)" "$(field header-3.json '["receipts"]')" "digest of its receipts"
same "$(openssl dgst -sha256 -r receipts.jsonl | cut -d' ' -f1)" "$(field header.json '["receipts"]')" "digest of the receipts"

# The lane commit is the payload with the armour put in, and ssh-keygen verifies the one over the other.
ssh-keygen -Y verify -f allowed_signers -I v0 -n git -s lane.sig <lane.payload
same "$(sed -n '/^gpgsig-sha256 /,/END SSH/p' lane.commit | sed 's/^gpgsig-sha256 //; s/^ //')" "$(cat lane.sig)" "armour in the lane commit"
same "$(sed '/^gpgsig-sha256 /,/END SSH/d' lane.commit | sha256sum)" "$(sha256sum <lane.payload)" "payload in the lane commit"

# An Ed25519 public key becomes a PEM by a fixed prefix (RFC 8410).
pem() {
  echo "-----BEGIN PUBLIC KEY-----"
  printf '302a300506032b6570032100%s' "$1" | xxd -r -p | base64
  echo "-----END PUBLIC KEY-----"
}
verify() { # key, signature, file
  pem "$1" >"$work/key.pem"
  printf '%s' "$2" | xxd -r -p >"$work/sig"
  openssl pkeyutl -verify -pubin -inkey "$work/key.pem" -rawin -in "$3" -sigfile "$work/sig" >/dev/null
}

# The entry.
verify "$(field entry.json '["author"]')" "$(field entry.json '["sig"]')" entry.signed
echo "ok: signature of the entry"

# The certificate: the signed bytes put together from it, then each signature.
{
  printf 'instar/vote/v1\0'
  printf '%s' "$(id chain)" | xxd -r -p
  printf '\002'
  printf '%016x%08x' "$(field certificate.json '["height"]')" "$(field certificate.json '["round"]')" | xxd -r -p
  printf '\001'
  printf '%s' "$(field certificate.json '["block"]')" | xxd -r -p
} >"$work/precommit"
cmp "$work/precommit" precommit.signed
power=0
for n in 0 1 2; do
  key=$(field certificate.json "[\"signatures\"][$n][\"validator\"]")
  grep -q "\"$key\"" validators.json
  verify "$key" "$(field certificate.json "[\"signatures\"][$n][\"sig\"]")" "$work/precommit"
  power=$((power + 1))
done
same "$((power * 3 > 4 * 2))" 1 "certificate: $power of 4"

# The same as the format's page tells it, run from the page, in a clone of the vectors as a repository.
git --git-dir="$work/git" symbolic-ref HEAD refs/heads/trunk
git --git-dir="$work/git" update-ref refs/heads/trunk "$(id block)"
git --git-dir="$work/git" update-ref refs/heads/tip "$(id tip)"
git clone -q "$work/git" "$work/clone"
git -C "$work/clone" fsck --strict
page=$PWD/../../../../docs/formats/ledger.md
sed -n '/^### Checking a certificate/,/^## /p' "$page" | sed -n '/^```$/,/^```$/p' | grep -v '^```' >"$work/page.sh"
verified=$(cd "$work/clone" && bash -euo pipefail "$work/page.sh" | grep -c "Signature Verified Successfully")
same "$verified" 3 "signatures verified as the page tells it"
