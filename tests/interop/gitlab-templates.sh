#!/usr/bin/env bash
# GitLab would take the templates: their headers, their jobs rendered with inputs as GitLab renders them, and our own
# pipeline hold against GitLab's published schema, which check-jsonschema carries. A broken template does not.
. "$(dirname "$0")/lib"
need_python

validate() { "$python" -m check_jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci "$@"; }

validate "$root/.gitlab-ci.yml" >"$scratch/said" || fail "$(cat "$scratch/said")"
ok ".gitlab-ci.yml"

count=0
for template in "$root"/ci-templates/templates/*.yml; do
  name=$(basename "$template" .yml)
  # Writes NAME.header.yml, NAME.jobs.yml, and one NAME.broken-*.yml for each way to break it.
  "$python" "$here/py/render.py" "$template" "$scratch" >"$scratch/scripts.sh"
  validate "$scratch/$name.header.yml" "$scratch/$name.jobs.yml" >"$scratch/said" || fail "$name: $(cat "$scratch/said")"
  ok "$name: header and jobs"
  bash -n "$scratch/scripts.sh" || fail "$name: a script is no shell"
  ok "$name: scripts are shell"
  for broken in "$scratch/$name".broken-*.yml; do
    ! validate "$broken" >/dev/null 2>&1 || fail "$(basename "$broken") was accepted"
    ok "refused: $(basename "$broken")"
  done
  count=$((count + 1))
done
[ "$count" -gt 0 ] || fail "no templates"
