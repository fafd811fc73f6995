#!/usr/bin/env bash
# What followers cost a validator: its processor time a block and the latency of entries at fifty a second, alone and with a
# thousand that take each block from it. They share the machine with it, so the latency is that of a busy machine.
#
#   tests/bench/followers.sh [COUNT]
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v jq >/dev/null || { echo "followers: jq is missing (Debian: apt-get install jq)" >&2; exit 1; }
cargo build --release --quiet --workspace
cargo bench --quiet --workspace --bench chain -- followers "${1:-1000}" | tail -n 1 | jq .
