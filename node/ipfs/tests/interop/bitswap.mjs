// Helia's bitswap fetches a file from us, and we fetch one from it, over TCP, noise and yamux.
//
// Node 22; npm i @helia/bitswap@3 libp2p@3 @libp2p/tcp @chainsafe/libp2p-noise @chainsafe/libp2p-yamux \
//   @libp2p/identify @libp2p/logger @multiformats/multiaddr multiformats ipfs-unixfs-importer \
//   ipfs-unixfs-exporter blockstore-core
// cargo run --release -p instar-ipfs --example swarm -- serve FILE prints ADDRESS and CID; then:
// node bitswap.mjs PATH/TO/EXAMPLE/swarm ADDRESS CID FILE
import { createBitswap } from '@helia/bitswap'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { multiaddr } from '@multiformats/multiaddr'
import { MemoryBlockstore } from 'blockstore-core'
import { defaultLogger } from '@libp2p/logger'
import { exporter } from 'ipfs-unixfs-exporter'
import { importFile } from 'ipfs-unixfs-importer'
import { sha256 } from 'multiformats/hashes/sha2'
import { CID } from 'multiformats/cid'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { execFile } from 'node:child_process'
const [,, swarm, addr, cid, file] = process.argv
const libp2p = await createLibp2p({addresses:{listen:['/ip4/127.0.0.1/tcp/0']},transports:[tcp()],connectionEncrypters:[noise()],streamMuxers:[yamux()],services:{identify:identify()}})
const blockstore = new MemoryBlockstore()
const routing = { async *findProviders(){}, async provide(){}, }
const bs = createBitswap({libp2p, blockstore, routing, logger: defaultLogger(), peerId: libp2p.peerId, getHasher: async()=>sha256})
await bs.start()
await libp2p.dial(multiaddr(addr))
await new Promise(r=>setTimeout(r,500))
let got=0
const net = { async *get(c, o){ try { for await (const x of blockstore.get(c)) yield x; return } catch {}
   const b = await bs.want(c,{signal:AbortSignal.timeout(20000)}); got++; await blockstore.put(c,b); yield b } }
const h=createHash('sha256');let n=0;const t=Date.now()
const e = await exporter(CID.parse(cid), net)
for await (const c of e.content()) {h.update(c);n+=c.length}
const equal = h.digest('hex')===createHash('sha256').update(readFileSync(file)).digest('hex')
console.log('helia bitswap got',n,'bytes,',got,'blocks in',Date.now()-t,'ms; equal:',equal)
const r = await importFile({content:(async function*(){yield readFileSync(file)})()}, blockstore, {cidVersion:1,rawLeaves:true})
const ma = libp2p.getMultiaddrs()[0].toString()
execFile(swarm,['get',ma,r.cid.toString()],{timeout:60000},async (e,o,er)=>{console.log('we got from helia bitswap:',e?.message??'',o,er); process.exit(e || !equal ? 1 : 0)})
