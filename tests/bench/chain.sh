#!/usr/bin/env bash
# Four validators on this machine: entries final a second at saturation, and how long one takes at fifty a second, signed by a
# hundred accounts: transfers for the coin in its container, then notes, which are native and change nothing. Beside it in the
# same run: what this machine's processors give for Ed25519 verification with OpenSSL, since each entry is verified by each
# validator.
#
#   tests/bench/chain.sh            prints them
#   tests/bench/chain.sh --check    also fails below 2,000 a second, over 60 ms (median) or 150 ms (p99)
set -euo pipefail
cd "$(dirname "$0")/../.."
check=no
[ "${1:-}" = --check ] && check=yes
command -v jq >/dev/null || { echo "chain: jq is missing (Debian: apt-get install jq)" >&2; exit 1; }

cargo build --release --quiet --workspace
report=$(cargo bench --quiet --workspace --bench chain -- speed | tail -n 1)
jq . <<<"$report"
verify=$(openssl speed -seconds 2 -multi "$(nproc)" ed25519 2>/dev/null | awk '/Ed25519/ {v = $NF} END {print v}')
jq -r --arg v "$verify" '.topics | to_entries[] | "\(.key): OpenSSL verifies \($v) Ed25519 signatures a second on all processors; four validators verify \(.value.final_per_second * 4) entries (\(.value.final_per_second * 400 / ($v | tonumber) | round) % of it)"' <<<"$report"
[ "$check" = no ] || jq -e '.topics.coin | .final_per_second >= 2000 and .final_ms_p50 <= 60 and .final_ms_p99 <= 150' <<<"$report" >/dev/null ||
  { echo "the promises of 2,000 a second, 60 ms and 150 ms are not kept" >&2; exit 1; }
