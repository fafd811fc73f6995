// Keyless bundles by Sigstore's JavaScript client.
//   keyless.mjs verify TRUSTED_ROOT BUNDLE SUBJECT ISSUER
//   keyless.mjs sign FULCIO LOG TSA STATEMENT OUT        with the token in SIGSTORE_ID_TOKEN
import fs from 'node:fs';
import { bundleFromJSON, bundleToJSON } from '@sigstore/bundle';
import { TrustedRoot } from '@sigstore/protobuf-specs';
import { DSSEBundleBuilder, FulcioSigner, RekorWitness, TSAWitness } from '@sigstore/sign';
import { Verifier, toSignedEntity, toTrustMaterial } from '@sigstore/verify';

const [what, ...args] = process.argv.slice(2);
const json = (file) => JSON.parse(fs.readFileSync(file, 'utf8'));
try {
  if (what === 'verify') {
    const [root, file, subject, issuer] = args;
    const trust = toTrustMaterial(TrustedRoot.fromJSON(json(root)));
    const verifier = new Verifier(trust, { ctlogThreshold: 1, tlogThreshold: 1, timestampThreshold: 1 });
    const exact = subject.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    const signer = verifier.verify(toSignedEntity(bundleFromJSON(json(file))), {
      subjectAlternativeName: `^${exact}$`, extensions: { issuer },
    });
    console.log(`verified: ${signer.identity.subjectAlternativeName}`);
  } else if (what === 'sign') {
    const [fulcioBaseURL, rekorBaseURL, tsaBaseURL, statement, out] = args;
    const token = process.env.SIGSTORE_ID_TOKEN;
    const builder = new DSSEBundleBuilder({
      signer: new FulcioSigner({ fulcioBaseURL, identityProvider: { getToken: async () => token } }),
      witnesses: [new RekorWitness({ rekorBaseURL, entryType: 'dsse' }), new TSAWitness({ tsaBaseURL })],
    });
    const bundle = await builder.create({ data: fs.readFileSync(statement), type: 'application/vnd.in-toto+json' });
    fs.writeFileSync(out, JSON.stringify(bundleToJSON(bundle)));
  } else {
    throw new Error('verify or sign');
  }
} catch (error) {
  console.error(`refused: ${error.message}${error.cause ? `: ${error.cause.message}` : ''}`);
  process.exit(1);
}
