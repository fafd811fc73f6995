#!/usr/bin/env bash
# Keyless signing against a private Sigstore instance on loopback, of the projects' own servers: what `instar attest --keyless`
# makes is verified by us, by sigstore-python and by sigstore-js, what those two make by us; a log or a timestamp authority
# that is down, a token that is over, another issuer, subject and project do what the guide says.
#
# Not among the cross-checks that CI runs: Go compiles seven servers first, some ten minutes on two cores, and PostgreSQL is
# needed. `tests/interop/live/keyless.sh --record DIR` also keeps the bundles; that is how `attest/tests/keyless/private` came.
. "$(dirname "$0")/../lib"
. "$here/live/instance"
record=
[ "${1:-}" != --record ] || record=$2
need_python
need_npm
need_instar
need jq "install jq"
need openssl "install openssl"
need git "install git 2.39 or newer"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
start_instance
ok "Fulcio, Rekor, a certificate transparency log and a timestamp authority run on loopback"

commit() { # folder
  git -C "$1" init --quiet
  git -C "$1" add --all
  git -C "$1" -c user.name=check -c user.email=check@localhost commit --quiet --message "A tool"
}
mkdir -p "$scratch/source/src"
printf '[package]\nname = "tool"\nversion = "0.1.0"\nedition = "2021"\n' >"$scratch/source/Cargo.toml"
printf 'version = 4\n\n[[package]]\nname = "tool"\nversion = "0.1.0"\n' >"$scratch/source/Cargo.lock"
printf 'fn main() { println!("a tool"); }\n' >"$scratch/source/src/main.rs"
commit "$scratch/source"
out=${INSTAR_LIVE_BUILD:-$scratch/out}
[ -d "$out" ] || "$instar" build "$scratch/source" --out "$out" >/dev/null 2>&1 ||
  fail "the tool can't be built here; \`instar doctor\` says what is missing"
bundle=$out/provenance.sigstore.json
queued=$out/provenance.queued.json
file=$(find "$out/release" -type f ! -name '*.json' | head -n 1)

# As in a job of GitLab's, whose identity the token has.
attest() { # more arguments
  env GITLAB_CI=true CI_SERVER_URL=https://gitlab.com CI_PROJECT_PATH=chain/releases CI_PROJECT_ID=42 CI_PIPELINE_ID=101 \
    CI_JOB_ID=1001 CI_JOB_URL=https://gitlab.com/chain/releases/-/jobs/1001 CI_RUNNER_ID=5 CI_COMMIT_REF_NAME=main \
    CI_COMMIT_REF_PROTECTED=true CI_COMMIT_SHA=1111111111111111111111111111111111111111 SIGSTORE_ID_TOKEN="$SIGSTORE_ID_TOKEN" \
    "$instar" attest "$out" --repository https://git.example.org/hello.git --trust-config "$at/trust-config.json" "$@" >"$scratch/said" 2>&1
}
sign() { SIGSTORE_ID_TOKEN=$(token) attest --keyless "$@"; }
recipe=$(jq -r .recipe "$out"/build.json 2>/dev/null || echo cargo-vendored-v1)
subject=https://gitlab.com/chain/releases//.gitlab-ci.yml@refs/heads/main
project=https://gitlab.com/chain/releases
policy() { # issuer, subject, project, recipe
  cat >"$scratch/policy.json" <<JSON
{ "format": "instar-release-policy-v1", "recipes": ["$4"], "sbom": false,
  "builders": { "threshold": 1, "of": [ { "name": "ci", "operator": "chain",
    "keyless": { "issuer": "$1", "subject": "$2", "project": "$3" } } ] } }
JSON
}
ours() { # folder, bundle
  "$instar" verify "$1" --bundle "$2" --policy "$scratch/policy.json" --trust-config "$at/trusted-root.json" >"$scratch/said" 2>&1
}
pythons() { # bundle, file
  "$tools/py/bin/sigstore" --trust-config "$at/trust-config.json" verify identity --offline --bundle "$1" \
    --cert-identity "$subject" --cert-oidc-issuer "$issuer" "$2" >"$scratch/said" 2>&1
}
javascripts() { node "$tools/js/keyless.mjs" verify "$at/trusted-root.json" "$1" "$subject" "$issuer" >"$scratch/said" 2>&1; }
all_verify() { # words, bundle, folder, file
  ours "$3" "$2" || fail "$1: ours: $(cat "$scratch/said")"
  pythons "$2" "$4" || fail "$1: sigstore-python: $(cat "$scratch/said")"
  javascripts "$2" || fail "$1: sigstore-js: $(cat "$scratch/said")"
  ok "$1 is verified by us, by sigstore-python and by sigstore-js"
}
all_refuse() { # words, bundle, folder, file, rule
  if ours "$3" "$2"; then fail "$1: we accept it"; fi
  grep -q "$5" "$scratch/said" || fail "$1: refused for another reason: $(cat "$scratch/said")"
  if pythons "$2" "$4"; then fail "$1: sigstore-python accepts it"; fi
  if javascripts "$2"; then fail "$1: sigstore-js accepts it"; fi
  ok "$1 is refused by all three, by us as $5"
}
keep() { [ -z "$record" ] || cp "$1" "$record/$2"; }
fails() { # words, pattern, command
  local words=$1 pattern=$2
  shift 2
  if "$@"; then fail "$words: it did not fail"; fi
  grep -qE "$pattern" "$scratch/said" || fail "$words: it failed for another reason: $(cat "$scratch/said")"
  ok "$words: refused"
}

policy "$issuer" "$subject" "$project" "$recipe"
sign || fail "$(cat "$scratch/said")"
all_verify "what instar attest --keyless makes" "$bundle" "$out" "$file"
[ "$(jq '.verificationMaterial.tlogEntries | length' "$bundle")" = 1 ] || fail "no log entry"
[ "$(jq '.verificationMaterial.timestampVerificationData.rfc3161Timestamps | length' "$bundle")" = 1 ] || fail "no timestamp"
ok "it carries a certificate, one log entry and one timestamp"
cp "$bundle" "$scratch/first.sigstore.json"
keep "$bundle" provenance.sigstore.json
# shellcheck disable=SC2310
SIGSTORE_ID_TOKEN=$(token) attest --keyless --tested pass || fail "$(cat "$scratch/said")"
keep "$out/test-result.sigstore.json" test-result.sigstore.json
javascripts "$out/test-result.sigstore.json" || fail "a test result: $(cat "$scratch/said")"
ok "a test result is signed in the same way"

changed() { jq -c "$1" "$scratch/first.sigstore.json" >"$scratch/changed.json"; }
SIGSTORE_ID_TOKEN=$(token ref=evil "ci_config_ref_uri=gitlab.com/evil/project//.gitlab-ci.yml@refs/heads/main" project_path=evil/project) \
  attest --keyless || fail "$(cat "$scratch/said")"
cp "$bundle" "$scratch/evil.json"
keep "$bundle" wrong-project.sigstore.json
all_refuse "another project's identity" "$scratch/evil.json" "$out" "$file" keyless-subject
policy "$issuer" "$(jq -rn '"https://gitlab.com/evil/project//.gitlab-ci.yml@refs/heads/main"')" "$project" "$recipe"
fails "the right subject with another project" keyless-project ours "$out" "$scratch/evil.json"
policy https://gitlab.example.org "$subject" "$project" "$recipe"
fails "another issuer" keyless-issuer ours "$out" "$scratch/first.sigstore.json"
policy "$issuer" "$subject" "$project" "$recipe"
changed '.verificationMaterial.tlogEntries[0].inclusionProof.hashes |= (if length > 0 then .[:-1] else ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] end)'
all_refuse "a bad inclusion proof" "$scratch/changed.json" "$out" "$file" log-inclusion-proof
changed ".verificationMaterial.tlogEntries = $(jq -c .verificationMaterial.tlogEntries "$scratch/evil.json")"
all_refuse "the log entry of another signature" "$scratch/changed.json" "$out" "$file" log-entry-of-another
changed ".verificationMaterial.timestampVerificationData = $(jq -c .verificationMaterial.timestampVerificationData "$scratch/evil.json")"
fails "the timestamp of another signature" ' timestamp: ' ours "$out" "$scratch/changed.json"
changed '.verificationMaterial.tlogEntries[0] |= del(.inclusionPromise) | .verificationMaterial.timestampVerificationData = {}'
all_refuse "an expired certificate without a good time" "$scratch/changed.json" "$out" "$file" timestamp-missing
by_public_root() { "$instar" verify "$out" --bundle "$scratch/first.sigstore.json" --policy "$scratch/policy.json" >"$scratch/said" 2>&1; }
fails "the public instance's root" "does not match any trusted|certificate" by_public_root

# Tokens that Fulcio does not take, and one that we don't send.
bad_token() { SIGSTORE_ID_TOKEN=$(token "$@") attest --keyless; }
fails "a token for another audience" "no certificate from" bad_token aud=somebody
fails "a token that is over" "it was good until" bad_token exp=1600000000
no_token() { SIGSTORE_ID_TOKEN='' attest --keyless; }
fails "no token" "identity token" no_token

# Theirs, by us.
cp -r "$out/release" "$scratch/flat"
find "$scratch/flat" -mindepth 1 -delete
cp "$file" "$scratch/flat/tool"
cat >"$scratch/predicate.json" <<JSON
{ "buildDefinition": { "buildType": "https://example.org/make/v1", "externalParameters": {}, "internalParameters": {},
    "resolvedDependencies": [ { "name": "source", "uri": "git+https://git.example.org/tool.git",
      "digest": { "gitCommit": "1111111111111111111111111111111111111111" } } ] },
  "runDetails": { "builder": { "id": "$project" }, "metadata": { "invocationId": "1" } } }
JSON
policy "$issuer" "$subject" "$project" https://example.org/make/v1
"$tools/py/bin/sigstore" --trust-config "$at/trust-config.json" attest --identity-token "$(token)" --predicate "$scratch/predicate.json" \
  --predicate-type https://slsa.dev/provenance/v1 --bundle "$scratch/python.sigstore.json" "$scratch/flat/tool" >"$scratch/said" 2>&1 ||
  fail "sigstore-python does not sign: $(cat "$scratch/said")"
all_verify "what sigstore-python makes" "$scratch/python.sigstore.json" "$scratch/flat" "$scratch/flat/tool"
jq -r .dsseEnvelope.payload "$scratch/python.sigstore.json" | base64 -d >"$scratch/statement.json"
SIGSTORE_ID_TOKEN=$(token) node "$tools/js/keyless.mjs" sign "$fulcio" "$log" "$tsa" "$scratch/statement.json" "$scratch/js.sigstore.json" ||
  fail "sigstore-js does not sign"
all_verify "what sigstore-js makes" "$scratch/js.sigstore.json" "$scratch/flat" "$scratch/flat/tool"

policy "$issuer" "$subject" "$project" "$recipe"

# A log that is down does not stop a release.
stop rekor
rm -f "$bundle"
sign || fail "the log is down, and that stopped it: $(cat "$scratch/said")"
grep -q "flush-queue" "$scratch/said" || fail "it does not say that it is queued: $(cat "$scratch/said")"
[ -f "$queued" ] && [ ! -f "$bundle" ] || fail "no queued bundle, or a complete one"
ok "the log is down: the bundle is queued, and that is said"
keep "$queued" queued.json
all_refuse "a queued bundle" "$queued" "$out" "$file" log-entry-missing
flush() { SIGSTORE_ID_TOKEN='' attest --flush-queue; }
fails "flushing while the log is down" "still down" flush
[ -f "$queued" ] || fail "the queue was lost"
start_rekor
# A certificate lives for ten minutes; with INSTAR_LIVE_WAIT=660 its entry is made after that.
sleep "${INSTAR_LIVE_WAIT:-0}"
flush || fail "the log is back, and flushing fails: $(cat "$scratch/said")"
[ -f "$bundle" ] && [ ! -f "$queued" ] || fail "no complete bundle, or still a queued one"
keep "$bundle" late-entry.sigstore.json
all_verify "a bundle whose entry was made later" "$bundle" "$out" "$file"
fails "flushing an empty queue" "nothing is queued" flush

stop tsa
sign || fail "the authority is down, and that stopped it: $(cat "$scratch/said")"
grep -q "note: no timestamp" "$scratch/said" || fail "it does not say that there is no timestamp"
keep "$bundle" no-timestamp.sigstore.json
all_verify "a bundle with the log's promise and no timestamp" "$bundle" "$out" "$file"
stop rekor
fails "neither log nor timestamp authority" "nobody says when" sign
[ -z "$record" ] || cp "$at/trust-config.json" "$record/"
