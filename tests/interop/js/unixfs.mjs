// Compares the vectors of `instar-cdc-v1`, and one folder, with what the npm UnixFS packages make and read.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import * as dagPb from '@ipld/dag-pb';
import { MemoryBlockstore } from 'blockstore-core';
import { UnixFS } from 'ipfs-unixfs';
import { exporter } from 'ipfs-unixfs-exporter';
import { importer } from 'ipfs-unixfs-importer';
import { balanced } from 'ipfs-unixfs-importer/layout';
import { CID } from 'multiformats/cid';
import { sha256 } from 'multiformats/hashes/sha2';
import { chunks, content } from './cdc.mjs';

const [, , fixture, folder, printed] = process.argv;
const vectors = JSON.parse(fs.readFileSync(fixture, 'utf8'));
assert.equal(vectors.profile, 'instar-cdc-v1');

const options = {
  cidVersion: 1, rawLeaves: true, reduceSingleLeafToSelf: true, leafType: 'raw', wrapWithDirectory: false,
  layout: balanced({ maxChildrenPerNode: 174 }),
  async* chunker(source) {
    const parts = [];
    for await (const part of source) parts.push(part);
    const data = Buffer.concat(parts);
    if (data.length === 0) yield data;
    yield* chunks(data);
  },
};

/** What the importer makes of files; the last one is the root. */
async function add(files, store, more = {}) {
  let last;
  for await (const entry of importer(files, store, { ...options, ...more })) last = entry;
  return last;
}

/** Bytes that the exporter reads. */
async function read(entry) {
  const parts = [];
  for await (const part of entry.content()) parts.push(part);
  return Buffer.concat(parts);
}

// Files: the same CID and size, and the content comes back out of the blocks.
for (const v of vectors.files) {
  const name = `${v.content} ${v.len}`;
  const data = content(v.content, v.len);
  assert.equal(crypto.createHash('sha256').update(data).digest('hex'), v.sha256, name);
  const lengths = [...chunks(data)].map((c) => c.length);
  assert.deepEqual((lengths.length ? lengths : [0]).slice(0, 4), v.first_leaf_lengths, name);
  assert.equal(lengths.length || 1, v.leaves, name);
  const store = new MemoryBlockstore();
  const root = await add([{ path: 'f', content: data }], store);
  assert.equal(root.cid.toString(), v.cid, name);
  assert.equal(Number(root.size), v.dag_size, `${name}: dag_size`);
  const entry = await exporter(CID.parse(v.cid), store);
  assert.equal(Number(entry.size), v.len, name);
  assert((await read(entry)).equals(data), `${name}: the exporter reads other bytes`);
  console.log(`ok: ${name}: ${v.cid}, ${v.leaves} leaves`);
}

// Directories: the codec sorts and writes the links itself, and arrives at the same bytes.
for (const v of vectors.directories) {
  const tree = new Map();
  for (const [file, link] of Object.entries(v.files)) {
    const parts = file.split('/');
    let at = tree;
    for (const part of parts.slice(0, -1)) at = at.set(part, at.get(part) ?? new Map()).get(part);
    at.set(parts.at(-1), { cid: CID.parse(link.cid), size: link.dag_size });
  }
  let directories = 0;
  const write = async (entries) => {
    const links = [];
    for (const [name, entry] of entries) {
      const { cid, size } = entry instanceof Map ? await write(entry) : entry;
      links.push({ Name: name, Hash: cid, Tsize: size });
    }
    const block = dagPb.encode(dagPb.prepare({ Data: new UnixFS({ type: 'directory' }).marshal(), Links: links }));
    directories += 1;
    const size = block.length + links.reduce((sum, l) => sum + l.Tsize, 0);
    return { cid: CID.createV1(dagPb.code, await sha256.digest(block)), size, block };
  };
  const root = await write(tree);
  assert.equal(Buffer.from(root.block).toString('hex'), v.root_block);
  assert.equal(root.cid.toString(), v.cid);
  assert.equal(directories, v.directories);
  console.log(`ok: directory of ${Object.keys(v.files).length} files: ${v.cid}`);
}

// A folder: what the program printed is what the importer finds, and the exporter walks to every file.
const files = fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((e) => e.isFile())
  .map((e) => path.relative(folder, path.join(e.parentPath ?? e.path, e.name)));
const store = new MemoryBlockstore();
const root = await add(files.map((f) => ({ path: f, content: fs.readFileSync(path.join(folder, f)) })), store,
  { wrapWithDirectory: true });
assert.equal(root.cid.toString(), printed, 'the program prints another CID for the folder');
for (const f of files) {
  assert((await read(await exporter(`${printed}/${f}`, store))).equals(fs.readFileSync(path.join(folder, f))), f);
}
console.log(`ok: the folder that the program added: ${printed}, ${files.length} files`);
// The check can fail: one byte more is another root.
fs.appendFileSync(path.join(folder, 'release.json'), '\n');
const other = await add(files.map((f) => ({ path: f, content: fs.readFileSync(path.join(folder, f)) })), store,
  { wrapWithDirectory: true });
assert.notEqual(other.cid.toString(), printed);
