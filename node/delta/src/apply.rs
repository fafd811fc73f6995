//! Applies a delta, as a stream: the old file is read by places, the new one written from start to end, and memory is
//! bounded whatever the delta says.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest, Sha256};

use crate::absolute::relative;
use crate::ahead::{From, Stretch, read_ahead};
use crate::coder::Decoder;
use crate::correct::{Corrector, PIECE_BYTES};
use crate::error::{DeltaError, bounded};
use crate::header::{HEADER_BYTES, Header};
use crate::literals;
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
        let (read, ahead) = sync_channel(WAITING);
        let plan = &plan;
        scope.spawn(move || unpack(literals, literal_bytes, &to_maker));
        scope.spawn(move || read_ahead(old, old_len, plan, &read));
        let sink = scope.spawn(move || write(&from_maker, out));
        let from = Literals::new(from_literals);
        let map = Map::new(&plan.commands, old_len);
        let predictor = Predictor::new(&plan.old, &plan.new, &map);
        let corrector = Corrector::new(&plan.new, predictor);
        let made = rebuild(plan, corrector, corrections, from, &ahead, &to_sink);
        // Whoever still waits for this thread to take or give something is told that it won't.
        drop((ahead, to_sink));
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

/// Makes the new file. `Err(None)`: one of the other ends hung up, and knows why.
fn rebuild(
    plan: &Plan,
    mut corrector: Corrector<'_>,
    corrections: Part<'_>,
    mut literals: Literals,
    ahead: &Receiver<Result<Stretch, DeltaError>>,
    to: &SyncSender<Vec<u8>>,
) -> Result<(), Option<DeltaError>> {
    let mut bits = Decoder::new(corrections);
    let mut place = 0u64;
    let new_len: u64 = plan.commands.iter().map(|c| c.len + c.extra).sum();
    while place < new_len {
        let mut stretch = ahead.recv().map_err(|_| None)?.map_err(Some)?;
        let (mut rest, mut fields) = (stretch.bytes.as_mut_slice(), stretch.fields.as_slice());
        for part in &stretch.parts {
            let (bytes, after) = rest.split_at_mut(part.len);
            rest = after;
            match part.from {
                From::Old {
                    code,
                    fields: count,
                } => {
                    let (found, later) = fields.split_at(count);
                    fields = later;
                    corrector.correct(&mut bits, code, found, place, bytes, &[]);
                    if bits.overrun() {
                        return Err(Some(DeltaError::Truncated("corrections")));
                    }
                }
                From::Literals { code } => {
                    literals.take(bytes)?;
                    if code {
                        relative(bytes, place);
                    }
                }
            }
            place += part.len as u64;
        }
        to.send(stretch.bytes).map_err(|_| None)?;
    }
    Ok(())
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
