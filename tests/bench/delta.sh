#!/usr/bin/env bash
# Deltas of five pairs of real consecutive releases of statically linked executables (Rust, Go, C), beside bsdiff, zstd,
# xdelta3 and FastCDC alone, on this machine, in one run. What is downloaded is pinned by version and SHA-256 and kept in
# target/bench. Of several applications the fastest counts: what else the machine does is no property of the format.
#
#   tests/bench/delta.sh            prints size, times, speed, memory, totals and ratio
#   tests/bench/delta.sh --check    also fails if the total is over bsdiff's, or a pair applies at under 100 MB/s or in over 64 MiB
#   tests/bench/delta.sh [--check] ruff-0.17.6 …    only the pairs that lead to these
#
# The column `alone` is the speed by the processor time of the thread that has most to do: what remains on a machine with
# nothing else to do.
. "$(dirname "$0")/../interop/lib"
for tool in bsdiff bspatch xdelta3 zstd; do need $tool "install Debian's bsdiff, xdelta3 and zstd"; done
need npm "it comes with Node"
need apt-get "the C pair comes from Debian's archive"
need python3 "install Python 3.11 or newer"
check=no
[ "${1:-}" = --check ] && { check=yes; shift; }
only=" $* "
min_mbs=100
max_kib=65536
runs=7

kept=$root/target/bench/delta
mkdir -p "$kept"
cargo build --release --quiet --package instar-delta --example delta
delta=${CARGO_TARGET_DIR:-$root/target}/release/examples/delta

pinned() { # file, sha256
  [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status
}
wheel() { # name, version, platform, sha256
  local out=$kept/$1-$2
  pinned "$out" "$4" && return
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --platform "$3" --python-version 3.11 --dest "$scratch" "$1==$2" ||
    fail "pip could not get $1 $2"
  python3 -c 'import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); sys.stdout.buffer.write(z.read(next(n for n in z.namelist() if n.endswith("/" + sys.argv[2]))))' \
    "$(ls "$scratch/$1-$2"-*.whl)" "$1" >"$out"
  pinned "$out" "$4" || fail "$out is not the pinned file"
}
tarball() { # package, name, version, sha256
  local out=$kept/$2-$3
  pinned "$out" "$4" && return
  (cd "$scratch" && npm pack --silent "$1@$3" >packed) || fail "npm could not get $1 $3"
  tar -xzOf "$scratch/$(cat "$scratch/packed")" "package/bin/$2" >"$out"
  pinned "$out" "$4" || fail "$out is not the pinned file"
}
deb() { # package, version, path, name, sha256
  local out=$kept/$4
  pinned "$out" "$5" && return
  (cd "$scratch" && rm -f ./*.deb && apt-get download "$1=$2" >/dev/null 2>&1) ||
    fail "apt could not get $1 $2: it stands in bookworm and its security archive"
  dpkg-deb --fsys-tarfile "$scratch"/*.deb | tar -xO "$3" >"$out"
  pinned "$out" "$5" || fail "$out is not the pinned file"
}
wheel ruff 0.17.5 musllinux_1_2_x86_64 3cabf0c94dc8d6e7271564d046d68ac11650e2e0eb3fe55dadf3c6bf8d009eb7
wheel ruff 0.17.6 musllinux_1_2_x86_64 427390db027ec004b71f15f62103c610e2219f284238eed0d42085b16a0085ea
wheel uv 0.13.8 musllinux_1_1_x86_64 a880db7f5f6745b5ec80aa6ccafdce06ddab1434013b55c62bb2fded1e2f9cb5
wheel uv 0.13.9 musllinux_1_1_x86_64 edbfb9a3d00dc84148e6691cd8740781fdc32db6505d7ef88ba6c3e569d5bec9
tarball @esbuild/linux-x64 esbuild 0.28.1 0c6588b092a2c291a72bab90659f3c9e0e25e0fe59c9ac12b4dae4d945e5548c
tarball @esbuild/linux-x64 esbuild 0.28.2 e1698a3d5c6c0798fee4fd3b5cc816651f460c63d390a7a26ea4beb0b1884100
tarball lefthook-linux-x64 lefthook 2.2.1 4cfe773de735e62cf574ade601207a6fe8b6c987aa515f4a2ffa0d146857d9cd
tarball lefthook-linux-x64 lefthook 2.2.2 7771d6243018b445bb83dd3c9b12dffd92a6067a3958f21d984bb389d8dbbc58
deb qemu-user-static 1:7.2+dfsg-7+deb12u15 ./usr/bin/qemu-aarch64-static qemu-u15 93f9cfd3a92b0da06da02a0a3b4749855064a10f06952bd8c69cf2876a5bbfa7
deb qemu-user-static 1:7.2+dfsg-7+deb12u18+b3 ./usr/bin/qemu-aarch64-static qemu-u18 4f55e2e88dc05dc0f619562d5795b8eb25ed2ad2547504fb4835207a6911c350

size() { stat -c %s "$1"; }
ours=0 bs=0 bad=
printf '%-16s %9s %9s %9s %9s %10s %7s %7s %7s %7s %7s\n' new ours bsdiff zstd xdelta3 FastCDC make/s apply/s MB/s alone MiB
for pair in ruff-0.17.5:ruff-0.17.6 uv-0.13.8:uv-0.13.9 esbuild-0.28.1:esbuild-0.28.2 lefthook-2.2.1:lefthook-2.2.2 qemu-u15:qemu-u18; do
  [ "$only" = "  " ] || [[ $only = *" ${pair#*:} "* ]] || continue
  old=$kept/${pair%:*} new=$kept/${pair#*:}
  read -r made _ < <("$delta" make "$old" "$new" "$scratch/d")
  best=999 peak=0 busiest=999
  for ((i = 0; i < runs; i++)); do
    read -r seconds kib busy < <("$delta" apply "$old" "$scratch/d" "$scratch/out")
    cmp --quiet "$scratch/out" "$new" || fail "${pair#*:} did not come out"
    best=$(awk -v a="$seconds" -v b="$best" 'BEGIN { print a < b ? a : b }')
    busiest=$(awk -v a="$busy" -v b="$busiest" 'BEGIN { print a < b ? a : b }')
    [ "$kib" -le "$peak" ] || peak=$kib
  done
  bsdiff "$old" "$new" "$scratch/b"
  zstd --quiet --force -19 --long=27 --patch-from "$old" "$new" -o "$scratch/z" 2>/dev/null
  xdelta3 -q -9 -f -e -s "$old" "$new" "$scratch/x"
  chunks=$("$delta" chunks "$old" "$new" -)
  mbs=$(awk -v n="$(size "$new")" -v s="$best" 'BEGIN { printf "%.0f", n / s / 1e6 }')
  alone=$(awk -v n="$(size "$new")" -v s="$busiest" 'BEGIN { printf "%.0f", n / s / 1e6 }')
  printf '%-16s %9d %9d %9d %9d %10d %7.1f %7.3f %7d %7d %7d\n' "${pair#*:}" "$(size "$scratch/d")" "$(size "$scratch/b")" \
    "$(size "$scratch/z")" "$(size "$scratch/x")" "$chunks" "$made" "$best" "$mbs" "$alone" $((peak / 1024))
  ours=$((ours + $(size "$scratch/d"))) bs=$((bs + $(size "$scratch/b")))
  [ "$mbs" -ge $min_mbs ] || bad="$bad ${pair#*:} applies at $mbs MB/s;"
  # The old file is read, never mapped: all that is resident counts.
  [ "$peak" -le $max_kib ] || bad="$bad ${pair#*:} takes $peak KiB;"
done
awk -v a=$ours -v b=$bs 'BEGIN { printf "total %d, bsdiff %d, ratio %.3f\n", a, b, a / b }'
if [ $check = yes ]; then
  [ $ours -le $bs ] || bad="$bad the total is over bsdiff's;"
  [ -z "$bad" ] || fail "$bad"
  ok "at most bsdiff's, at $min_mbs MB/s or more, in 64 MiB or less"
fi
