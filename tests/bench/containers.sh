#!/usr/bin/env bash
# What a container costs in processor time: made alone, made in a sandbox as for a dapp's blocks, and by bubblewrap, which gives
# the same view without cgroups, filters or limits.
set -euo pipefail
cd "$(dirname "$0")/../.."
for tool in jq bwrap; do
  command -v "$tool" >/dev/null || { echo "containers: $tool is missing (Debian: apt-get install jq bubblewrap)" >&2; exit 1; }
done
report=$(cargo bench --quiet --workspace --bench containers | tail -n 1)
jq . <<<"$report"
jq -r '"in a sandbox: \(.in_one_sandbox.cpu_ms_each / .bubblewrap.cpu_ms_each * 100 | round) % of bubblewrap, \(.in_one_sandbox.cpu_ms_each / .alone.cpu_ms_each * 100 | round) % of one alone"' <<<"$report"
