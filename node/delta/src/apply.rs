//! Applies a delta, as a stream: the old file is read by places, the new one written from start to end, and memory is
//! bounded whatever the delta says.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest, Sha256};

use crate::absolute::relative;
use crate::coder::Decoder;
use crate::correct::{Corrector, PIECE_BYTES};
use crate::error::{DeltaError, bounded};
use crate::header::{HEADER_BYTES, Header};
use crate::literals;
use crate::make::{follows_code, pieces};
use crate::map::Map;
use crate::plan::Plan;
use crate::predict::Predictor;
use crate::source::{Part, Source};

/// What the caller knows about the file that it wants, from a source that it trusts. A delta that promises another one is
/// refused before anything is written.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// Buffers of [`PIECE_BYTES`] that wait between two threads at most.
const WAITING: usize = 8;

/// Reads a delta's header.
pub fn header(delta: &dyn Source) -> Result<Header, DeltaError> {
    let len = delta.len().map_err(DeltaError::io("reading the delta"))?;
    if len < HEADER_BYTES as u64 {
        return Err(DeltaError::Truncated("header"));
    }
    let mut bytes = [0; HEADER_BYTES];
    delta
        .read_exact_at(&mut bytes, 0)
        .map_err(DeltaError::io("reading the delta"))?;
    Header::from_bytes(&bytes, len)
}

/// Rebuilds the new file from `old` and `delta`, and writes it to `out`. What was written must not be used, and should be
/// deleted, unless this returns without an error: only then its SHA-256 is right.
///
/// Takes at most 64 MiB of memory, the old file not counted, of which nothing is held.
pub fn apply(
    old: &dyn Source,
    delta: &dyn Source,
    wanted: Wanted,
    out: &mut (dyn Write + Send),
) -> Result<(), DeltaError> {
    let header = header(delta)?;
    bounded("bytes of new file", header.sizes.new, wanted.bytes)?;
    if (header.sizes.new, header.new_sha256) != (wanted.bytes, wanted.sha256) {
        return Err(DeltaError::WrongNew {
            wanted: hex(&wanted.sha256),
            found: format!("a promise of {}", hex(&header.new_sha256)),
        });
    }
    let old_len = old.len().map_err(DeltaError::io("reading the old file"))?;
    if old_len != header.sizes.old {
        return Err(DeltaError::WrongOld {
            wanted: format!("{} bytes", header.sizes.old),
            found: format!("{old_len} bytes"),
        });
    }
    let start = HEADER_BYTES as u64;
    let mut bits = Decoder::new(Part::new(delta, start, header.structure));
    let plan = Plan::default().code(&mut bits, header.sizes);
    if bits.overrun() {
        return Err(DeltaError::Truncated("structure"));
    }
    let plan = plan?;
    let literal_bytes: u64 = plan.commands.iter().map(|c| c.extra).sum();
    if literal_bytes != header.literal_bytes {
        return Err(DeltaError::Malformed(
            "its commands want another number of literals",
        ));
    }
    let corrections = Part::new(delta, start + header.structure, header.corrections);
    let literals = Part::new(
        delta,
        start + header.structure + header.corrections,
        header.literals,
    );
    let made = std::thread::scope(|scope| {
        let (to_maker, from_literals) = sync_channel(WAITING);
        let (to_sink, from_maker) = sync_channel(WAITING);
        scope.spawn(move || unpack(literals, literal_bytes, &to_maker));
        let sink = scope.spawn(move || write(&from_maker, out));
        let from = Literals::new(from_literals);
        let made = rebuild(old, &plan, corrections, from, to_sink);
        let written = sink
            .join()
            .expect("the writing thread has no panic of its own");
        match (made, written) {
            // A sink that failed is why the maker could not go on.
            (_, Err(error)) | (Err(Some(error)), Ok(_)) => Err(error),
            (Err(None), Ok(_)) => Err(DeltaError::Malformed("its parts don't fit")),
            (Ok(()), Ok(digest)) => Ok(digest),
        }
    });
    let error = match made {
        Ok(digest) if digest == wanted.sha256 => return Ok(()),
        Ok(digest) => DeltaError::WrongNew {
            wanted: hex(&wanted.sha256),
            found: hex(&digest),
        },
        Err(error @ DeltaError::Io { .. }) => return Err(error),
        Err(error) => error,
    };
    // Either the delta lies or the old file is another one: say which.
    let found = hash(old, old_len)?;
    if found != header.old_sha256 {
        return Err(DeltaError::WrongOld {
            wanted: hex(&header.old_sha256),
            found: hex(&found),
        });
    }
    Err(error)
}

/// A block of literals, or why there are no more.
type Block = std::io::Result<Vec<u8>>;

/// Decompresses the literals, a block at a time, until they are all sent or nobody wants them any more.
fn unpack(from: Part<'_>, bytes: u64, to: &SyncSender<Block>) {
    let mut reader = match literals::decompress(from, bytes) {
        Ok(reader) => reader,
        Err(error) => {
            // Whoever hung up knows why.
            let _ = to.send(Err(error));
            return;
        }
    };
    let mut left = bytes;
    while left > 0 {
        let mut block = vec![0; left.min(PIECE_BYTES as u64) as usize];
        left -= block.len() as u64;
        let result = reader.read_exact(&mut block).map(|()| block);
        let failed = result.is_err();
        if to.send(result).is_err() || failed {
            return;
        }
    }
}

/// The literals as the maker takes them.
struct Literals {
    from: Receiver<Block>,
    block: Vec<u8>,
    at: usize,
}

impl Literals {
    fn new(from: Receiver<Block>) -> Self {
        Self {
            from,
            block: Vec::new(),
            at: 0,
        }
    }

    fn take(&mut self, out: &mut [u8]) -> Result<(), DeltaError> {
        let mut done = 0;
        while done < out.len() {
            if self.at == self.block.len() {
                let next = self
                    .from
                    .recv()
                    .unwrap_or_else(|e| Err(std::io::Error::other(e)));
                self.block = next.map_err(|error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => DeltaError::Truncated("literals"),
                    _ => DeltaError::Malformed("its literals don't decompress"),
                })?;
                self.at = 0;
            }
            let n = (out.len() - done).min(self.block.len() - self.at);
            out[done..done + n].copy_from_slice(&self.block[self.at..self.at + n]);
            self.at += n;
            done += n;
        }
        Ok(())
    }
}

/// Makes the new file. `Err(None)`: the writing end hung up, and knows why.
fn rebuild(
    old: &dyn Source,
    plan: &Plan,
    corrections: Part<'_>,
    mut literals: Literals,
    to: SyncSender<Vec<u8>>,
) -> Result<(), Option<DeltaError>> {
    let old_len = old.len().map_err(DeltaError::io("reading the old file"))?;
    let map = Map::new(&plan.commands, old_len);
    let predictor = Predictor::new(&plan.old, &plan.new, &map);
    let mut corrector = Corrector::new(&plan.old, &plan.new, predictor);
    let mut bits = Decoder::new(corrections);
    let mut reader = Reader::new(old, old_len);
    let mut out = Vec::with_capacity(2 * PIECE_BYTES);
    let mut place = 0u64;
    let flush = |out: &mut Vec<u8>| {
        let full = std::mem::replace(out, Vec::with_capacity(2 * PIECE_BYTES));
        to.send(full).map_err(|_| None)
    };
    for command in &plan.commands {
        for (range, from, len) in pieces(&plan.ranges, command) {
            let start = out.len();
            out.resize(start + len, 0);
            reader.read(&mut out[start..], from)?;
            corrector.piece(&mut bits, range, from, place, &mut out[start..], &[]);
            if bits.overrun() {
                return Err(Some(DeltaError::Truncated("corrections")));
            }
            place += len as u64;
            if out.len() >= PIECE_BYTES {
                flush(&mut out)?;
            }
        }
        let code = follows_code(&plan.ranges, command);
        let end = place + command.extra;
        while place < end {
            let len = (end - place).min(PIECE_BYTES as u64) as usize;
            let start = out.len();
            out.resize(start + len, 0);
            literals.take(&mut out[start..])?;
            if code {
                relative(&mut out[start..], place);
            }
            place += len as u64;
            if out.len() >= PIECE_BYTES {
                flush(&mut out)?;
            }
        }
    }
    flush(&mut out)
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

/// Writes and hashes what comes.
fn write(from: &Receiver<Vec<u8>>, out: &mut (dyn Write + Send)) -> Result<[u8; 32], DeltaError> {
    let mut sha256 = Sha256::new();
    for bytes in from {
        sha256.update(&bytes);
        out.write_all(&bytes)
            .map_err(DeltaError::io("writing the new file"))?;
    }
    out.flush()
        .map_err(DeltaError::io("writing the new file"))?;
    Ok(sha256.finalize().into())
}

fn hash(source: &dyn Source, len: u64) -> Result<[u8; 32], DeltaError> {
    let mut sha256 = Sha256::new();
    std::io::copy(&mut Part::new(source, 0, len), &mut sha256)
        .map_err(DeltaError::io("reading the old file"))?;
    Ok(sha256.finalize().into())
}

pub(crate) fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}
