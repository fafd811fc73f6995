#!/usr/bin/env bash
# Adds 1 GiB (compiled Rust, sources, incompressible data) to an empty store, then a second version with scattered edits:
# ours beside restic, borg, casync and bup on the same input, in one run, each followed by a sync that is counted.
#
#   tests/bench/add.sh [--check] [MIB]      --check fails unless we are 1.5 times as fast as the fastest of them
#
# Processor seconds (all threads, user and system) stand beside the time that passed: where other work runs beside, they say
# more. Needs /usr/bin/time and Debian's restic, borgbackup, casync, bup; one that is missing is an error. Kubo's `ipfs` is
# measured too where it is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
check=no
[ "${1:-}" = --check ] && { check=yes; shift; }
mib=${1:-1024}
promise=1.5
instar=${INSTAR:-${CARGO_TARGET_DIR:-$root/target}/release/instar}
work=${BENCH_DIR:-$root/target/bench/add}
unset INSTAR_NODE INSTAR_STORE

for tool in "$instar" restic borg casync bup python3 /usr/bin/time; do
  command -v "$tool" >/dev/null || { echo "add: $tool is missing (Debian: apt-get install restic borgbackup casync bup time)" >&2; exit 1; }
done

# The input: half compiled, three tenths sources, the rest random; from what every checkout has.
input=$work/input
if [ ! -e "$work/made-$mib" ]; then
  rm -rf "$work"; mkdir -p "$input"
  python3 - "$input" "$mib" "${CARGO_TARGET_DIR:-$root/target}/release/deps" "${CARGO_HOME:-$HOME/.cargo}/registry/src" <<'PY'
import os, random, shutil, sys
out, mib, compiled, sources = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
def take(root, name, budget, wanted):
    for folder, folders, files in os.walk(root):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(folder, file)
            if not wanted(file) or os.path.islink(path): continue
            size = os.path.getsize(path)
            if size > budget: continue
            budget -= size
            to = os.path.join(out, name, os.path.relpath(path, root))
            os.makedirs(os.path.dirname(to), exist_ok=True)
            shutil.copyfile(path, to)
    return budget
unit = 1 << 20
left = take(compiled, 'compiled', mib * unit // 2, lambda f: f.endswith(('.rlib', '.so', '.rmeta')))
left += take(sources, 'sources', mib * unit * 3 // 10, lambda f: True)
left += mib * unit // 5
generator = random.Random(1)
os.makedirs(os.path.join(out, 'random'))
number = 0
while left > 0:
    size = min(left, generator.choice([100_000, 3_000_000, 50_000_000]))
    with open(os.path.join(out, 'random', str(number)), 'wb') as file: file.write(generator.randbytes(size))
    left -= size; number += 1
PY
  touch "$work/made-$mib"
fi
# The second version: one edit of 1 KiB in every 20 KiB of one file in five, and one new file in a hundred.
rm -rf "$work/second"; cp -r "$input" "$work/second"
python3 - "$work/second" <<'PY'
import os, random, sys
generator = random.Random(2)
for folder, folders, files in os.walk(sys.argv[1]):
    folders.sort()
    for number, file in enumerate(sorted(files)):
        path = os.path.join(folder, file)
        size = os.path.getsize(path)
        if size > 4096 and generator.random() < 0.05:
            with open(path, 'r+b') as f:
                for at in range(0, size - 1024, 400_000):
                    f.seek(at + generator.randrange(min(400_000, size - at - 1024) or 1)); f.write(generator.randbytes(1024))
PY
bytes=$(find "$input" -type f -printf '%s\n' | awk '{n+=$1} END {print n}')
echo "input: $((bytes >> 20)) MiB in $(find "$input" -type f | wc -l) files; $(nproc) processors; load $(cut -d' ' -f1 /proc/loadavg)"
find "$input" "$work/second" -type f -exec cat {} + >/dev/null # everybody reads from memory

stores=$work/stores
rm -rf "$stores"; mkdir -p "$stores"
export RESTIC_PASSWORD=x BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_BASE_DIR=$stores/borg-base BUP_DIR=$stores/bup
export IPFS_PATH=$stores/kubo
export RESTIC_CACHE_DIR=$stores/restic-cache XDG_CACHE_HOME=$stores/cache
prepare() {
  case $1 in
    restic) restic -q init --repository-version 2 -r "$stores/restic" >/dev/null ;;
    borg) borg init -e none "$stores/borg" 2>/dev/null ;;
    bup) bup init >/dev/null 2>&1 ;;
    casync) mkdir -p "$stores/casync" ;;
    kubo) ipfs init --empty-repo >/dev/null ;;
    instar | cp) mkdir -p "$stores/$1" ;;
  esac
}
run() { # tool, folder, number
  case $1 in
    instar) "$instar" add "$2" --store "$stores/instar" ;;
    restic) restic -q backup -r "$stores/restic" "$2" ;;
    borg) borg create -C lz4 "$stores/borg::v$3" "$2" ;;
    casync) casync make --without=all --store="$stores/casync/s.castr" "$stores/casync/v$3.caidx" "$2" ;;
    bup) bup index -f "$stores/index$3" "$2" && bup save -q -f "$stores/index$3" -n "v$3" "$2" ;;
    kubo) ipfs --offline add -r -Q --cid-version 1 "$2" ;;
    cp) cp -r "$2" "$stores/cp/v$3" ;;
  esac
}
export -f run; export stores instar

tools=(cp instar restic borg casync bup)
command -v ipfs >/dev/null && tools+=(kubo)
rm -f "$work/results.new"
printf '%-8s %9s %9s %9s %9s %9s %9s %12s\n' tool seconds MB/s cpu-s second-s cpu-s 'RSS MiB' 'stored MiB'
for tool in "${tools[@]}"; do
  prepare "$tool"
  took=() cpu=()
  for number in 1 2; do
    [ "$number" = 1 ] && folder=$input || folder=$work/second
    sync
    /usr/bin/time -f '%e %M %U %S' -o "$work/time" bash -c "run $tool '$folder' $number >/dev/null 2>'$work/stderr' && sync -f '$stores'" || {
      cat "$work/stderr" >&2; echo "add: $tool failed" >&2; exit 1; }
    read -r seconds kib user system <"$work/time"
    took+=("$seconds") cpu+=("$(awk "BEGIN {print $user + $system}")")
    [ "$number" = 1 ] && rss=$((kib >> 10))
  done
  stored=$(du -sm --apparent-size "$stores/$tool" | cut -f1)
  printf '%-8s %9s %9s %9s %9s %9s %9s %12s\n' "$tool" "${took[0]}" "$(awk "BEGIN {printf \"%.0f\", $bytes / 1e6 / ${took[0]}}")" \
    "${cpu[0]}" "${took[1]}" "${cpu[1]}" "$rss" "$stored"
  echo "$tool ${took[0]} ${took[1]} ${cpu[0]} ${cpu[1]}" >>"$work/results.new"
  rm -rf "${stores:?}/$tool" "$stores"/index*
done
mv "$work/results.new" "$work/results"
awk -v promise=$promise -v check=$check '
  $1 == "instar" { ours = $2; again = $3; cpu = $4; cpu2 = $5 }
  $1 == "cp" { copy = $2 }
  $1 != "instar" && $1 != "cp" { if (!best || $2 < best) { best = $2; who = $1 } if (!best2 || $3 < best2) { best2 = $3; who2 = $1 }
    if (!least || $4 < least) least = $4; if (!least2 || $5 < least2) least2 = $5 }
  END {
    printf "first version: %.2f times as fast as %s; %.2f times the time of cp -r\n", best / ours, who, ours / copy
    printf "second version: %.2f times as fast as %s\n", best2 / again, who2
    printf "processor time: the least of the others has %.2f and %.2f times ours\n", least / cpu, least2 / cpu2
    if (check == "yes" && (best / ours < promise || best2 / again < promise)) { printf "the promise of %s is not kept\n", promise; exit 1 }
  }' "$work/results"
