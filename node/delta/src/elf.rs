//! Reads what of an ELF file helps to predict it. Only the maker of a delta does: whoever applies it is told.

use crate::fields::{Kind, Range};
use crate::image::{Image, Segment};

/// What was found in a file.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Segments.
    pub image: Image,
    /// Named sections: name, kind, offset, len, address.
    pub sections: Vec<Section>,
}

/// A section whose kind is known.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Place in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Address.
    pub address: u64,
    /// How addresses are found in it.
    pub kind: Option<Kind>,
}

fn bytes_at<const N: usize>(b: &[u8], at: usize) -> Option<[u8; N]> {
    b.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u16::from_le_bytes(bytes_at(b, at)?)))
}

fn u32_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(bytes_at(b, at)?)))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes_at(b, at)?))
}

/// A stretch that lies in the file, and in the address space.
fn fits(b: &[u8], offset: u64, len: u64, address: u64, memory_len: u64) -> Option<()> {
    let inside = offset.checked_add(len)? <= b.len() as u64 && len <= memory_len;
    address.checked_add(memory_len)?;
    inside.then_some(())
}

/// The layout of a 64-bit little-endian ELF file for x86-64; nothing for anything else.
pub fn layout(b: &[u8]) -> Option<Layout> {
    if b.get(..6)? != b"\x7fELF\x02\x01" || u16_at(b, 18)? != 62 {
        return None;
    }
    let mut segments = Vec::new();
    let (phoff, phnum) = (u64_at(b, 32)? as usize, u16_at(b, 56)? as usize);
    for i in 0..phnum {
        let p = phoff.checked_add(i * 56).filter(|p| *p < b.len())?;
        if u32_at(b, p)? == 1 {
            let segment = Segment {
                offset: u64_at(b, p + 8)?,
                address: u64_at(b, p + 16)?,
                len: u64_at(b, p + 32)?,
                memory_len: u64_at(b, p + 40)?,
            };
            fits(
                b,
                segment.offset,
                segment.len,
                segment.address,
                segment.memory_len,
            )?;
            segments.push(segment);
        }
    }
    let (shoff, shnum, shstr) = (
        u64_at(b, 40)? as usize,
        u16_at(b, 60)? as usize,
        u16_at(b, 62)? as usize,
    );
    let strings = u64_at(b, shoff.checked_add(shstr * 64 + 24)?)? as usize;
    let mut sections = Vec::new();
    for i in 0..shnum {
        let s = shoff.checked_add(i * 64).filter(|s| *s < b.len())?;
        let name_at = strings.checked_add(u32_at(b, s)? as usize)?;
        let name = b.get(name_at..)?;
        let name = &name[..name.iter().position(|c| *c == 0)?];
        let name = String::from_utf8_lossy(name).into_owned();
        let (kind, flags) = (u32_at(b, s + 4)?, u64_at(b, s + 8)?);
        if kind == 8 || kind == 0 {
            continue;
        }
        let guess = match name.as_str() {
            ".rela.dyn" | ".rela.plt" => Some(Kind::Rela64),
            ".eh_frame_hdr" => Some(Kind::Words32),
            ".eh_frame" => Some(Kind::Frames),
            ".rodata" => Some(Kind::Jumps),
            _ if flags & 4 != 0 => Some(Kind::CodeX64),
            _ if flags & 1 != 0 && flags & 2 != 0 => Some(Kind::Words64),
            _ => None,
        };
        let section = Section {
            name,
            offset: u64_at(b, s + 24)?,
            len: u64_at(b, s + 32)?,
            address: u64_at(b, s + 16)?,
            kind: guess,
        };
        fits(b, section.offset, section.len, section.address, section.len)?;
        sections.push(section);
    }
    sections.sort_by_key(|s| s.offset);
    // Only a damaged file has sections that overlap; the first one counts.
    let mut end = 0;
    sections.retain(|s: &Section| {
        let apart = s.offset >= end;
        if apart {
            end = s.offset + s.len;
        }
        apart
    });
    Some(Layout {
        image: Image::new(segments),
        sections,
    })
}

/// The ranges of a file in which addresses can be found.
pub fn ranges(b: &[u8], layout: &Layout, new: &Layout) -> Vec<Range> {
    let tables = tables(b, layout);
    layout
        .sections
        .iter()
        .filter_map(|s| {
            let kind = s.kind?;
            let marks = match kind {
                Kind::Jumps => tables
                    .iter()
                    .filter(|(at, _)| (s.address..s.address + s.len).contains(at))
                    .map(|(at, n)| (at - s.address, *n))
                    .collect(),
                Kind::Frames => commons(section(b, s)?),
                _ => Vec::new(),
            };
            Some(Range {
                offset: s.offset,
                len: s.len,
                kind,
                marks,
                new_base: match kind {
                    Kind::Words32 => new
                        .sections
                        .iter()
                        .find(|n| n.name == s.name)
                        .map_or(0, |n| n.address),
                    _ => 0,
                },
            })
        })
        .collect()
}

fn section<'a>(b: &'a [u8], s: &Section) -> Option<&'a [u8]> {
    b.get(s.offset as usize..s.offset.checked_add(s.len)? as usize)
}

/// Jump tables: where code takes the address of read-only data that reads as offsets into code.
fn tables(b: &[u8], layout: &Layout) -> Vec<(u64, u32)> {
    let mut found = Vec::new();
    for s in layout
        .sections
        .iter()
        .filter(|s| s.kind == Some(Kind::CodeX64))
    {
        let Some(code) = section(b, s) else { continue };
        for (i, w) in code.windows(7).enumerate() {
            if (w[0] == 0x48 || w[0] == 0x4C) && w[1] == 0x8D && w[2] & 0xC7 == 5 {
                let v = i64::from(i32::from_le_bytes([w[3], w[4], w[5], w[6]]));
                found.push((s.address + i as u64 + 7).wrapping_add(v as u64));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    let mut out = Vec::new();
    for (i, at) in found.iter().enumerate() {
        let Some(s) = layout
            .sections
            .iter()
            .find(|s| s.kind == Some(Kind::Jumps) && (s.address..s.address + s.len).contains(at))
        else {
            continue;
        };
        if at % 4 != 0 {
            continue;
        }
        let end = found
            .get(i + 1)
            .copied()
            .unwrap_or(u64::MAX)
            .min(s.address + s.len);
        let mut n = 0u32;
        while at + u64::from(n) * 4 + 4 <= end {
            let place = (s.offset + (at - s.address)) as usize + n as usize * 4;
            let Some(v) = u32_at(b, place) else { break };
            let target = at.wrapping_add(i64::from(v as u32 as i32) as u64);
            let code = layout.sections.iter().any(|c| {
                c.kind == Some(Kind::CodeX64) && (c.address..c.address + c.len).contains(&target)
            });
            if !code {
                break;
            }
            n += 1;
        }
        if n >= 3 {
            out.push((*at, n));
        }
    }
    out
}

/// Common frame records (CIEs) of `.eh_frame`, and whether the frames that name them have handlers.
fn commons(b: &[u8]) -> Vec<(u64, u32)> {
    let mut out = Vec::new();
    let mut at = 0usize;
    while let Some(len) = u32_at(b, at) {
        if len == 0 || len >= 0xFFFF_FFF0 {
            break;
        }
        if u32_at(b, at + 4) == Some(0) {
            let handlers = b[at + 9..]
                .iter()
                .take(8)
                .take_while(|c| **c != 0)
                .any(|c| *c == b'L');
            out.push((at as u64, u32::from(handlers)));
        }
        at += 4 + len as usize;
    }
    out
}
