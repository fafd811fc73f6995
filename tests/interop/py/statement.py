"""Reads the vector's statement with in-toto-attestation, strictly: an unknown field is an error."""

import base64
import copy
import json
import sys

from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementPb

with open(sys.argv[1], encoding="utf-8") as file:
    vector = json.load(file)
envelope = json.loads(vector["bundle"])["dsseEnvelope"]
payload = base64.b64decode(envelope["payload"], validate=True)
assert payload.decode() == vector["statement"], "the bundle holds another statement"
assert envelope["payloadType"] == "application/vnd.in-toto+json"
document = json.loads(payload)


def read(document):
    """The statement and its provenance; raises where one of them is not what it should be."""
    statement = json_format.ParseDict(document, StatementPb())
    Statement.copy_from_pb(statement).validate()
    if statement.predicate_type != "https://slsa.dev/provenance/v1":
        raise ValueError(f"predicate type {statement.predicate_type}")
    provenance = json_format.ParseDict(document["predicate"], Provenance())
    definition = provenance.build_definition
    # What SLSA v1.0 requires of a provenance, beyond its types.
    if not definition.build_type or not len(definition.external_parameters):
        raise ValueError("no build type or external parameters")
    if not provenance.run_details.builder.id:
        raise ValueError("no builder id")
    for dependency in definition.resolved_dependencies:
        ResourceDescriptor.copy_from_pb(dependency).validate()
    return statement, provenance


statement, provenance = read(document)
# Nothing is lost on the way through the bindings.
assert json_format.MessageToDict(statement) == document
assert json_format.MessageToDict(provenance) == document["predicate"]
print(f"ok: a statement about {len(statement.subject)} subjects, built by {provenance.run_details.builder.id}")


def refused(what, change):
    changed = copy.deepcopy(document)
    change(changed)
    try:
        read(changed)
    except (ValueError, json_format.ParseError) as error:
        print(f"ok: refused: {what} ({' '.join(str(error).split())[:100]})")
    else:
        sys.exit(f"{what} was accepted")


refused("another statement type", lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"))
refused("no subject", lambda d: d.update(subject=[]))
refused("a subject without digest", lambda d: d["subject"][0].pop("digest"))
refused("no predicate", lambda d: d.pop("predicate"))
refused("a field that in-toto doesn't know", lambda d: d.update(extra=1))
refused("a provenance field that SLSA doesn't know", lambda d: d["predicate"]["buildDefinition"].update(extra=1))
refused("no builder", lambda d: d["predicate"]["runDetails"].pop("builder"))
