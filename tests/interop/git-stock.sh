#!/usr/bin/env bash
# Ledger objects are git's own: stock git gives the vectors the ids that we give them, is content with them, and
# verifies the lane commit with an allowed-signers file; ssh-keygen does the same over the detached signature.
. "$(dirname "$0")/lib"
need git "install git 2.39 or newer"
need ssh-keygen "install the OpenSSH client 8.9 or newer"
need jq "install it with your system's package manager"
vectors=$root/node/ledger/tests/vectors
export GIT_DIR=$scratch/ledger.git GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null LC_ALL=C
git init --quiet --bare --object-format=sha256 "$GIT_DIR"

id() { jq -re --arg name "$1" '.[$name]' "$vectors/ids.json"; }
put() { git hash-object -w -t "$1" --stdin --literally; }
# tree FILE…: the tree that holds these files under their names.
tree() {
  for file in "$@"; do printf '100644 blob %s\t%s\n' "$(put blob <"$vectors/$file")" "$file"; done | git mktree
}

same "$(tree genesis.json)" "$(sed -n 's/^tree //p' "$vectors/genesis.commit")" "tree of the genesis"
same "$(tree entries.jsonl)" "$(id lane_tree)" "tree of the lane commit"
same "$(tree header.json receipts.jsonl)" "$(id block_tree)" "tree of the block"
same "$(tree certificate.json)" "$(id tip_tree)" "tree of the tip"
# The second block has no vector of its header: its objects are not all here, its id is.
for object in genesis:chain lane:lane_commit block:block tip:tip block-2:block_2; do
  same "$(put commit <"$vectors/${object%:*}.commit")" "$(id "${object#*:}")" "id of $object"
done

git update-ref refs/heads/tip "$(id tip)"
git update-ref "refs/heads/lane" "$(id lane_commit)"
same "$(git rev-list --parents refs/heads/tip --max-count=2 | tail -n 1)" "$(id block) $(id chain) $(id lane_commit)" \
  "parents of the block"
same "$(git rev-list --max-parents=0 refs/heads/tip)" "$(id chain)" "the one root is the genesis"
# Strict: every object that the tip leads to, and connected.
git fsck --strict --no-dangling refs/heads/tip refs/heads/lane 2>&1 | tee "$scratch/fsck" >&2
same "$(grep -cE '^(error|warning|missing|broken)' "$scratch/fsck" || true)" 0 "git fsck --strict"

git config gpg.format ssh
git config gpg.ssh.allowedSignersFile "$vectors/allowed_signers"
git verify-commit "$(id lane_commit)" 2>"$scratch/said" || fail "git verify-commit: $(cat "$scratch/said")"
grep -q '^Good "git" signature for v0 with ED25519 key' "$scratch/said" || fail "git says: $(cat "$scratch/said")"
ok "git verify-commit: $(cat "$scratch/said")"
# A device that is not in the file is not good, and neither is another message.
: >"$scratch/nobody"
! git -c gpg.ssh.allowedSignersFile="$scratch/nobody" verify-commit "$(id lane_commit)" 2>/dev/null || fail "no signer is allowed, yet git verifies"
changed=$(sed 's/^Seq: 1$/Seq: 2/' "$vectors/lane.commit" | put commit)
[ "$changed" != "$(id lane_commit)" ] || fail "the changed commit is the same commit"
! git verify-commit "$changed" 2>/dev/null || fail "git verifies a changed lane commit"
ok "git refuses an unknown signer and a changed message"

verify() { ssh-keygen -Y verify -f "$vectors/allowed_signers" -I "$1" -n "$2" -s "$vectors/lane.sig" >"$scratch/said" 2>&1; }
verify v0 git <"$vectors/lane.payload" || fail "ssh-keygen: $(cat "$scratch/said")"
ok "ssh-keygen -Y verify: $(cat "$scratch/said")"
! verify v1 git <"$vectors/lane.payload" || fail "ssh-keygen verifies for another principal"
! verify v0 file <"$vectors/lane.payload" || fail "ssh-keygen verifies in another namespace"
! sed 's/#1:/#2:/' "$vectors/lane.payload" | verify v0 git || fail "ssh-keygen verifies a changed payload"
ok "ssh-keygen refuses another principal, namespace and payload"
same "$(sed -n '/^gpgsig-sha256 /,/END SSH/p' "$vectors/lane.commit" | sed 's/^gpgsig-sha256 //; s/^ //')" \
  "$(cat "$vectors/lane.sig")" "the armour in the lane commit"
same "$(sed '/^gpgsig-sha256 /,/END SSH/d' "$vectors/lane.commit" | sha256sum)" "$(sha256sum <"$vectors/lane.payload")" \
  "the payload in the lane commit"
