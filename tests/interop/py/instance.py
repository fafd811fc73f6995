"""What a private Sigstore instance needs beside its servers: an issuer of identity tokens, keys, and its trust configuration.

    instance.py keys DIR ISSUER            makes all keys, the certificate authority, the servers' configuration files
    instance.py serve DIR PORT             serves the issuer's documents, as GitLab does
    instance.py token DIR ISSUER [CLAIM=VALUE ...]   prints an identity token with GitLab's claims
    instance.py trust DIR FULCIO LOG TSA   asks the running servers for their keys, writes DIR/trust-config.json
"""

import base64
import datetime
import functools
import hashlib
import http.server
import json
import pathlib
import sys
import time
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

PASSWORD = "not a secret: the instance lives for one check"
START = "2020-01-01T00:00:00Z"
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def private_bytes(key, encoding, how=serialization.NoEncryption()):
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, how)


def keys(at, issuer):
    # The issuer: what Fulcio reads of an OpenID provider.
    signer = ec.generate_private_key(ec.SECP256R1())
    (at / "issuer.pem").write_bytes(private_bytes(signer, PEM))
    numbers = signer.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1",
           "x": b64url(numbers.x.to_bytes(32, "big")), "y": b64url(numbers.y.to_bytes(32, "big"))}
    well_known = at / "oidc" / ".well-known"
    well_known.mkdir(parents=True)
    (at / "oidc" / "jwks").write_text(json.dumps({"keys": [jwk]}))
    (well_known / "openid-configuration").write_text(json.dumps({
        "issuer": issuer, "jwks_uri": f"{issuer}/jwks", "authorization_endpoint": issuer, "token_endpoint": issuer,
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"]}))
    # Fulcio's own authority.
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "a private instance"),
                      x509.NameAttribute(x509.NameOID.COMMON_NAME, "fulcio")])
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(authority.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256()))
    (at / "ca.pem").write_bytes(certificate.public_bytes(PEM))
    sealed = serialization.BestAvailableEncryption(PASSWORD.encode())
    (at / "ca.key").write_bytes(private_bytes(authority, PEM, sealed))
    (at / "password").write_text(PASSWORD)
    (at / "fulcio.yaml").write_text(
        f"oidc-issuers:\n  {issuer}:\n    issuer-url: {issuer}\n    client-id: sigstore\n    type: gitlab-pipeline\n")
    # The certificate transparency log's key, in the text form of its server's configuration.
    log = ec.generate_private_key(ec.SECP256R1())
    (at / "ct.pub").write_bytes(log.public_key().public_bytes(PEM, SPKI))
    text = "".join(f"\\{b:03o}" for b in private_bytes(log, DER))
    (at / "ct.in").write_text(
        'config {\n log_id: TREE\n prefix: "ct"\n'
        f' roots_pem_file: "{at / "ca.pem"}"\n'
        f' private_key: {{ [type.googleapis.com/keyspb.PrivateKey] {{ der: "{text}" }} }}\n'
        ' ext_key_usages: "CodeSigning"\n}\n')


def token(at, issuer, changes):
    now = int(time.time())
    claims = {
        "iss": issuer, "aud": "sigstore", "sub": "project_path:chain/releases:ref_type:branch:ref:main",
        "iat": now, "nbf": now - 5, "exp": now + 600,
        "project_path": "chain/releases", "project_id": "42", "namespace_path": "chain", "namespace_id": "7",
        "pipeline_source": "push", "pipeline_id": "101", "job_id": "1001", "ref": "main", "ref_type": "branch",
        "sha": "1" * 40, "ci_config_ref_uri": "gitlab.com/chain/releases//.gitlab-ci.yml@refs/heads/main",
        "ci_config_sha": "1" * 40, "runner_environment": "self-hosted", "runner_id": 5, "project_visibility": "public"}
    for change in changes:
        name, value = change.split("=", 1)
        claims[name] = int(value) if isinstance(claims.get(name), int) else value
    signer = serialization.load_pem_private_key((at / "issuer.pem").read_bytes(), None)
    signed = ".".join(b64url(json.dumps(part).encode()) for part in ({"alg": "ES256", "kid": "1", "typ": "JWT"}, claims))
    r, s = decode_dss_signature(signer.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    print(f"{signed}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}")


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def log_of(url, pem):
    key = serialization.load_pem_public_key(pem).public_bytes(DER, SPKI)
    return {"baseUrl": url, "hashAlgorithm": "SHA2_256",
            "publicKey": {"rawBytes": base64.b64encode(key).decode(), "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                          "validFor": {"start": START}},
            "logId": {"keyId": base64.b64encode(hashlib.sha256(key).digest()).decode()}}


def chain_of(url, certificates):
    subject = certificates[0].subject
    get = lambda oid: subject.get_attributes_for_oid(oid)[0].value
    raw = [{"rawBytes": base64.b64encode(c.public_bytes(DER)).decode()} for c in certificates]
    return {"uri": url, "certChain": {"certificates": raw}, "validFor": {"start": START},
            "subject": {"organization": get(x509.NameOID.ORGANIZATION_NAME), "commonName": get(x509.NameOID.COMMON_NAME)}}


def trust(at, fulcio, log, tsa):
    authority = x509.load_pem_x509_certificates((at / "ca.pem").read_bytes())
    stamps = x509.load_pem_x509_certificates(fetch(f"{tsa}/api/v1/timestamp/certchain"))
    service = lambda url: {"url": url, "majorApiVersion": 1, "validFor": {"start": START}, "operator": "a private instance"}
    root = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [log_of(log, fetch(f"{log}/api/v1/log/publicKey"))],
        "certificateAuthorities": [chain_of(fulcio, authority)],
        "ctlogs": [log_of("http://127.0.0.1/ct", (at / "ct.pub").read_bytes())],
        "timestampAuthorities": [chain_of(tsa, stamps)]}
    signing = {
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": [service(fulcio)], "oidcUrls": [], "rekorTlogUrls": [service(log)],
        "rekorTlogConfig": {"selector": "ANY"}, "tsaUrls": [service(f"{tsa}/api/v1/timestamp")], "tsaConfig": {"selector": "ANY"}}
    (at / "trusted-root.json").write_text(json.dumps(root, indent=1) + "\n")
    (at / "trust-config.json").write_text(json.dumps({
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json", "trustedRoot": root, "signingConfig": signing},
        indent=1) + "\n")


def serve(at, port):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass
    handler = functools.partial(Quiet, directory=at / "oidc")
    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), handler).serve_forever()


what, where, *rest = sys.argv[1:]
folder = pathlib.Path(where)
if what == "keys":
    keys(folder, *rest)
elif what == "serve":
    serve(folder, *rest)
elif what == "token":
    token(folder, rest[0], rest[1:])
elif what == "trust":
    trust(folder, *rest)
else:
    sys.exit(__doc__)
