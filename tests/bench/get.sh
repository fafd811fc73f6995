#!/usr/bin/env bash
# Gets 1 GiB that doesn't compress from one peer on loopback: ours from ours over bitswap, and Kubo from Kubo, on the same input
# in one run, each into an empty store, written out, and synced. Also crosswise: ours from Kubo, Kubo from ours.
#
#   tests/bench/get.sh [--check] [MIB]      there is no promise to check: the ratio is printed
#
# Kubo is built as the cross-checks build it (tests/interop/lib); needs /usr/bin/time and openssl.
[ "${1:-}" = --check ] && shift
mib=${1:-1024}
. "$(dirname "$0")/../interop/lib"
need openssl "install openssl"
need time "install time (Debian: time)"
need jq "install jq"
need_instar
need_kubo
unset INSTAR_NODE INSTAR_STORE
trap stop_all EXIT
work=${BENCH_DIR:-$root/target/bench/get}
rm -rf "$work"; mkdir -p "$work"
# It is cut off in the middle of a stream without end, which is no failure.
{ openssl enc -aes-128-ctr -K 00000000000000000000000000000000 -iv 00000000000000000000000000000000 -in /dev/zero 2>/dev/null || true; } |
  head -c "${mib}M" >"$work/input"
bytes=$(stat -c %s "$work/input")
echo "input: $mib MiB; $(nproc) processors; load $(cut -d' ' -f1 /proc/loadavg); Kubo $("$kubo" version -n)"

# The two who have it, each cut as it cuts by default.
ours=$("$instar" add "$work/input" --store "$work/ours" 2>/dev/null)
ours_start "$work/ours"
kubo_init "$work/kubo"
theirs=$(IPFS_PATH=$work/kubo "$kubo" add -Q "$work/input")
kubo_start "$work/kubo"
holder=$kubo_peer

printf '%-22s %9s %9s %9s\n' 'who from whom' seconds MB/s 'RSS MiB'
line() { # name, seconds, KiB or -
  printf '%-22s %9s %9s %9s\n' "$1" "$2" "$(awk "BEGIN {printf \"%.0f\", $bytes / 1e6 / $2}")" "$([ "$3" = - ] && echo - || echo $(($3 >> 10)))"
}
instar_from() { # name, address, cid
  sync
  /usr/bin/time -f '%e %M' -o "$work/time" bash -c "'$instar' get $3 -o '$work/out' --store '$work/new' --peer $2 >/dev/null && sync -f '$work'"
  read -r seconds kib <"$work/time"
  cmp "$work/input" "$work/out" || fail "$1: other bytes came"
  line "$1" "$seconds" "$kib"
  rm -rf "$work/new" "$work/out"
}
kubo_from() { # name, address, cid
  kubo_init "$work/fresh"
  kubo_start "$work/fresh"
  IPFS_PATH=$work/fresh "$kubo" swarm connect "$2" >/dev/null
  sync
  /usr/bin/time -f '%e' -o "$work/time" bash -c "IPFS_PATH='$work/fresh' '$kubo' get $3 -o '$work/out' >/dev/null 2>&1 && sync -f '$work'"
  seconds=$(cat "$work/time")
  cmp "$work/input" "$work/out" || fail "$1: other bytes came"
  line "$1" "$seconds" "$(awk '/VmHWM/ {print $2}' "/proc/$kubo_pid/status")"
  kill -9 "$kubo_pid" && wait "$kubo_pid" 2>/dev/null || true
  rm -rf "$work/fresh" "$work/out"
}
instar_from "instar from instar" "$ours_peer" "$ours"; own=$seconds
kubo_from "kubo from kubo" "$holder" "$theirs"; other=$seconds
instar_from "instar from kubo" "$holder" "$theirs"
kubo_from "kubo from instar" "$ours_peer" "$ours"
awk "BEGIN {printf \"instar from instar takes %.2f of the time of kubo from kubo\n\", $own / $other}"
rm -rf "$work"
