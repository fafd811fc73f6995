//! Finds the addresses that a program's bytes hold: calls, jumps, references to data, tables of pointers.

use crate::image::Image;

/// What a range of the old file holds, and so how addresses are found in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Machine code of x86-64.
    CodeX64 = 1,
    /// Addresses of 8 bytes, aligned to the range.
    Words64 = 2,
    /// ELF relocations with addends: 24 bytes each.
    Rela64 = 3,
    /// Offsets of 4 bytes from the range's base.
    Words32 = 4,
    /// Call frame information: `.eh_frame`.
    Frames = 5,
    /// Tables of 4-byte offsets from a table's own start, among other data.
    Jumps = 6,
}

impl Kind {
    /// The kind of that number.
    pub fn from_number(number: u64) -> Option<Self> {
        [
            Self::CodeX64,
            Self::Words64,
            Self::Rela64,
            Self::Words32,
            Self::Frames,
            Self::Jumps,
        ]
        .into_iter()
        .find(|k| *k as u64 == number)
    }
}

/// A range of the old file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What is in there.
    pub kind: Kind,
    /// Places in the range that say more, sorted: starts of jump tables and their entries; starts of common frame
    /// records and whether their frames point to handlers (1) or not (0).
    pub marks: Vec<(u64, u32)>,
    /// Where the range starts in the new program, for [`Kind::Words32`]; else 0.
    pub new_base: u64,
}

/// How a field's bytes say an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 4 bytes, signed, counted from the end of the instruction: `adjust` bytes after the field.
    Relative {
        /// Bytes from the field's start to where it counts from.
        adjust: u8,
    },
    /// 4 bytes, counted from an address of the old program, which moves as addresses do.
    Based {
        /// That address.
        base: u64,
        /// What became of it, where that is known beforehand.
        moved: Option<u64>,
    },
    /// 4 bytes, counted backwards from the field.
    Backward,
    /// 8 bytes: the address.
    Absolute,
}

impl Form {
    /// Bytes of the field.
    #[inline]
    pub fn width(self) -> usize {
        match self {
            Self::Absolute => 8,
            _ => 4,
        }
    }
}

/// A field that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Place in the bytes searched.
    pub at: u32,
    /// How it is written.
    pub form: Form,
    /// The address in the old program.
    pub target: u64,
}

#[inline]
fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from(word32(bytes, at)) | u64::from(word32(bytes, at + 4)) << 32
}

/// 1: a call or jump of one opcode byte; 2: the escape of two-byte opcodes; 3: a ModRM byte for RIP + displacement.
const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    table[0xE8] = 1;
    table[0xE9] = 1;
    table[0x0F] = 2;
    let mut reg = 0;
    while reg < 8 {
        table[reg * 8 + 5] = 3;
        reg += 1;
    }
    table
};

/// Bytes of the immediate operand that follows a displacement, by the opcode before the ModRM byte.
#[inline]
fn immediate(opcode: u8, reg: u8) -> u8 {
    match opcode {
        0x80 | 0x83 | 0xC0 | 0xC1 | 0xC6 | 0x6B => 1,
        0x81 | 0xC7 | 0x69 => 4,
        0xF6 if reg < 2 => 1,
        0xF7 if reg < 2 => 4,
        _ => 0,
    }
}

/// Adds the fields of `bytes`, which start `place` bytes into `range`.
pub fn find(image: &Image, range: &Range, place: u64, bytes: &[u8], out: &mut Vec<Field>) {
    let Some(start) = image.address_of(range.offset.wrapping_add(place)) else {
        return;
    };
    match range.kind {
        Kind::CodeX64 => code_x64(image, start, bytes, out),
        Kind::Words64 => stride(image, place, 8, &[0], bytes, out),
        Kind::Rela64 => stride(image, place, 24, &[0, 16], bytes, out),
        Kind::Words32 => {
            let base = start.wrapping_sub(place);
            let mut at = (place.wrapping_neg() % 4) as usize;
            while at + 4 <= bytes.len() {
                based(image, base, Some(range.new_base), at, bytes, out);
                at += 4;
            }
        }
        Kind::Frames => frames(image, range, start, place, bytes, out),
        Kind::Jumps => jumps(image, range, start, place, bytes, out),
    }
}

fn based(
    image: &Image,
    base: u64,
    moved: Option<u64>,
    at: usize,
    bytes: &[u8],
    out: &mut Vec<Field>,
) {
    let target = base.wrapping_add(i64::from(word32(bytes, at) as i32) as u64);
    if image.holds(target) {
        out.push(Field {
            at: at as u32,
            form: Form::Based { base, moved },
            target,
        });
    }
}

fn jumps(image: &Image, range: &Range, start: u64, place: u64, bytes: &[u8], out: &mut Vec<Field>) {
    let end = place + bytes.len() as u64;
    let first = range.marks.partition_point(|(at, _)| *at <= place);
    let origin = start.wrapping_sub(place);
    for (at, entries) in &range.marks[first.saturating_sub(1)..] {
        if *at >= end {
            break;
        }
        let base = origin.wrapping_add(*at);
        // The entries that lie in the bytes, whole.
        let first = place.saturating_sub(*at).div_ceil(4);
        let last = (end - at) / 4;
        for entry in first..last.min(u64::from(*entries)) {
            let here = at + entry * 4 - place;
            based(image, base, None, here as usize, bytes, out);
        }
    }
}

fn frames(
    image: &Image,
    range: &Range,
    start: u64,
    place: u64,
    bytes: &[u8],
    out: &mut Vec<Field>,
) {
    let mut at = (place.wrapping_neg() % 4) as usize;
    while at + 8 <= bytes.len() {
        let here = place + at as u64;
        let back = u64::from(word32(bytes, at));
        let common = here
            .checked_sub(back)
            .filter(|_| back != 0)
            .and_then(|c| range.marks.binary_search_by_key(&c, |m| m.0).ok());
        let Some(common) = common else {
            at += 4;
            continue;
        };
        let address = start.wrapping_add(at as u64);
        out.push(Field {
            at: at as u32,
            form: Form::Backward,
            target: address.wrapping_sub(back),
        });
        relative(image, start, at + 4, bytes, out);
        let handler = at + 13;
        if range.marks[common].1 == 1 && handler + 4 <= bytes.len() && word32(bytes, handler) != 0 {
            relative(image, start, handler, bytes, out);
            at += 16;
        } else {
            at += 12;
        }
    }
}

fn relative(image: &Image, start: u64, at: usize, bytes: &[u8], out: &mut Vec<Field>) {
    let value = i64::from(word32(bytes, at) as i32) as u64;
    let target = start.wrapping_add(at as u64).wrapping_add(value);
    if image.holds(target) {
        out.push(Field {
            at: at as u32,
            form: Form::Relative { adjust: 0 },
            target,
        });
    }
}

fn stride(
    image: &Image,
    place: u64,
    step: u64,
    at_each: &[u64],
    bytes: &[u8],
    out: &mut Vec<Field>,
) {
    let mut at = (place.wrapping_neg() % 8) as usize;
    while at + 8 <= bytes.len() {
        if at_each.contains(&((place + at as u64) % step)) {
            let target = word64(bytes, at);
            if target != 0 && image.holds(target) {
                out.push(Field {
                    at: at as u32,
                    form: Form::Absolute,
                    target,
                });
            }
        }
        at += 8;
    }
}

fn code_x64(image: &Image, start: u64, bytes: &[u8], out: &mut Vec<Field>) {
    let mut at = 0;
    while at + 5 <= bytes.len() {
        let class = CLASS[bytes[at] as usize];
        if class == 0 {
            at += 1;
            continue;
        }
        let (field, adjust) = match class {
            1 => (at + 1, 4),
            2 if bytes[at + 1] & 0xF0 == 0x80 => (at + 2, 4),
            3 if at > 0 => (at + 1, 4 + immediate(bytes[at - 1], bytes[at] >> 3)),
            _ => {
                at += 1;
                continue;
            }
        };
        if field + 4 > bytes.len() {
            at += 1;
            continue;
        }
        let value = i64::from(word32(bytes, field) as i32);
        let target = start
            .wrapping_add(field as u64 + u64::from(adjust))
            .wrapping_add(value as u64);
        if image.holds(target) {
            out.push(Field {
                at: field as u32,
                form: Form::Relative { adjust },
                target,
            });
            at = field + 4;
        } else {
            at += 1;
        }
    }
}

/// The range that holds a place, or the place where the next one starts (`u64::MAX` if none does).
pub fn range_at(ranges: &[Range], place: u64) -> Result<&Range, u64> {
    let after = ranges.partition_point(|r| r.offset <= place);
    if let Some(before) = after.checked_sub(1).map(|i| &ranges[i])
        && place - before.offset < before.len
    {
        return Ok(before);
    }
    Err(ranges.get(after).map_or(u64::MAX, |r| r.offset))
}
