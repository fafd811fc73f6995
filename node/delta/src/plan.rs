//! What a delta says before the first byte is made: how both programs lie in memory, what the old file's ranges hold, and
//! which stretch comes from where. One code for both sides: see [`crate::coder`].

use crate::align::Command;
use crate::coder::{Bits, Flag, Number, fold, unfold};
use crate::error::{DeltaError, MAX_COMMANDS, MAX_MARKS, MAX_RANGES, MAX_SEGMENTS, bounded};
use crate::fields::{Kind, Range};
use crate::image::{Image, Segment};

/// The plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The old program's segments; none if it is no program.
    pub old: Image,
    /// The new program's segments.
    pub new: Image,
    /// Ranges of the old file, sorted, apart from each other.
    pub ranges: Vec<Range>,
    /// What to copy from where, in the order of the new file.
    pub commands: Vec<Command>,
}

/// What a delta promises and starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the old file.
    pub old: u64,
    /// Bytes of the new file.
    pub new: u64,
}

const MALFORMED_SPAN: DeltaError =
    DeltaError::Malformed("a program's addresses span 4 GiB or more, or wrap around");

impl Plan {
    /// Codes a plan. A decoder passes an empty one and gets the one that was found, checked against every bound.
    pub fn code<B: Bits>(&self, bits: &mut B, sizes: Sizes) -> Result<Self, DeltaError> {
        let mut small = Number::default();
        let old = image(bits, &mut small, &self.old, sizes.old)?;
        let new = image(bits, &mut small, &self.new, sizes.new)?;
        let ranges = ranges(bits, &mut small, &self.ranges, sizes.old)?;
        let commands = commands(bits, &self.commands, sizes)?;
        Ok(Self {
            old,
            new,
            ranges,
            commands,
        })
    }
}

fn image<B: Bits>(
    bits: &mut B,
    number: &mut Number,
    image: &Image,
    file_len: u64,
) -> Result<Image, DeltaError> {
    let given = image.segments();
    let count = bounded(
        "segments",
        number.code(bits, given.len() as u64),
        MAX_SEGMENTS,
    )?;
    let mut segments = Vec::new();
    for i in 0..count as usize {
        let s = given.get(i).copied().unwrap_or(Segment {
            offset: 0,
            address: 0,
            len: 0,
            memory_len: 0,
        });
        let s = Segment {
            offset: number.code(bits, s.offset),
            address: number.code(bits, s.address),
            len: number.code(bits, s.len),
            memory_len: number.code(bits, s.memory_len),
        };
        if s.offset.checked_add(s.len).is_none_or(|end| end > file_len) || s.len > s.memory_len {
            return Err(DeltaError::Malformed("a segment lies outside its file"));
        }
        if s.address.checked_add(s.memory_len).is_none() {
            return Err(MALFORMED_SPAN);
        }
        segments.push(s);
    }
    let image = Image::new(segments);
    if image.span() > u64::from(u32::MAX) {
        return Err(MALFORMED_SPAN);
    }
    Ok(image)
}

fn ranges<B: Bits>(
    bits: &mut B,
    number: &mut Number,
    given: &[Range],
    old_len: u64,
) -> Result<Vec<Range>, DeltaError> {
    let count = bounded("ranges", number.code(bits, given.len() as u64), MAX_RANGES)?;
    let (mut steps, mut values) = (Number::default(), Number::default());
    let mut out = Vec::new();
    let (mut end, mut all_marks) = (0u64, 0u64);
    for i in 0..count as usize {
        let r = given.get(i);
        let gap = number.code(bits, r.map_or(0, |r| r.offset.wrapping_sub(end)));
        let len = number.code(bits, r.map_or(0, |r| r.len));
        let kind = number.code(bits, r.map_or(0, |r| r.kind as u64));
        let new_base = number.code(bits, r.map_or(0, |r| r.new_base));
        let marks = number.code(bits, r.map_or(0, |r| r.marks.len() as u64));
        let offset = end.checked_add(gap);
        let next = offset
            .and_then(|o| o.checked_add(len))
            .filter(|n| *n <= old_len);
        let (Some(offset), Some(next)) = (offset, next) else {
            return Err(DeltaError::Malformed("a range lies outside the old file"));
        };
        end = next;
        let kind = Kind::from_number(kind)
            .ok_or(DeltaError::Malformed("a range is of a kind not known here"))?;
        all_marks = bounded("marks", all_marks.saturating_add(marks), MAX_MARKS)?;
        // Each mark of a decoder's plan takes bytes of the structure, so that the memory is bounded by its size as well.
        let mut list = Vec::new();
        let mut last = 0u64;
        for m in 0..marks as usize {
            let mark = r.and_then(|r| r.marks.get(m)).copied().unwrap_or((0, 0));
            let step = steps.code(bits, mark.0.wrapping_sub(last));
            let value = bounded(
                "entries of a mark",
                values.code(bits, u64::from(mark.1)),
                len,
            )?;
            last = last
                .checked_add(step)
                .filter(|l| *l < len && (m == 0 || step > 0))
                .ok_or(DeltaError::Malformed("a mark lies outside its range"))?;
            list.push((last, value as u32));
        }
        if kind == Kind::Jumps && overlap(&list) {
            return Err(DeltaError::Malformed("jump tables overlap"));
        }
        out.push(Range {
            offset,
            len,
            kind,
            marks: list,
            new_base,
        });
    }
    Ok(out)
}

fn overlap(tables: &[(u64, u32)]) -> bool {
    tables
        .windows(2)
        .any(|w| w[0].0 + 4 * u64::from(w[0].1) > w[1].0)
}

/// Recent differences between places in the old and the new file that a command may name in short.
const RECENT: usize = 4;

fn commands<B: Bits>(
    bits: &mut B,
    given: &[Command],
    sizes: Sizes,
) -> Result<Vec<Command>, DeltaError> {
    let mut number = Number::default();
    let count = bounded(
        "commands",
        number.code(bits, given.len() as u64),
        MAX_COMMANDS,
    )?;
    let (mut lens, mut extras) = (vec![Number::default(); 8], vec![Number::default(); 8]);
    let mut known = [Flag::default(); RECENT + 1];
    let mut jumps = Number::default();
    let mut recent = [0i64; RECENT];
    let mut out = Vec::new();
    let (mut new, mut context) = (0u64, 0usize);
    for i in 0..count as usize {
        let c = given.get(i).copied().unwrap_or(Command {
            old: 0,
            len: 0,
            extra: 0,
        });
        let shift = (c.old as i64).wrapping_sub(new as i64);
        let place = recent.iter().position(|r| *r == shift);
        let mut found = RECENT;
        for (n, flag) in known.iter_mut().enumerate().take(RECENT) {
            if flag.code(bits, place == Some(n)) {
                found = n;
                break;
            }
        }
        let shift = if found < RECENT {
            recent[found]
        } else {
            recent[0].wrapping_add(unfold(
                jumps.code(bits, fold(shift.wrapping_sub(recent[0]))),
            ))
        };
        recent.copy_within(0..found.min(RECENT - 1), 1);
        recent[0] = shift;
        let len = lens[context].code(bits, c.len);
        let len_class = (64 - len.leading_zeros() as usize) / 2;
        let extra = extras[len_class.min(7)].code(bits, c.extra);
        context = ((64 - extra.leading_zeros() as usize) / 2).min(7);
        let old = (new as i64).wrapping_add(shift) as u64;
        if len > 0 && old.checked_add(len).is_none_or(|end| end > sizes.old) {
            return Err(DeltaError::Malformed("a copy reaches outside the old file"));
        }
        new = new
            .checked_add(len)
            .and_then(|n| n.checked_add(extra))
            .filter(|n| *n <= sizes.new)
            .ok_or(DeltaError::Malformed(
                "the commands make more than the new file",
            ))?;
        if len == 0 && extra == 0 {
            return Err(DeltaError::Malformed("a command makes nothing"));
        }
        out.push(Command { old, len, extra });
    }
    if new != sizes.new {
        return Err(DeltaError::Malformed(
            "the commands make less than the new file",
        ));
    }
    Ok(out)
}
