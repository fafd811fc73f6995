//! Where a byte of the old file went: the commands, asked by place in the old file.

use crate::align::Command;

#[derive(Clone, Copy, Debug)]
struct Span {
    old: u64,
    len: u64,
    new: u64,
}

/// The map.
#[derive(Debug)]
pub struct Map {
    spans: Vec<Span>,
    shift: u32,
    heads: Vec<u32>,
}

impl Map {
    /// Builds the map.
    pub fn new(commands: &[Command], old_len: u64) -> Self {
        let mut new = 0;
        let mut spans = Vec::with_capacity(commands.len());
        for c in commands {
            if c.len > 0 {
                spans.push(Span {
                    old: c.old,
                    len: c.len,
                    new,
                });
            }
            new += c.len + c.extra;
        }
        spans.sort_by_key(|s| (s.old, s.new));
        let mut shift = 8;
        while old_len >> shift > 1 << 20 {
            shift += 1;
        }
        let mut heads = Vec::with_capacity((old_len >> shift) as usize + 2);
        let mut i = 0;
        for b in 0..(old_len >> shift) + 2 {
            while i < spans.len() && spans[i].old < b << shift {
                i += 1;
            }
            heads.push(i as u32);
        }
        Self {
            spans,
            shift,
            heads,
        }
    }

    /// The place in the new file of a place in the old one: exact inside a copy, else counted on from the copy before.
    #[inline]
    pub fn get(&self, old: u64) -> Option<(u64, bool)> {
        let bucket = ((old >> self.shift) as usize).min(self.heads.len() - 2);
        let (from, to) = (self.heads[bucket] as usize, self.heads[bucket + 1] as usize);
        // Spans that start in later buckets start later, those of earlier ones earlier.
        let after = from + self.spans[from..to].partition_point(|s| s.old <= old);
        let i = after.saturating_sub(1);
        let s = self.spans.get(i)?;
        Some((
            old.wrapping_sub(s.old).wrapping_add(s.new),
            old.wrapping_sub(s.old) < s.len,
        ))
    }
}
