// Verifies the vector of a bundle with @sigstore/verify; no log, no timestamp: a managed key has neither.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import { bundleFromJSON, isBundleWithDsseEnvelope, isBundleWithPublicKey } from '@sigstore/bundle';
import { Verifier, toSignedEntity } from '@sigstore/verify';

const vector = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));

/** The verifier that trusts one key, given as 32 bytes in hex, under the id that docs/formats/attest.md defines. */
function verifier(hex) {
  const der = Buffer.from('302a300506032b6570032100' + hex, 'hex');
  const publicKey = crypto.createPublicKey({ key: der, format: 'der', type: 'spki' });
  const id = crypto.createHash('sha256').update(der).digest('hex');
  const trust = {
    certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [],
    publicKey: (hint) => {
      if (hint !== id) throw new Error(`no key ${hint}`);
      return { publicKey, validFor: () => true };
    },
  };
  return new Verifier(trust, { ctlogThreshold: 0, tlogThreshold: 0, tsaThreshold: 0, timestampThreshold: 0 });
}

const good = verifier(vector.builder);
const verify = (json, by = good) => by.verify(toSignedEntity(bundleFromJSON(json)));

const bundle = bundleFromJSON(JSON.parse(vector.bundle));
assert(isBundleWithPublicKey(bundle) && isBundleWithDsseEnvelope(bundle));
assert.equal(bundle.content.dsseEnvelope.payload.toString('utf8'), vector.statement);
// With a plain key the client names no identity: that it returns at all is the answer.
assert.equal(verify(JSON.parse(vector.bundle)).identity, undefined);
console.log('ok: the bundle verifies');

const refused = (what, why, change) => {
  const json = JSON.parse(vector.bundle);
  const by = change(json);
  assert.throws(() => verify(json, by), why, `${what} was accepted`);
  console.log(`ok: refused: ${what}`);
};
const flip = (base64, at) => {
  const bytes = Buffer.from(base64, 'base64');
  bytes[at] ^= 1;
  return bytes.toString('base64');
};
const signature = /signature verification failed/;
const size = Buffer.from(JSON.parse(vector.bundle).dsseEnvelope.payload, 'base64').length;
for (const at of [0, size >> 1, size - 1]) {
  refused(`byte ${at} of the statement changed`, signature, ({ dsseEnvelope: e }) => { e.payload = flip(e.payload, at); });
}
for (const at of [0, 31, 32, 63]) {
  refused(`byte ${at} of the signature changed`, signature,
    ({ dsseEnvelope: { signatures: [s] } }) => { s.sig = flip(s.sig, at); });
}
refused('another payload type', signature, ({ dsseEnvelope: e }) => { e.payloadType = 'application/json'; });
refused('another hint', /no key/, ({ verificationMaterial: m }) => { m.publicKey.hint = '0'.repeat(64); });
const other = crypto.generateKeyPairSync('ed25519').publicKey.export({ format: 'der', type: 'spki' }).subarray(12);
refused('another key', /no key/, () => verifier(other.toString('hex')));
