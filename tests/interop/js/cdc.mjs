// FastCDC with the parameters of `instar-cdc-v1`, written from docs/formats/chunks.md. 64-bit words are two halves.
import crypto from 'node:crypto';

const [MIN, AVG, MAX] = [8192, 32768, 131072];
const [STRICT_HI, STRICT_LO, LOOSE_HI, LOOSE_LO] = [0xd907, 0x03537000, 0xd903, 0x03530000];
const HI = new Uint32Array(256);
const LO = new Uint32Array(256);
for (let b = 0; b < 256; b++) {
  const digest = crypto.createHash('md5').update(Buffer.alloc(64, b)).digest();
  [HI[b], LO[b]] = [digest.readUInt32BE(0), digest.readUInt32BE(4)];
}

/** The length of the first chunk of what remains. */
function cut(data, from) {
  const n = Math.min(data.length - from, MAX);
  if (n <= MIN) return n;
  const even = (x) => x - (x % 2);
  const [end, center] = [even(n), even(Math.min(n, AVG))];
  let [hi, lo] = [0, 0];
  for (let i = MIN; i < end; i++) {
    const byte = data[from + i];
    const low = ((lo << 1) >>> 0) + LO[byte];
    hi = ((hi << 1) | (lo >>> 31)) + HI[byte] + (low > 0xffffffff ? 1 : 0) >>> 0;
    lo = low >>> 0;
    if (i < center ? (hi & STRICT_HI) === 0 && (lo & STRICT_LO) === 0 : (hi & LOOSE_HI) === 0 && (lo & LOOSE_LO) === 0) return i;
  }
  return n;
}

/** The chunks of `data`, as views. */
export function* chunks(data) {
  for (let at = 0; at < data.length;) {
    const length = cut(data, at);
    yield data.subarray(at, at + length);
    at += length;
  }
}

/** The content of a vector: see "Vectors" in docs/formats/chunks.md. */
export function content(kind, len) {
  const stream = (n) => {
    const bytes = Buffer.alloc(n + 32);
    for (let i = 0; i * 32 < n; i++) {
      const counter = Buffer.alloc(8);
      counter.writeBigUInt64BE(BigInt(i));
      crypto.createHash('sha256').update('instar/vector/v1\0').update(counter).digest().copy(bytes, i * 32);
    }
    return bytes.subarray(0, n);
  };
  const make = {
    stream: () => stream(len),
    zeros: () => Buffer.alloc(len),
    period: () => Buffer.alloc(len, stream(1000)),
    spliced: () => {
      const [bytes, at] = [stream(len - 6), Math.floor(len / 2)];
      return Buffer.concat([bytes.subarray(0, at), Buffer.from('instar'), bytes.subarray(at)]);
    },
  }[kind];
  if (!make) throw new Error(`no content kind ${kind}`);
  return make();
}
