"""Renders a GitLab component: checks inputs against its header, puts them in, and writes the parts beside each other.

Prints the jobs' script lines. GitLab's own rules that the schema can't see are kept here: no input without a
declaration, none declared in vain, a sample value that fits `regex` and `type`, and an input that is a whole value
keeps its type.
"""

import pathlib
import re
import sys

from ruamel.yaml import YAML

SAMPLES = {
    "repository": "https://git.example.org/chain/dapps.git", "commit": "1" * 40, "slot": "dapps/coin", "number": 2,
    "name": "coin", "round": "5e" * 32, "node": "http://127.0.0.1:8080",
}
TYPES = {"string": str, "number": (int, float), "boolean": bool, "array": list}
REFERENCE = re.compile(r"\$\[\[\s*inputs\.([A-Za-z0-9_-]+)\s*\]\]")

template, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
yaml = YAML(typ="safe", pure=True)
yaml.default_flow_style = False
header, jobs = yaml.load_all(template.read_text(encoding="utf-8"))
declared = header["spec"]["inputs"]

values = {}
for name, rules in declared.items():
    rules = rules or {}
    value = SAMPLES[name] if name in SAMPLES else rules["default"]
    assert isinstance(value, TYPES[rules.get("type", "string")]), f"{name}: {value!r} is no {rules.get('type')}"
    if "regex" in rules:
        assert re.search(rules["regex"], value), f"{name}: {value!r} does not fit {rules['regex']}"
        for bad in ("", value + "; id", "$(id)", value + "\n--"):
            assert not re.fullmatch(rules["regex"].removeprefix("^").removesuffix("$"), bad), f"{name} takes {bad!r}"
    values[name] = value

used = set()


def render(node):
    if isinstance(node, dict):
        return {render(key): render(value) for key, value in node.items()}
    if isinstance(node, list):
        return [render(value) for value in node]
    if not isinstance(node, str):
        return node
    used.update(REFERENCE.findall(node))
    whole = REFERENCE.fullmatch(node)
    return values[whole[1]] if whole else REFERENCE.sub(lambda m: str(values[m[1]]), node)


rendered = render(jobs)
assert used == set(declared), f"declared and used differ: {used ^ set(declared)}"


def write(name, document):
    with open(out / f"{template.stem}.{name}.yml", "w", encoding="utf-8") as file:
        yaml.dump(document, file)


write("header", header)
write("jobs", rendered)
for job, body in rendered.items():
    for line in body["script"]:
        assert "$[[" not in line
        print(line)
    # An input in a script line would be put in before the shell reads it: a value could bring its own commands.
    assert not any(REFERENCE.search(line) for line in jobs[job]["script"]), f"{job}: an input stands in a script"

first = next(iter(rendered))
write("broken-script", rendered | {first: {**rendered[first], "script": 7}})
write("broken-key", rendered | {first: {**rendered[first], "artefacts": {}}})
write("broken-tags", rendered | {first: {**rendered[first], "tags": "instar"}})
write("broken-when", rendered | {first: {**rendered[first], "artifacts": {"when": "sometimes"}}})
write("broken-type", {"spec": {"inputs": {"number": {"type": "integer"}}}})
