// What other implementations write, for the program to read, and what the program writes, for them to read.
//   stock.mjs vectors FIXTURE               the importer's CIDs of `unixfs-v1-2025`
//   stock.mjs folder DIR CID                the importer's CID of a folder under that profile
//   stock.mjs foreign DIR OUT               DAGs of every shape over DIR, as CAR files; prints NAME CID
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { CarWriter } from '@ipld/car';
import { importer } from 'ipfs-unixfs-importer';
import { fixedSize } from 'ipfs-unixfs-importer/chunker';
import { balanced, trickle } from 'ipfs-unixfs-importer/layout';
import { CID } from 'multiformats/cid';
import { content } from './cdc.mjs';

/** Blocks with the addresses that they were given; the usual stores forget all but the hash. */
class Blocks extends Map {
  put(cid, block) {
    this.set(cid.toString(), { cid, block });
    return cid;
  }
}

const MIB = 1024 * 1024;
const stock = {
  cidVersion: 1, rawLeaves: true, reduceSingleLeafToSelf: true, wrapWithDirectory: false,
  chunker: fixedSize({ chunkSize: MIB }), layout: balanced({ maxChildrenPerNode: 1024 }),
};

async function add(files, store, options) {
  let last;
  for await (const entry of importer(files, store, options)) last = entry;
  return last;
}

/** Zeros that need no memory, or the content of a vector. */
function* bytes(kind, len) {
  if (kind !== 'zeros') return yield content(kind, len);
  const zeros = Buffer.alloc(MIB);
  for (let at = 0; at < len; at += MIB) yield zeros.subarray(0, Math.min(MIB, len - at));
}

function entries(dir) {
  return fs.readdirSync(dir, { recursive: true, withFileTypes: true }).filter((e) => e.isFile())
    .map((e) => path.relative(dir, path.join(e.parentPath ?? e.path, e.name)))
    .map((f) => ({ path: f, content: fs.readFileSync(path.join(dir, f)) }));
}

async function save(root, store, file) {
  const { writer, out } = CarWriter.create([root]);
  const done = (async () => {
    const sink = fs.createWriteStream(file);
    for await (const part of out) sink.write(part);
    await new Promise((resolve) => sink.end(resolve));
  })();
  for (const { cid, block } of store.values()) await writer.put({ cid, bytes: block });
  await writer.close();
  await done;
}

const [, , verb, ...args] = process.argv;
if (verb === 'vectors') {
  const vectors = JSON.parse(fs.readFileSync(args[0], 'utf8'));
  assert.equal(vectors.profile, 'unixfs-v1-2025');
  for (const v of vectors.files) {
    const sink = { put: (cid) => cid, has: () => false };
    const root = await add([{ path: 'f', content: bytes(v.content, v.len) }], sink, stock);
    assert.equal(root.cid.toString(), v.cid, `${v.content} ${v.len}`);
    assert.equal(Number(root.size), v.dag_size, `${v.content} ${v.len}: dag_size`);
    console.log(`ok: ${v.content} ${v.len}: ${v.cid}`);
  }
} else if (verb === 'folder') {
  const [dir, printed] = args;
  const root = await add(entries(dir), new Blocks(), { ...stock, wrapWithDirectory: true });
  assert.equal(root.cid.toString(), printed, 'the program prints another CID for the folder');
  console.log(`ok: the folder under the stock profile: ${printed}`);
} else if (verb === 'foreign') {
  const [dir, out] = args;
  const small = { ...stock, chunker: fixedSize({ chunkSize: 4096 }), wrapWithDirectory: true };
  const shapes = {
    'dag-pb-leaves': { ...small, rawLeaves: false, reduceSingleLeafToSelf: false },
    'raw-type-leaves': { ...small, rawLeaves: false, leafType: 'raw', reduceSingleLeafToSelf: true },
    'cid-v0': { ...small, cidVersion: 0, rawLeaves: false, layout: balanced({ maxChildrenPerNode: 174 }) },
    'trickle': { ...small, layout: trickle({ layerRepeat: 4, maxChildrenPerNode: 11 }) },
    'trickle-v0': { ...small, cidVersion: 0, rawLeaves: false, layout: trickle({ layerRepeat: 4, maxChildrenPerNode: 11 }) },
    'sharded': { ...small, shardSplitThresholdBytes: 1 },
    'sharded-v0': { ...small, cidVersion: 0, rawLeaves: false, shardSplitThresholdBytes: 1 },
    'sharded-narrow': { ...small, shardSplitThresholdBytes: 1, shardFanoutBits: 4 },
  };
  for (const [name, options] of Object.entries(shapes)) {
    const store = new Blocks();
    const files = entries(dir).map((f) => (name === 'dag-pb-leaves' ? { ...f, mode: 0o755, mtime: { secs: 1n, nsecs: 5 } } : f));
    const root = await add(files, store, options);
    await save(root.cid, store, path.join(out, `${name}.car`));
    console.log(`${name} ${root.cid}`);
  }
  // A folder that lies: an entry stands in a shard where its name's hash doesn't lead.
  const dagPb = await import('@ipld/dag-pb');
  const { sha256 } = await import('multiformats/hashes/sha2');
  const store = new Blocks();
  const root = await add(entries(dir), store, shapes.sharded);
  const node = dagPb.decode(store.get(root.cid.toString()).block);
  const victim = node.Links.find((l) => l.Name.length > 2);
  victim.Name = `${victim.Name}x`;
  const block = dagPb.encode(dagPb.prepare(node));
  const lie = CID.createV1(dagPb.code, await sha256.digest(block));
  store.put(lie, block);
  await save(lie, store, path.join(out, 'lie.car'));
  console.log(`lie ${lie}`);
} else {
  throw new Error(`no verb ${verb}`);
}
