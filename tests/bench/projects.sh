#!/usr/bin/env bash
# The builder on real published projects of different kinds: each is brought by cargo, put into a git
# repository, and built twice. Prints what came out, and fails if it isn't what is known of the project: reproducible, or
# the reason named. `tests/bench/projects.sh NAME…` builds only those.
. "$(dirname "$0")/../interop/lib"
need_instar
need git "install git 2.39 or newer"
need cargo "install Rust"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null

# The published sources, in $scratch/vendor: a package that depends on them is what cargo brings them for.
mkdir -p "$scratch/bring/src"
touch "$scratch/bring/src/lib.rs"
cat >"$scratch/bring/Cargo.toml" <<'TOML'
[package]
name = "bring"
version = "0.0.0"
edition = "2021"
[dependencies]
b3sum = "=1.8.2"
sd = "=1.0.0"
ripgrep = "=15.2.0"
grep-pcre2 = "=0.1.10"
genpass = "=0.5.27"
[workspace]
TOML
(cd "$scratch/bring" && cargo vendor --quiet --versioned-dirs "$scratch/vendor" >/dev/null 2>"$scratch/bring.log") ||
  fail "cargo can't bring the projects: $(tail -n 5 "$scratch/bring.log")"

commit() { # folder
  git -C "$1" init --quiet
  git -C "$1" add --all --force
  git -C "$1" -c user.name=check -c user.email=check@localhost commit --quiet --message "As published"
}
published() { # crate-version, folder
  cp -r "$scratch/vendor/$1" "$2"
  rm -f "$2/.cargo-checksum.json" "$2/.cargo_vcs_info.json"
  [ -f "$2/Cargo.lock" ] || (cd "$2" && cargo generate-lockfile --quiet)
  # Crates are published without a workspace; this folder must not be taken for a member of the one around it.
  grep -q '^\[workspace\]' "$2/Cargo.toml" || printf '\n[workspace]\n' >>"$2/Cargo.toml"
}

outcome() { # name, expected, kind
  local name=$1 expected=$2 started ended said
  started=$(date +%s)
  if "$instar" build "$scratch/$name" --out "$scratch/out-$name" >"$scratch/$name.out" 2>"$scratch/$name.log"; then
    said=reproducible
  else
    said=$(grep -oE 'likely because of .*' "$scratch/$name.log" | head -n 1) || said="failed: $(tail -n 1 "$scratch/$name.log")"
  fi
  ended=$(date +%s)
  printf '%-12s %-34s %4d s  %s\n' "$name" "$3" $((ended - started)) "$said"
  [ "$said" = "$expected" ] || fail "$name: expected was: $expected"
}
only=("$@")
wanted() { [ ${#only[@]} -eq 0 ] || [[ " ${only[*]} " == *" $1 "* ]]; }


if wanted b3sum; then
  published b3sum-1.8.2 "$scratch/b3sum"
  commit "$scratch/b3sum"
  outcome b3sum reproducible "C and assembly in a build script"
fi
if wanted sd; then
  published sd-1.0.0 "$scratch/sd"
  commit "$scratch/sd"
  outcome sd reproducible "proc macros"
fi
if wanted ripgrep; then
  # Published package by package; its own manifests, as they stand in the packages, make the workspace of them again.
  mkdir -p "$scratch/ripgrep"
  cp -r "$scratch/vendor/ripgrep-15.2.0/." "$scratch/ripgrep"
  for member in globset ignore grep grep-cli grep-matcher grep-pcre2 grep-printer grep-regex grep-searcher; do
    cp -r "$scratch/vendor/$member"-[0-9]* "$scratch/ripgrep/crates/${member#grep-}"
  done
  find "$scratch/ripgrep" -name .cargo-checksum.json -delete
  find "$scratch/ripgrep" -name Cargo.toml.orig | while read -r manifest; do mv "$manifest" "${manifest%.orig}"; done
  find "$scratch/ripgrep" -name Cargo.lock -delete
  # Two members are younger than the root's last release, and inherit what it did not yet say.
  printf '\n[workspace.package]\nedition = "2024"\nrust-version = "1.85"\n' >>"$scratch/ripgrep/Cargo.toml"
  (cd "$scratch/ripgrep" && cargo generate-lockfile --quiet)
  commit "$scratch/ripgrep"
  outcome ripgrep reproducible "a workspace of ten crates"
fi
if wanted genpass; then
  published genpass-0.5.27 "$scratch/genpass"
  commit "$scratch/genpass"
  # Its crate `built` writes down when it was built, whatever SOURCE_DATE_EPOCH says.
  outcome genpass "likely because of the time of the build" "build information on purpose, C in a build script"
fi
if wanted build-time; then
  mkdir -p "$scratch/build-time/src"
  printf '[package]\nname = "stamped"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nbuild-time = "=0.1.3"\n[workspace]\n' >"$scratch/build-time/Cargo.toml"
  echo 'fn main() { println!("{}", build_time::build_time_utc!("%Y-%m-%dT%H:%M:%S")); }' >"$scratch/build-time/src/main.rs"
  (cd "$scratch/build-time" && cargo generate-lockfile --quiet)
  commit "$scratch/build-time"
  outcome build-time "likely because of the time of the build" "a time stamp, by the crate build-time"
fi
if wanted coin; then
  mkdir "$scratch/coin"
  tar -C "$root/node/dapps" --exclude=target -c . | tar -C "$scratch/coin" -x
  commit "$scratch/coin"
  outcome coin reproducible "a dapp"
fi
