#!/usr/bin/env bash
# The attestation's payload is an in-toto Statement v1 with an SLSA v1 provenance: in-toto's own protobuf bindings read
# it without a field left over, its validator accepts it, and both refuse what is not one.
. "$(dirname "$0")/lib"
need_python
"$python" "$here/py/statement.py" "$root/attest/tests/vectors/bundle.json"
