// The golden vectors of instar-cdc-v1 against the JavaScript UnixFS importer and dag-pb codec, with a
// cutter written from docs/formats/chunks.md alone.
//
// npm i ipfs-unixfs-importer@16 blockstore-core@6, then: node vectors.mjs ../../fixtures/instar-cdc-v1.json
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { importFile } from 'ipfs-unixfs-importer'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { MemoryBlockstore } from 'blockstore-core'
import * as dagPB from '@ipld/dag-pb'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'
import { UnixFS } from 'ipfs-unixfs'

const v = JSON.parse(readFileSync(process.argv[2]))
const stream = n => { const out=[]; let len=0; for (let i=0n; len<n; i++){const b=Buffer.alloc(8); b.writeBigUInt64BE(i); const h=createHash('sha256').update('instar/vector/v1\0').update(b).digest(); out.push(h); len+=32} return Buffer.concat(out).subarray(0,n)}
const content=(k,n)=>{ if(k==='stream')return stream(n); if(k==='zeros')return Buffer.alloc(n); if(k==='period'){const p=stream(1000);const o=Buffer.alloc(n);for(let i=0;i<n;i+=1000)p.copy(o,i);return o} const s=stream(n-6),a=Math.floor(n/2);return Buffer.concat([s.subarray(0,a),Buffer.from('instar'),s.subarray(a)])}
// an independent cutter: md5 gear, 64-bit as two halves
const gh=new Uint32Array(256),gl=new Uint32Array(256)
for(let i=0;i<256;i++){const d=createHash('md5').update(Buffer.alloc(64,i)).digest();gh[i]=d.readUInt32BE(0);gl[i]=d.readUInt32BE(4)}
const MIN=8192,AVG=32768,MAX=131072, S=[0x0000d907,0x03537000], L=[0x0000d903,0x03530000]
function* cuts(d){ let at=0; while(at<d.length){const n=Math.min(d.length-at,MAX);let cut=n;if(n>MIN){let h=0,l=0;const end=n&~1,center=Math.min(n,AVG)&~1;for(let i=MIN;i<end;i++){h=((h<<1)|(l>>>31))>>>0;l=(l<<1)>>>0;const b=d[at+i];const s=l+gl[b];l=s>>>0;h=(h+gh[b]+(s>0xffffffff?1:0))>>>0;const m=i<center?S:L;if(((h&m[0])|(l&m[1]))===0){cut=i;break}}} yield d.subarray(at,at+cut); at+=cut } }
let bad=0
for (const f of v.files){ const d=content(f.content,f.len)
 const bs=new MemoryBlockstore()
 const r=await importFile({content:(async function*(){yield d})()},bs,{cidVersion:1,rawLeaves:true,reduceSingleLeafToSelf:true,leafType:'raw',layout:balanced({maxChildrenPerNode:174}),chunker:async function*(src){for await(const b of src){ if(b.length===0) {yield b} else yield* cuts(Buffer.from(b.subarray?b.subarray():b)) }}})
 const sha=createHash('sha256').update(d).digest('hex')
 const ok=r.cid.toString()===f.cid&&sha===f.sha256&&Number(r.size)===f.dag_size
 if(!ok){bad++;console.log('DIFF',f.content,f.len,r.cid.toString(),f.cid,r.size,f.dag_size)}
}
async function dir(files){ const root={}; for(const[p,l]of Object.entries(files)){const parts=p.split('/');let h=root;for(const x of parts.slice(0,-1))h=(h[x]??={});h[parts.at(-1)]={__leaf:l}}
 const write=async n=>{const Links=[];let size=0;for(const[k,e]of Object.entries(n)){const l=e.__leaf?{cid:CID.parse(e.__leaf.cid),size:e.__leaf.dag_size}:await write(e);Links.push({Name:k,Hash:l.cid,Tsize:l.size});size+=l.size}
 const b=dagPB.encode(dagPB.prepare({Data:new UnixFS({type:'directory'}).marshal(),Links}));return{cid:CID.createV1(dagPB.code,await sha256.digest(b)),size:size+b.length,b}}
 return write(root)}
for(const t of v.directories){const r=await dir(t.files);if(r.cid.toString()!==t.cid||Buffer.from(r.b).toString('hex')!==t.root_block){bad++;console.log('DIRDIFF',r.cid.toString(),t.cid)}}
console.log(`${v.files.length} files, ${v.directories.length} folders, ${bad} differ`)
process.exit(bad === 0 ? 0 : 1)
