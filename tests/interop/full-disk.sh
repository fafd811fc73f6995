#!/usr/bin/env bash
# A validator's disk fills up while the chain goes on: the others make blocks without it, whatever it took in it keeps, and with
# room it is back in the round. The disk is a small one in memory, which only these processes see.
. "$(dirname "$0")/lib"
need_instar
need git "install git 2.39 or newer"
need jq "install jq"
need python3 "install Python 3"
need flock "install util-linux"
# A mount of its own: nothing is left behind on the machine, whatever happens.
if [ -z "${OWN_MOUNTS:-}" ]; then
  [ "$(id -u)" = 0 ] || user=--map-root-user
  # shellcheck disable=SC2086
  OWN_MOUNTS=yes exec unshare ${user:-} --mount bash "$0"
fi

SMALL_MIB=512
disk=$scratch/disk
mkdir "$disk"
mount -t tmpfs -o "size=${SMALL_MIB}m" tmpfs "$disk" || fail "no small disk can be mounted here; as root, or with user namespaces allowed, it can"
home() { [ "$1" = 4 ] && echo "$disk/home-4" || echo "$scratch/home-$1"; }
mapfile -t ports < <(python3 - <<'PY'
import socket
held = [socket.create_server(('127.0.0.1', 0)) for _ in range(12)]
print('\n'.join(str(s.getsockname()[1]) for s in held))
PY
)
url() { echo "http://127.0.0.1:${ports[$1 - 1]}"; }
run() { local host=$1; shift; "$instar" "$@" --node "$(url "$host")"; }
died() { fail "$* (see $scratch/node-*.log)"; }
declare -A node
finish() { for pid in "${node[@]}"; do kill -9 "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; }
trap finish EXIT

"$instar" key new account -o "$scratch/ada.json" --json >/dev/null
jq -n '{chain_name: "full-disk", time_ms: 1795262400000, accounts: {}}' >"$scratch/plan.json"
for host in 1 2 3 4; do
  "$instar" key new --home "$(home "$host")" --name "val-$host" --consensus "/ip4/127.0.0.1/tcp/${ports[$host + 3]}" \
    --data "/ip4/127.0.0.1/tcp/${ports[$host + 7]}" >"$scratch/val-$host.json"
done
for host in 1 2 3 4; do
  "$instar" chain init --home "$(home "$host")" --plan "$scratch/plan.json" --http "127.0.0.1:${ports[$host - 1]}" \
    --validator "$scratch"/val-*.json --json >"$scratch/init-$host"
done
chain=$(jq -r .chain "$scratch/init-4")
start() { "$instar" node run --home "$(home "$1")" >>"$scratch/node-$1.log" 2>&1 & node[$1]=$!; }
kill_hard() { { kill -9 "${node[$1]}" && wait "${node[$1]}"; } 2>/dev/null || true; }
answers() { run "$1" chain status; }
height() { run "$1" chain status --json | jq .height; }
reached() { [ "$(height "$1")" -ge "$2" ]; }
# Kilobytes that do not compress: the entry's id. It is not waited for.
say() { run "$1" send note "{\"said\":\"$(head -c 24000 /dev/urandom | base64 -w0)\"}" --key "$scratch/ada.json" --no-wait; }
is_final() { [ "$(run "$1" receipt "$2" --json | jq -r .label)" = final ]; }
for host in 1 2 3 4; do start "$host"; done
for host in 1 2 3 4; do await 60 "node $host answering" answers "$host"; done
first=$(say 4)
await 60 "the first entry becoming final" is_final 1 "$first"

# Almost to the last byte: some entries have room in the journal, and then nothing can be written, whoever tries.
dd if=/dev/zero of="$disk/filler" bs=64k 2>/dev/null || true
truncate -s -256K "$disk/filler"
before=$(height 1)
# What it takes it has to keep; what it can't it refuses, with the reason.
taken=()
for _ in $(seq 40); do
  if id=$(say 4 2>"$scratch/refused"); then taken+=("$id"); else break; fi
done
[ "${#taken[@]}" -gt 0 ] || fail "it took nothing: $(cat "$scratch/refused")"
[ -s "$scratch/refused" ] || fail "the disk did not fill up: ${#taken[@]} entries were taken"
grep -qi '507.*no space left.*make room' "$scratch/refused" ||
  fail "the refusal does not say what to do: $(cat "$scratch/refused")"
ok "it takes ${#taken[@]} entries, and refuses the next: $(head -n 1 "$scratch/refused" | cut -c1-150)"
others=()
for _ in $(seq 20); do others+=("$(say 1)"); sleep 0.1; done
await 60 "the others going on" is_final 1 "${others[-1]}"
[ "$(height 1)" -gt "$before" ] || died "the trunk stood still"
ok "with one disk full the trunk goes on ($before to $(height 1))"
said() { sed 's/\x1b\[[0-9;]*m//g' "$scratch/node-4.log" | grep -i 'no space left'; }
# It votes nil because it can't keep a block; or it ends, when the last bytes went between its vote and the state.
await 60 "the node saying what is wrong" grep -Eq "(nil|^fatal).*No space left" "$scratch/node-4.log"
said | grep -Eq 'node-trouble|^fatal' || fail "it blames the proposer: $(said | tail -n 1)"
ok "the node says it: $(said | tail -n 1 | cut -c1-150)"
# Started again on the full disk it loses nothing either, whether it comes up or not.
for _ in 1 2; do
  kill_hard 4
  start 4
  sleep 2
done
kill_hard 4
git -C "$(home 4)/ledger.git" fsck --strict --no-progress --no-dangling || fail "its ledger is damaged"
ok "its ledger is whole on the full disk"

rm "$disk/filler"
start 4
await 60 "the node answering with room" answers 4
await 120 "the node reaching the trunk" reached 4 "$(height 1)"
for id in "${taken[@]}"; do await 60 "an entry that it had taken" is_final 1 "$id"; done
ok "with room it is back; ${#taken[@]} entries that it took on the full disk are final"
last=$(say 4)
await 60 "a new entry of its own lane" is_final 1 "$last"
# It votes again: without it and one more there is no quorum.
kill_hard 3
needed=$(say 4)
await 60 "a block that needs its vote" is_final 4 "$needed"
ok "it votes again"
kill_hard 4
git -C "$(home 4)/ledger.git" fsck --strict --no-progress --no-dangling || fail "its ledger is damaged"
"$instar" chain verify "$(home 4)/ledger.git" --chain "$chain" --work "$scratch/verify" >"$scratch/verified" || fail "$(cat "$scratch/verified")"
ok "fsck and chain verify: $(tail -n 1 "$scratch/verified")"
