#!/usr/bin/env bash
# Resident memory of adding and of fetching 4 GiB of incompressible data, whatever the size.
#
#   tests/bench/memory.sh [--check] [GIB]      --check fails over 128 MiB; without it the figures are only printed
set -euo pipefail
cd "$(dirname "$0")/../.."
check=no
[ "${1:-}" = --check ] && { check=yes; shift; }
gib=${1:-4}
most_kib=$((128 << 10))
instar=${INSTAR:-${CARGO_TARGET_DIR:-$PWD/target}/release/instar}
work=${BENCH_DIR:-$PWD/target/bench}/memory
unset INSTAR_NODE INSTAR_STORE
rm -rf "$work"; mkdir -p "$work"
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
# The generator never ends by itself: that `head` stops it is no failure.
stream() (
  set +o pipefail
  openssl enc -aes-128-ctr -K 00000000000000000000000000000000 -iv 00000000000000000000000000000000 -in /dev/zero 2>/dev/null | head -c "${gib}G"
)
measured() { /usr/bin/time -f '%e s, %M KiB' -o "$work/time" "$@"; }
within() { # what
  local kib
  kib=$(sed 's/.* \([0-9]*\) KiB/\1/' "$work/time")
  echo "$1: $(cat "$work/time")"
  [ $check = no ] || [ "$kib" -le "$most_kib" ] || { echo "memory: $1 took $kib KiB, over $most_kib" >&2; exit 1; }
}
stream | measured "$instar" add - --store "$work/a" >"$work/cid" 2>/dev/null
within "add of $gib GiB"
"$instar" store serve --store "$work/a" --http 127.0.0.1:0 >"$work/served" & server=$!
until grep -q gateway "$work/served"; do sleep 0.1; done
measured "$instar" get "$(cat "$work/cid")" -o "$work/out" --store "$work/b" --gateway "$(sed 's/gateway //' "$work/served")" >/dev/null
within "get of $gib GiB from a gateway on loopback"
cmp "$work/out" <(stream) && echo "the same bytes came back"
