//! The bytes of the new file that come from nowhere: one LZMA stream, its parameters fixed, so that a hostile delta has
//! nothing to choose.

use std::io::{self, Read, Write};

use lzma_rust2::{LzmaOptions, LzmaReader, LzmaWriter};

/// Literal context bits: what a literal depends on is nearly the whole byte before it.
const LC: u32 = 4;
/// Position bits: machine code has no alignment.
const PB: u32 = 0;
/// The window never exceeds this, which is most of the memory that applying takes.
const MAX_WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// The smallest window that the format has.
const MIN_WINDOW_BYTES: u64 = 4096;

/// The window for that many literals: the next power of two, within bounds.
fn window(bytes: u64) -> u32 {
    bytes
        .clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES)
        .next_power_of_two() as u32
}

/// Compresses.
pub fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut options = LzmaOptions::with_preset(9);
    options.dict_size = window(bytes.len() as u64);
    options.lc = LC;
    options.lp = 0;
    options.pb = PB;
    options.nice_len = 273;
    options.depth_limit = 512;
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false)?;
    writer.write_all(bytes)?;
    writer.finish()
}

/// Decompresses `bytes` bytes as a stream.
pub fn decompress<'a, R: Read + 'a>(from: R, bytes: u64) -> io::Result<Box<dyn Read + 'a>> {
    if bytes == 0 {
        return Ok(Box::new(io::empty()));
    }
    let reader = LzmaReader::new(from, bytes, LC, 0, PB, window(bytes), None)?;
    Ok(Box::new(reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for len in [0usize, 1, 4095, 100_000] {
            let bytes: Vec<u8> = (0..len).map(|i| ((i * i) >> 7) as u8).collect();
            let small = compress(&bytes).unwrap();
            let mut out = Vec::new();
            decompress(&small[..], len as u64)
                .unwrap()
                .read_to_end(&mut out)
                .unwrap();
            assert_eq!(out, bytes);
        }
    }
}
