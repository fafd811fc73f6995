#!/usr/bin/env bash
# Debian's reprotest agrees: a real published program that `instar build` finds reproducible is reproducible for it too,
# under the variations that it makes on its own (build path, environment, home, time zone, locales, umask, shell, path of
# programs, number of processors, address randomisation). Of a program that prints when it was built, both say no.
. "$(dirname "$0")/lib"
need_instar
need git "install git 2.39 or newer"
need cargo "install Rust"
need reprotest "install reprotest (Debian: reprotest)"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null

mkdir -p "$scratch/bring/src" "$scratch/stamped/src"
touch "$scratch/bring/src/lib.rs"
printf '[package]\nname = "bring"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nkibi = "=0.3.3"\n[workspace]\n' >"$scratch/bring/Cargo.toml"
(cd "$scratch/bring" && cargo vendor --quiet --versioned-dirs "$scratch/vendor" >/dev/null 2>"$scratch/bring.log") ||
  fail "cargo can't bring kibi: $(tail -n 5 "$scratch/bring.log")"
cp -r "$scratch/vendor/kibi-0.3.3" "$scratch/kibi"
rm -f "$scratch/kibi/.cargo-checksum.json" "$scratch/kibi/.cargo_vcs_info.json"
printf '[package]\nname = "stamped"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n' >"$scratch/stamped/Cargo.toml"
printf 'version = 4\n\n[[package]]\nname = "stamped"\nversion = "0.1.0"\n' >"$scratch/stamped/Cargo.lock"
echo 'fn main() { println!("{}", env!("STAMP")); }' >"$scratch/stamped/src/main.rs"
cat >"$scratch/stamped/build.rs" <<'RUST'
fn main() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    println!("cargo:rustc-env=STAMP=built at {}", now.as_nanos());
}
RUST
for project in kibi stamped; do
  git -C "$scratch/$project" init --quiet
  git -C "$scratch/$project" add --all --force
  git -C "$scratch/$project" -c user.name=check -c user.email=check@localhost commit --quiet --message "As published"
done

ours() { "$instar" build "$scratch/$1" --out "$scratch/out-$1" >"$scratch/$1.said" 2>&1; }
# What the recipe does for a path that leaks, done by hand: reprotest builds in a folder of its own choice.
sysroot=$(rustc --print sysroot)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
theirs() { # project
  rm -rf "$scratch/copy"
  git clone --quiet "$scratch/$1" "$scratch/copy"
  rm -rf "$scratch/copy/.git"
  reprotest --vary=-user_group,-fileordering,-time,-kernel,-domain_host --min-cpus 1 \
    -c "export PATH=$sysroot/bin:/usr/bin:/bin CARGO_HOME=$cargo_home CARGO_TARGET_DIR=\$PWD/target RUSTFLAGS=\"--remap-path-prefix=\$PWD=/src -Cstrip=symbols\"; cargo build --release --locked --offline" \
    "$scratch/copy" "target/release/$1" >"$scratch/$1.reprotest" 2>&1
}

ours kibi || fail "instar build finds kibi not reproducible, or it failed: $(tail -n 5 "$scratch/kibi.said")"
ok "instar build: kibi 0.3.3 is reproducible"
theirs kibi || fail "reprotest finds kibi not reproducible, or it failed: $(tail -n 15 "$scratch/kibi.reprotest")"
grep -q 'Reproduction successful' "$scratch/kibi.reprotest" || fail "reprotest did not say so: $(tail -n 5 "$scratch/kibi.reprotest")"
ok "reprotest agrees"
! ours stamped || fail "instar build finds a time stamp reproducible"
grep -q 'likely because of the time of the build' "$scratch/stamped.said" || fail "the reason is another: $(tail -n 5 "$scratch/stamped.said")"
! theirs stamped || fail "reprotest finds a time stamp reproducible"
grep -qE 'Reproduction failed|differ' "$scratch/stamped.reprotest" || fail "reprotest failed for another reason: $(tail -n 15 "$scratch/stamped.reprotest")"
ok "a time stamp: both say no, and instar build says why"
