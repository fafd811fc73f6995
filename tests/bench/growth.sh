#!/usr/bin/env bash
# A chain of one validator grows to a million entries: how long an entry takes and what the node holds in memory at ten
# thousand, at a hundred thousand and at the end; then a restart, a node that replays everything, a clone, its verification,
# and plain git over the same objects.
#
#   tests/bench/growth.sh [--check] [ENTRIES]     1000000 unless said otherwise; with --check it fails where a promise is not kept
set -euo pipefail
cd "$(dirname "$0")/../.."
check=no
[ "${1:-}" = --check ] && { check=yes; shift; }
command -v jq >/dev/null || { echo "growth: jq is missing (Debian: apt-get install jq)" >&2; exit 1; }
# A block's own work and the node's own memory (the median at fifty entries a second; mapped files are the kernel's cache) at the
# end, beside those at the first point, in percent.
max_growth_percent=20
max_idle_mib=80
max_restart_s=5

cargo build --release --quiet --workspace
report=$(cargo bench --quiet --workspace --bench chain -- growth "${1:-1000000}" | tail -n 1)
jq . <<<"$report"
[ "$check" = no ] && exit
jq -e --argjson g "$max_growth_percent" --argjson idle "$max_idle_mib" --argjson back "$max_restart_s" '
  def work: [.ms_a_block_at_50.phases[]] | add;
  .points[0] as $first | .points[-1] as $last |
  ($last | work) <= ($first | work) * (1 + $g / 100) and $last.resident_mib.own <= $first.resident_mib.own * (1 + $g / 100)
  and .idle_mib.grown.all < $idle and .restart_s.next_block < $back' <<<"$report" >/dev/null ||
  { echo "the promises (at most $max_growth_percent % more work and memory, idle under $max_idle_mib MiB, back in $max_restart_s s) are not kept" >&2; exit 1; }
