//! Reads ahead of the corrections: what the new file takes of the old one, and the addresses in it. Nothing of this depends
//! on what was decoded, so that it has a thread of its own.

use std::sync::mpsc::SyncSender;

use crate::correct::{PIECE_BYTES, fields_of};
use crate::error::DeltaError;
use crate::fields::{Field, Kind};
use crate::make::{follows_code, pieces};
use crate::plan::Plan;
use crate::source::Source;

/// A stretch of the new file, in which literals are still missing and addresses are still the old ones.
#[derive(Default)]
pub struct Stretch {
    /// Its bytes: fewer than two pieces of [`PIECE_BYTES`].
    pub bytes: Vec<u8>,
    /// What it is made of, in order.
    pub parts: Vec<Part>,
    /// The fields of all its parts, in order.
    pub fields: Vec<Field>,
}

/// A part of a stretch, at most [`PIECE_BYTES`] long.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its bytes.
    pub len: usize,
    /// Where they come from.
    pub from: From,
}

/// Where bytes of the new file come from.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// The old file; so many fields were found in them, and they are machine code or not.
    Old {
        /// Whether they are machine code.
        code: bool,
        /// How many fields.
        fields: usize,
    },
    /// Nowhere; they are still zero, and will be machine code or not.
    Literals {
        /// Whether they are machine code.
        code: bool,
    },
}

/// Reads all that `plan` takes of the old file, until it is handed on or nobody wants it any more.
pub fn read_ahead(
    old: &dyn Source,
    old_len: u64,
    plan: &Plan,
    to: &SyncSender<Result<Stretch, DeltaError>>,
) {
    let mut reader = Reader::new(old, old_len);
    let mut stretch = Stretch::default();
    let mut place = 0;
    for command in &plan.commands {
        for (range, from, len) in pieces(&plan.ranges, command) {
            let start = stretch.bytes.len();
            stretch.bytes.resize(start + len, 0);
            if let Err(error) = reader.read(&mut stretch.bytes[start..], from) {
                // Whoever hung up knows why.
                let _ = to.send(Err(error));
                return;
            }
            let before = stretch.fields.len();
            let (bytes, fields) = (&stretch.bytes[start..], &mut stretch.fields);
            fields_of(plan, range, from, place, bytes, fields);
            let from = From::Old {
                code: range.is_some_and(|r| r.kind == Kind::CodeX64),
                fields: fields.len() - before,
            };
            place += len as u64;
            if stretch.add(len, from, to).is_none() {
                return;
            }
        }
        let code = follows_code(&plan.ranges, command);
        let end = place + command.extra;
        while place < end {
            let len = (end - place).min(PIECE_BYTES as u64) as usize;
            stretch.bytes.resize(stretch.bytes.len() + len, 0);
            place += len as u64;
            if stretch.add(len, From::Literals { code }, to).is_none() {
                return;
            }
        }
    }
    if !stretch.parts.is_empty() {
        // As above.
        let _ = to.send(Ok(stretch));
    }
}

impl Stretch {
    /// Adds a part whose bytes are there, and hands the stretch on when it is long enough; `None` if nobody wants it.
    fn add(
        &mut self,
        len: usize,
        from: From,
        to: &SyncSender<Result<Self, DeltaError>>,
    ) -> Option<()> {
        self.parts.push(Part { len, from });
        if self.bytes.len() < PIECE_BYTES {
            return Some(());
        }
        let next = Self {
            bytes: Vec::with_capacity(2 * PIECE_BYTES),
            parts: Vec::with_capacity(self.parts.len()),
            fields: Vec::with_capacity(self.fields.len()),
        };
        to.send(Ok(std::mem::replace(self, next))).ok()
    }
}

/// The old file, read in windows: most copies start close to where the one before ended.
struct Reader<'a> {
    old: &'a dyn Source,
    len: u64,
    windows: Vec<(u64, Vec<u8>)>,
}

/// Bytes of a window of the old file, and how many are kept: 16 MiB in all.
const OLD_WINDOW_BYTES: u64 = 16 * 1024;
const OLD_WINDOWS: u64 = 1024;

impl<'a> Reader<'a> {
    fn new(old: &'a dyn Source, len: u64) -> Self {
        Self {
            old,
            len,
            windows: vec![(u64::MAX, Vec::new()); OLD_WINDOWS as usize],
        }
    }

    fn read(&mut self, out: &mut [u8], place: u64) -> Result<(), DeltaError> {
        let mut done = 0;
        while done < out.len() {
            let at = place + done as u64;
            let number = at / OLD_WINDOW_BYTES;
            let start = number * OLD_WINDOW_BYTES;
            let (held, window) = &mut self.windows[(number % OLD_WINDOWS) as usize];
            if *held != number {
                *held = u64::MAX;
                window.resize((self.len - start).min(OLD_WINDOW_BYTES) as usize, 0);
                self.old
                    .read_exact_at(window, start)
                    .map_err(DeltaError::io("reading the old file"))?;
                *held = number;
            }
            let from = (at - start) as usize;
            let n = (out.len() - done).min(window.len() - from);
            out[done..done + n].copy_from_slice(&window[from..from + n]);
            done += n;
        }
        Ok(())
    }
}
