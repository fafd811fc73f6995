//! The header of an archive: a DAG-CBOR map of two keys, spelled in exactly one way.

use cid::Cid;

/// Longest header that is read.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Most roots that are read.
pub const MAX_ROOTS: usize = 1024;

const MAP_OF_TWO: u8 = 0xa2;
const TAG_CID: [u8; 2] = [0xd8, 0x2a];
const UINT: u8 = 0;
const BYTES: u8 = 2;
const ARRAY: u8 = 4;

/// `{"roots": […], "version": 1}`; DAG-CBOR sorts keys by length.
pub(super) fn encode(roots: &[Cid]) -> Vec<u8> {
    let mut out = vec![MAP_OF_TWO];
    out.extend_from_slice(b"\x65roots");
    head(&mut out, ARRAY, roots.len() as u64);
    for root in roots {
        let bytes = root.to_bytes();
        out.extend_from_slice(&TAG_CID);
        head(&mut out, BYTES, bytes.len() as u64 + 1);
        // In CBOR a CID has the prefix of binary multibase.
        out.push(0);
        out.extend_from_slice(&bytes);
    }
    out.extend_from_slice(b"\x67version\x01");
    out
}

fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    match value {
        0..=23 => out.push(major | value as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        _ => {
            out.push(major | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
    }
}

/// The roots of a header of version 1.
pub(super) fn decode(header: &[u8]) -> Result<Vec<Cid>, &'static str> {
    let mut at = At(header);
    at.literal(&[MAP_OF_TWO])
        .map_err(|_| "its header is no map of roots and version")?;
    at.literal(b"\x65roots")?;
    let count = at.number(ARRAY)?;
    if count > MAX_ROOTS as u64 {
        return Err("it has more than 1024 roots");
    }
    let mut roots = Vec::new();
    for _ in 0..count {
        at.literal(&TAG_CID)?;
        let length = at.number(BYTES)?;
        let bytes = at.take(usize::try_from(length).map_err(|_| "its header is cut off")?)?;
        let bytes = bytes.strip_prefix(&[0]).ok_or("a root has no address")?;
        roots.push(Cid::try_from(bytes).map_err(|_| "a root has no address")?);
    }
    at.literal(b"\x67version")?;
    if at.number(UINT)? != 1 {
        return Err("its version is neither 1 nor 2");
    }
    match at.0 {
        [] => Ok(roots),
        _ => Err("something follows its header"),
    }
}

struct At<'a>(&'a [u8]);

impl<'a> At<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("its header is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn literal(&mut self, wanted: &[u8]) -> Result<(), &'static str> {
        match self.take(wanted.len())? == wanted {
            true => Ok(()),
            false => Err("its header is not that of an archive"),
        }
    }

    fn number(&mut self, major: u8) -> Result<u64, &'static str> {
        let first = self.take(1)?[0];
        if first >> 5 != major {
            return Err("its header is not that of an archive");
        }
        let wide = match first & 0x1f {
            small @ 0..=23 => return Ok(u64::from(small)),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return Err("its header is not that of an archive"),
        };
        let bytes = self.take(wide)?;
        Ok(bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }
}
