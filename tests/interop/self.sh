#!/usr/bin/env bash
# Instar builds itself reproducibly: the small `instar-upgrader`, by `instar build` from two clones in folders of different
# names and depths, by two users where this machine lets us be another one. Each of them builds twice; all four builds give
# the same bytes.
. "$(dirname "$0")/lib"
need_instar
need git "install git 2.39 or newer"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null

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

source_of "$scratch/one"
source_of "$scratch/another/and/deeper/two"
same "$(git -C "$scratch/one" rev-parse HEAD)" "$(git -C "$scratch/another/and/deeper/two" rev-parse HEAD)" "both clones are one commit"

"$instar" build "$scratch/one" --out "$scratch/out-1" --cache "$scratch/cache-1" 2>"$scratch/1.log" ||
  fail "the first: $(tail -n 20 "$scratch/1.log")"
second=$scratch/another/and/deeper
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null &&
  setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp unshare -U true 2>/dev/null; then
  chown -R 65534:65534 "$scratch/another"
  chmod o+x "$scratch" 2>/dev/null || true
  as=(setpriv --reuid 65534 --regid 65534 --clear-groups env "HOME=$second")
  who="another user"
else
  as=(env "HOME=$second")
  who="the same user with another home"
fi
if ! "${as[@]}" "$instar" build "$second/two" --out "$second/out-2" --cache "$second/cache-2" 2>"$scratch/2.log"; then
  fail "the second ($who): $(tail -n 20 "$scratch/2.log")"
fi
digest() { find "$1/release" -name instar-upgrader -exec sha256sum {} + | cut -d' ' -f1; }
same "$(digest "$scratch/out-1")" "$(digest "$second/out-2")" "instar-upgrader is the same from two folders, by $who"
