// A Helia peer on loopback: TCP, noise, yamux, no router, no gateway.
//   serve FOLDER          imports it, prints its address and CID, and serves until it is told to stop
//   lie FOLDER            the same, but one bit of each large raw block is turned on its way out
//   get ADDRESS CID OUT   fetches a folder over bitswap alone, and writes it out
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import { globSource, unixfs } from '@helia/unixfs'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'

const [mode, ...args] = process.argv.slice(2)
const helia = withBitswap(withLibp2pLight(createHeliaLight(), {
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() }
}))
await helia.start()
const fs = unixfs(helia)

if (mode === 'serve' || mode === 'lie') {
  let root
  for await (const entry of fs.addAll(globSource(args[0], '**/*', { hidden: true }), { wrapWithDirectory: true })) root = entry
  if (mode === 'lie') {
    const get = helia.blockstore.get.bind(helia.blockstore)
    helia.blockstore.get = (cid, options) => turned(cid, get(cid, options))
  }
  console.log(`${helia.libp2p.getMultiaddrs()[0]} ${root.cid}`)
  await new Promise(() => setInterval(() => {}, 1000))
}

async function * turned (cid, parts) {
  const bytes = []
  for await (const part of parts[Symbol.asyncIterator] ? parts : [await parts]) bytes.push(part)
  const block = Buffer.concat(bytes)
  if (cid.code === 0x55 && block.length > 1000) block[500] ^= 1
  yield block
}

async function write (cid, out) {
  const entry = await fs.stat(cid)
  if (entry.type === 'directory') {
    mkdirSync(out)
    for await (const child of fs.ls(cid)) await write(child.cid, join(out, child.name))
    return
  }
  const parts = []
  for await (const part of fs.cat(cid)) parts.push(part)
  writeFileSync(out, Buffer.concat(parts))
}

if (mode === 'get') {
  await helia.libp2p.dial(multiaddr(args[0]))
  await write(CID.parse(args[1]), args[2])
  await helia.stop()
  process.exit(0)
}
