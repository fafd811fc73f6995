#!/usr/bin/env bash
# The recipe `nix`: a small flake without inputs, and a `.nix` file, become the same release folder as with cargo; the
# second build is Nix's own `--check`, which finds a time stamp. Debian's nix 2.8 without a daemon is enough, and any newer
# one; nothing here needs nixpkgs, whose compiler is replaced by the system's.
. "$(dirname "$0")/lib"
need_instar
need git "install git 2.39 or newer"
need nix-store "install nix (Debian: nix-bin)"
need cc "install a C compiler"

# What a machine's own nix.conf would say: no daemon's users, no cache, and the system's compiler inside the sandbox.
paths=/bin
for path in /usr /lib /lib64 /etc/alternatives; do [ -e "$path" ] && paths="$paths $path"; done
export NIX_CONFIG="build-users-group =
substitute = false
sandbox-paths = $paths"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
system=$(uname -m)-linux

repository() { # folder
  git -C "$1" init --quiet
  git -C "$1" add --all
  git -C "$1" -c user.name=check -c user.email=check@localhost commit --quiet --message "A program"
}
# Another derivation each time: what an earlier run left in the store would count as this one's first build.
run=$(date +%s%N)-$$
derivation() { # what the C program prints
  cat <<NIX
derivation {
  name = "hello";
  system = "$system";
  builder = "/bin/sh";
  args = [ "-c" "/usr/bin/mkdir -p \$out/bin; /usr/bin/date +'#define STAMP \\"made at %s.%N\\"' > stamp.h; echo '#include <stdio.h>
#include \\"stamp.h\\"
int main(void) { puts($1); }' > hello.c; /usr/bin/gcc -static -O2 -o \$out/bin/hello hello.c" ];
  PATH = "/usr/bin:/bin";
  RUN = "$run";
}
NIX
}

mkdir -p "$scratch/flake" "$scratch/file" "$scratch/stamp"
printf '[release]\nrecipe = "nix"\nbin = "hello"\n' | tee "$scratch/flake/instar.toml" >/dev/null
{ echo "{ outputs = { self }: { packages.$system.default ="; derivation '\"from nix\"'; echo "; }; }"; } >"$scratch/flake/flake.nix"
printf '[release]\nrecipe = "nix"\nbin = "hello"\nnix-file = "default.nix"\n' | tee "$scratch/file/instar.toml" "$scratch/stamp/instar.toml" >/dev/null
derivation '\"from nix\"' >"$scratch/file/default.nix"
derivation STAMP >"$scratch/stamp/default.nix"
for folder in flake file stamp; do repository "$scratch/$folder"; done

"$instar" build "$scratch/flake" --out "$scratch/out-flake" || fail "the flake can't be built"
"$instar" build "$scratch/file" --out "$scratch/out-file" || fail "the .nix file can't be built"
for out in out-flake out-file; do
  program=$(find "$scratch/$out/release" -name hello)
  same "$("$program")" "from nix" "$out: the released program runs"
  grep -q '"recipe":"nix-v1"' "$scratch/$out/build.json" || fail "$out: the record names another recipe"
  grep -q '"equal_builds":2' "$scratch/$out/build.json" || fail "$out: not built twice"
  grep -qi 'checking outputs' "$scratch/$out/build-2.log" || fail "$out: the second build was no --check"
  ok "$out: built, and checked by nix-store --realise --check"
done
same "$(find "$scratch/out-flake/release" -name hello -exec sha256sum {} + | cut -d' ' -f1)" \
  "$(find "$scratch/out-file/release" -name hello -exec sha256sum {} + | cut -d' ' -f1)" "flake and file give the same bytes"

"$instar" key new builder -o "$scratch/builder.json" >/dev/null
"$instar" attest "$scratch/out-flake" --key "$scratch/builder.json" >/dev/null || fail "it can't be attested"
"$instar" verify "$scratch/out-flake" --rebuild --repository "$scratch/flake" --out "$scratch/rebuilt" ||
  fail "it can't be rebuilt"
ok "attested and rebuilt from its source"

# The moment of the build gets into the program.
if "$instar" build "$scratch/stamp" --out "$scratch/out-stamp" 2>"$scratch/stamp.log"; then
  fail "a time stamp was not found"
fi
grep -q 'likely because of the time of the build' "$scratch/stamp.log" || fail "the difference is not explained: $(cat "$scratch/stamp.log")"
[ -d "$scratch/out-stamp/different-2" ] || fail "the two outputs are not kept"
ok "a time stamp is found by --check and explained: $(grep -m1 'differs from byte' "$scratch/stamp.log")"

# Our own flake needs nixpkgs; that it parses is all that can be said without it.
nix-instantiate --parse "$root/nix/flake.nix" >/dev/null || fail "nix/flake.nix does not parse"
ok "nix/flake.nix parses (it was not built: that needs nixpkgs)"
