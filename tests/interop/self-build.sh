#!/usr/bin/env bash
# Instar builds itself reproducibly: the small `instar-upgrader`, by `instar build` from two clones in folders of different
# names and depths, the second by another user where this machine has a toolchain that one may use. Each of them builds
# twice, the second time with another user's name, clock, locale and more; all four give the same bytes.
#
# Not among the cross-checks: it takes several minutes, half of them for vendoring and checking every locked crate.
. "$(dirname "$0")/../interop/lib"
need_instar
need git "install git 2.39 or newer"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
# Both find the vendored crates there; each build checks them anew against Cargo.lock.
cache=$tools/self-cache
mkdir -p "$cache"

# The commit to be: what is tracked, as it lies there, so that a change is checked before it lands.
source_of() { # folder
  mkdir -p "$1"
  git -c safe.directory='*' -C "$root" ls-files -z | tar -C "$root" --null --no-recursion -T - -c | tar -C "$1" -x
  printf '[release]\npackage = "instar-upgrader"\nbin = "instar-upgrader"\n' >"$1/instar.toml"
  git -C "$1" init --quiet
  git -C "$1" add --all
  GIT_AUTHOR_DATE="1700000000 +0000" GIT_COMMITTER_DATE="1700000000 +0000" \
    git -C "$1" -c user.name=check -c user.email=check@localhost commit --quiet --message "Instar"
}
first=$scratch/one
second=$(mktemp -d)/another/and/deeper/two
trap 'rm -rf "${second%/another/*}"' EXIT
source_of "$first"
source_of "$second"
same "$(git -C "$first" rev-parse HEAD)" "$(git -C "$second" rev-parse HEAD)" "both clones are one commit"

"$instar" build "$first" --out "$scratch/out-1" --cache "$cache" 2>"$scratch/1.log" ||
  fail "the first: $(tail -n 20 "$scratch/1.log")"

other=(setpriv --reuid 65534 --regid 65534 --clear-groups)
as=()
who="the same user with another name and home (no other may use the toolchain here)"
if [ "$(id -u)" = 0 ] && "${other[@]}" env HOME=/tmp sh -c "rustc -vV && '$instar' doctor" >/dev/null 2>&1; then
  as=("${other[@]}")
  who="another user"
  chown -R 65534:65534 "${second%/another/*}" "$cache"
fi
"${as[@]}" env HOME="${second%/two}" USER=somebody LOGNAME=somebody \
  "$instar" build "$second" --out "${second%/two}/out" --cache "$cache" 2>"$scratch/2.log" ||
  fail "the second ($who): $(tail -n 20 "$scratch/2.log")"
digest() { find "$1/release" -name instar-upgrader -exec sha256sum {} + | cut -d' ' -f1; }
same "$(digest "$scratch/out-1")" "$(digest "${second%/two}/out")" "instar-upgrader has the same bytes from two folders, the second by $who"
