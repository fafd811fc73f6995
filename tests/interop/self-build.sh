#!/usr/bin/env bash
# Instar builds itself reproducibly: the small `instar-upgrader`, by `instar build` from two clones in folders of different
# names and depths, the second by another user (where this runs as root; else by the same with another name and home). Each of
# them builds twice, the second time with another user's name, clock, locale and more; all four give the same bytes. The node
# itself is the same with `--slot node`, by hand: it takes an hour.
. "$(dirname "$0")/lib"
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
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
second=$elsewhere/another/and/deeper/two
source_of "$first"
source_of "$second"
same "$(git -C "$first" rev-parse HEAD)" "$(git -C "$second" rev-parse HEAD)" "both clones are one commit"

"$instar" build "$first" --out "$scratch/out-1" --cache "$cache" 2>"$scratch/1.log" ||
  fail "the first: $(tail -n 20 "$scratch/1.log")"

as=()
who="the same user under another name"
program=$instar
path=$PATH
if [ "$(id -u)" = 0 ]; then
  # Root's toolchain is behind a door that only root opens: hard links to it, or copies, in a folder for everybody.
  chmod 755 "$elsewhere"
  sysroot=$(rustc --print sysroot)
  cp -al "$sysroot" "$elsewhere/toolchain" 2>/dev/null || { rm -rf "$elsewhere/toolchain" && cp -a "$sysroot" "$elsewhere/toolchain"; }
  cp "$instar" "$elsewhere/instar"
  cp -r "$cache" "$elsewhere/cache"
  cache=$elsewhere/cache
  program=$elsewhere/instar
  path=$elsewhere/toolchain/bin:$PATH
  chown -R 65534:65534 "$elsewhere/another" "$cache"
  as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
  who="another user"
fi
"${as[@]}" env -u RUSTUP_TOOLCHAIN HOME="$elsewhere/another" CARGO_HOME="$elsewhere/another/cargo" USER=somebody LOGNAME=somebody PATH="$path" \
  "$program" build "$second" --out "$elsewhere/another/out" --cache "$cache" 2>"$scratch/2.log" ||
  fail "the second, by $who: $(tail -n 20 "$scratch/2.log")"
digest() { find "$1/release" -name instar-upgrader -exec sha256sum {} + | cut -d' ' -f1; }
same "$(digest "$scratch/out-1")" "$(digest "$elsewhere/another/out")" "instar-upgrader has the same bytes from two folders, the second by $who"
same "$(sha256sum <"$scratch/out-1/release/sbom.cdx.json")" "$(sha256sum <"$elsewhere/another/out/release/sbom.cdx.json")" "so has its SBOM"
