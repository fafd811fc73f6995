"""Validates an SBOM with cyclonedx-python-lib, and compares it with the lock file that it is made from."""

import copy
import hashlib
import json
import sys
import tomllib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

sbom_path, lock_path = sys.argv[1:]
with open(sbom_path, encoding="utf-8") as file:
    text = file.read()
with open(lock_path, "rb") as file:
    lock_bytes = file.read()
document = json.loads(text)
validator = JsonStrictValidator(SchemaVersion.V1_5)

fault = validator.validate_str(text)
assert fault is None, f"not CycloneDX 1.5: {fault}"
print("ok: valid CycloneDX 1.5, strictly")

packages = tomllib.loads(lock_bytes.decode())["package"]
expected = {(p["name"], p["version"], p.get("checksum")) for p in packages}
components = document["components"]
found = set()
for component in components:
    purl = PackageURL.from_string(component["purl"])
    assert (purl.type, purl.name, purl.version) == ("cargo", component["name"], component["version"]), component
    hashes = component.get("hashes", [])
    assert all(h["alg"] == "SHA-256" for h in hashes) and len(hashes) <= 1, component
    found.add((component["name"], component["version"], hashes[0]["content"] if hashes else None))
assert found == expected and len(components) == len(packages), (found, expected)
print(f"ok: the {len(components)} packages of Cargo.lock, with their checksums")

refs = [component["bom-ref"] for component in components]
assert len(set(refs)) == len(refs)
assert sorted(d["ref"] for d in document["dependencies"]) == sorted(refs)
depends = {d["ref"].split("?")[0].split("/")[-1]: {on.split("?")[0].split("/")[-1].split("@")[0] for on in d["dependsOn"]}
           for d in document["dependencies"]}
for package in packages:
    wanted = {line.split(" ")[0] for line in package.get("dependencies", [])}
    assert depends[f"{package['name']}@{package['version']}"] == wanted, package
print("ok: every dependency names a component, as the lock file does")

properties = {p["name"]: p["value"] for p in document["metadata"]["properties"]}
assert properties["instar:cargo-lock-sha256"] == hashlib.sha256(lock_bytes).hexdigest()
print("ok: the lock file's digest")


def refused(what, change):
    changed = copy.deepcopy(document)
    change(changed)
    if validator.validate_str(json.dumps(changed)) is None:
        sys.exit(f"{what} was accepted")
    print(f"ok: refused: {what}")


refused("another format", lambda d: d.update(bomFormat="SPDX"))
refused("a field that CycloneDX doesn't know", lambda d: d.update(extra=1))
refused("a component without type", lambda d: d["components"][0].pop("type"))
refused("a hash that is none", lambda d: d["components"][0].update(hashes=[{"alg": "SHA-256", "content": "x"}]))
refused("two equal dependency records", lambda d: d["dependencies"].append(d["dependencies"][0]))
