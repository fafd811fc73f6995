//! Bytes read by place, never changed: the old file and the delta.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::coder::Feed;

/// Something that can be read at any place.
pub trait Source: Sync {
    /// Its bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has none.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `out` from `place` on.
    fn read_exact_at(&self, out: &mut [u8], place: u64) -> io::Result<()>;
}

impl Source for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read_exact_at(&self, out: &mut [u8], place: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, out, place)
    }
}

impl Source for &[u8] {
    fn len(&self) -> io::Result<u64> {
        Ok(<[u8]>::len(self) as u64)
    }
    fn read_exact_at(&self, out: &mut [u8], place: u64) -> io::Result<()> {
        let bytes = usize::try_from(place)
            .ok()
            .and_then(|p| self.get(p..p.checked_add(out.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }
}

/// Bytes read from a source at once.
const WINDOW_BYTES: usize = 64 * 1024;

/// A part of a source, read from its start to its end.
pub struct Part<'a> {
    source: &'a (dyn Source + 'a),
    next: u64,
    end: u64,
    window: Vec<u8>,
    at: usize,
    over: u32,
    failed: bool,
}

impl<'a> Part<'a> {
    /// `len` bytes from `start` on.
    pub fn new(source: &'a (dyn Source + 'a), start: u64, len: u64) -> Self {
        Self {
            source,
            next: start,
            end: start + len,
            window: Vec::new(),
            at: 0,
            over: 0,
            failed: false,
        }
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let len = (self.end - self.next).min(WINDOW_BYTES as u64) as usize;
        self.window.resize(len, 0);
        self.at = 0;
        self.source.read_exact_at(&mut self.window, self.next)?;
        self.next += len as u64;
        Ok(len > 0)
    }
}

impl Part<'_> {
    #[cold]
    fn next_window(&mut self) -> u8 {
        if !self.failed && self.fill().is_err() {
            self.window.clear();
            self.failed = true;
        }
        match self.window.first() {
            Some(byte) => {
                self.at = 1;
                *byte
            }
            None => {
                self.over = self.over.saturating_add(1);
                0
            }
        }
    }
}

/// A coder asks for four bytes past the end of what it codes at most.
const SLACK: u32 = 4;

impl Feed for Part<'_> {
    #[inline]
    fn next(&mut self) -> u8 {
        match self.window.get(self.at) {
            Some(byte) => {
                self.at += 1;
                *byte
            }
            None => self.next_window(),
        }
    }

    fn overrun(&self) -> bool {
        self.failed || self.over > SLACK
    }
}

impl Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.window.len() && !self.fill()? {
            return Ok(0);
        }
        let n = out.len().min(self.window.len() - self.at);
        out[..n].copy_from_slice(&self.window[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
