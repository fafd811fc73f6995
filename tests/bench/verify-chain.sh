#!/usr/bin/env bash
# Verifying a whole chain from a clone: `instar chain verify`, native rules and all, in blocks and entries a second; and
# what the chain costs on disk and to clone, beside what plain git needs for the same objects.
#
#   tests/bench/verify-chain.sh [BLOCKS [ENTRIES_A_BLOCK]]     2000 blocks of 50 entries unless said otherwise
#   tests/bench/verify-chain.sh --check                        also fails where a promise below is not kept
. "$(dirname "$0")/../interop/lib"
need_instar
need git "install git 2.39 or newer"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
check=
[ "${1:-}" = --check ] && { check=1; shift; }
blocks=${1:-2000}
entries=${2:-50}
# Each entry is one Ed25519 signature: a core of this age verifies some 15,000 a second, and nothing else may cost more.
min_entries_per_s=5000
# A node's own repacking may leave this much more than `git gc` does.
max_size_percent=150

cargo build --release --quiet --package instar-audit --example made-chain
now_ms() { echo $(($(date +%s%N) / 1000000)); }
timed() { # name, command: sets the variable NAME to milliseconds
  local name=$1 begun
  shift
  begun=$(now_ms)
  "$@" || fail "$* failed"
  printf -v "$name" %s $(($(now_ms) - begun))
}
kib() { du -sk "$1" | cut -f1; }
per_s() { awk -v n="$1" -v ms="$2" 'BEGIN { printf "%.0f", n * 1000 / (ms > 0 ? ms : 1) }'; }

timed made "${CARGO_TARGET_DIR:-$root/target}/release/examples/made-chain" "$scratch/made" "$blocks" "$entries" >/dev/null
ledger=$scratch/made/ledger.git
timed clone git clone --quiet --bare "file://$ledger" "$scratch/clone.git"
timed gc git -C "$scratch/clone.git" gc --quiet --prune=now
timed fsck git -C "$scratch/clone.git" fsck --strict --no-progress --full
verify() { "$instar" chain verify "$scratch/clone.git" --work "$scratch/work" "$@" >"$scratch/said"; }
timed whole verify --fresh
timed again verify
grep -q "it holds" "$scratch/said" || fail "the chain does not hold: $(cat "$scratch/said")"
timed trusted verify --fresh --from "$((blocks - 1))"
total=$((blocks * entries))
ours=$(kib "$ledger/objects")
plain=$(kib "$scratch/clone.git/objects")
echo "chain:                  $blocks blocks, $total entries (made in $((made / 1000)) s)"
echo "chain verify:           $whole ms, $(per_s "$blocks" "$whole") blocks/s, $(per_s "$total" "$whole") entries/s"
echo "  with nothing new:     $again ms"
echo "  signatures trusted:   $trusted ms, $(per_s "$total" "$trusted") entries/s"
echo "git fsck --strict:      $fsck ms (hashes and links alone)"
echo "git clone:              $clone ms"
echo "on disk, node's packs:  $ours KiB, $((ours * 1024 / total)) bytes an entry"
echo "on disk, git gc:        $plain KiB, $((plain * 1024 / total)) bytes an entry ($gc ms)"
if [ -n "$check" ]; then
  [ "$(per_s "$total" "$whole")" -ge "$min_entries_per_s" ] || fail "fewer than $min_entries_per_s entries a second"
  [ $((ours * 100)) -le $((plain * max_size_percent)) ] || fail "the node's packs take over $max_size_percent % of git gc's"
  ok "at least $min_entries_per_s entries a second, at most $max_size_percent % of git gc's size"
fi
