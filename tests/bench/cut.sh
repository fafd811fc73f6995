#!/usr/bin/env bash
# Cutting alone, cutting with SHA-256, and the whole address on all cores, beside this machine's memcpy and one-core SHA-256,
# in one run over the same bytes in memory: how far from the limit we are. The best of several runs counts.
#
#   tests/bench/cut.sh            256 MiB of what compilers made, or of the files that are named
#   tests/bench/cut.sh FILE…
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --release --quiet --package instar-chunks --example cut
files=("$@")
[ $# -gt 0 ] || mapfile -t files < <(find "$target/release/deps" -name '*.rlib' -size +1M | sort | head -n 200)
echo "$(nproc) processors; load $(cut -d' ' -f1 /proc/loadavg)"
"$target/release/examples/cut" "${files[@]}"
