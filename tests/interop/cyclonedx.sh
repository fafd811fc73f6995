#!/usr/bin/env bash
# The SBOM of a release is CycloneDX 1.5: the coin dapp is built for real, and the reference library's strict validator,
# a package-URL parser and the lock file itself agree with the `sbom.cdx.json` that came out.
. "$(dirname "$0")/lib"
need_python
need_instar
need git "install git 2.39 or newer"

mkdir "$scratch/source"
tar -C "$root/node/dapps" --exclude=target -c . | tar -C "$scratch/source" -x
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
git -C "$scratch/source" init --quiet
git -C "$scratch/source" add --all
git -C "$scratch/source" -c user.name=check -c user.email=check@localhost commit --quiet --message "The dapps"
"$instar" build "$scratch/source" --slot dapps/coin --number 1 --name coin --out "$scratch/out" ||
  fail "the coin can't be built here; \`instar doctor\` says what is missing"
"$python" "$here/py/sbom.py" "$scratch/out/release/sbom.cdx.json" "$scratch/source/Cargo.lock"
