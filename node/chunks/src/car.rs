//! CAR archives: version 1 is written, versions 1 and 2 are read, block by block.
//!
//! Follows <https://ipld.io/specs/transport/car/>. What is written depends on roots and blocks
//! alone: depth first, each block once, roots in the order given.

use std::io::{self, Read, Write};

use cid::Cid;

use crate::block::{BlockError, Blocks, MAX_BLOCK_BYTES, identity_content, verify};
use crate::traverse::{Scope, Traverse};
use crate::walk::{DagError, Limits};

mod header;

pub use header::{MAX_HEADER_BYTES, MAX_ROOTS};

/// Longest CID in front of a block: version, codec and hash code take 4 bytes in practice, a
/// digest at most 64.
const MAX_CID_BYTES: usize = 96;

/// What every version 2 archive begins with: the header of an archive whose version is 2.
const PRAGMA: [u8; 10] = *b"\xa1gversion\x02";
/// Bytes of the header of version 2, behind the pragma.
const V2_HEADER_BYTES: usize = 40;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// It couldn't be read or written.
    #[error("the archive can't be read or written")]
    Io(#[from] io::Error),
    /// It isn't what the specification says.
    #[error("the archive is refused at byte {at}: {why}")]
    Malformed {
        /// Where it was noticed.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A block in it is refused.
    #[error("the archive is refused at byte {at}")]
    Block {
        /// Where it was noticed.
        at: u64,
        /// What is wrong with the block.
        source: Box<BlockError>,
    },
    /// The blocks that should go into it can't be had.
    #[error(transparent)]
    Dag(Box<DagError>),
}

impl From<DagError> for CarError {
    fn from(error: DagError) -> Self {
        Self::Dag(Box::new(error))
    }
}

/// Writes an archive of version 1.
pub struct CarWriter<W> {
    out: W,
}

impl<W: Write> CarWriter<W> {
    /// Writes the header.
    pub fn new(mut out: W, roots: &[Cid]) -> Result<Self, CarError> {
        let header = header::encode(roots);
        out.write_all(&varint(header.len() as u64))?;
        out.write_all(&header)?;
        Ok(Self { out })
    }

    /// Writes one block.
    pub fn block(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), CarError> {
        let cid = cid.to_bytes();
        self.out
            .write_all(&varint((cid.len() + bytes.len()) as u64))?;
        self.out.write_all(&cid)?;
        self.out.write_all(bytes)?;
        Ok(())
    }

    /// Everything that was written has been handed on.
    pub fn finish(mut self) -> Result<W, CarError> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Writes everything below `roots`, depth first, each block once. Returns the number of blocks.
pub fn write_car<W: Write>(
    blocks: &dyn Blocks,
    roots: &[Cid],
    limits: &Limits,
    out: W,
) -> Result<u64, CarError> {
    let mut car = CarWriter::new(out, roots)?;
    let mut written = 0;
    if let Some((first, rest)) = roots.split_first() {
        let mut traverse = Traverse::new(blocks, first, Scope::All, *limits)?;
        for root in rest {
            traverse.then(root, Scope::All)?;
        }
        while let Some((cid, bytes)) = traverse.next_block()? {
            car.block(&cid, &bytes)?;
            written += 1;
        }
    }
    car.finish()?;
    Ok(written)
}

/// Reads an archive, one block at a time, each checked against its address. Memory is one block.
pub struct CarReader<R> {
    input: R,
    at: u64,
    /// Bytes of the inner archive that are left, in version 2.
    left: Option<u64>,
    roots: Vec<Cid>,
}

impl<R: Read> CarReader<R> {
    /// Reads the header, of either version.
    pub fn new(input: R) -> Result<Self, CarError> {
        let mut car = Self {
            input,
            at: 0,
            left: None,
            roots: Vec::new(),
        };
        let header = car.section(MAX_HEADER_BYTES)?;
        let header = header.ok_or_else(|| car.malformed("it is empty"))?;
        let header = if header == PRAGMA {
            car.enter_v2()?;
            let inner = car.section(MAX_HEADER_BYTES)?;
            inner.ok_or_else(|| car.malformed("its inner archive is empty"))?
        } else {
            header
        };
        car.roots = header::decode(&header).map_err(|why| car.malformed(why))?;
        Ok(car)
    }

    /// The roots that the archive names. That it holds them is not said.
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// Bytes read so far: the end of the block that came last.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next block, checked against its address; `None` at the end.
    pub fn next_block(&mut self) -> Result<Option<(Cid, Vec<u8>)>, CarError> {
        loop {
            let begin = self.at;
            let Some(mut section) = self.section(MAX_CID_BYTES + MAX_BLOCK_BYTES)? else {
                return Ok(None);
            };
            let mut rest = section.as_slice();
            let cid = Cid::read_bytes(&mut rest)
                .map_err(|_| self.malformed("a block has no readable address"))?;
            let head = section.len() - rest.len();
            section.drain(..head);
            verify(&cid, &section).map_err(|source| CarError::Block {
                at: begin,
                source: Box::new(source),
            })?;
            // Who has the address of an identity block has its content.
            if identity_content(&cid).is_none() {
                return Ok(Some((cid, section)));
            }
        }
    }

    fn malformed(&self, why: &'static str) -> CarError {
        CarError::Malformed { at: self.at, why }
    }

    /// Version 2: goes to the inner archive and reads no further than its end.
    fn enter_v2(&mut self) -> Result<(), CarError> {
        let mut header = [0; V2_HEADER_BYTES];
        self.exact(&mut header)?;
        let word = |from: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[from..from + 8]);
            u64::from_le_bytes(bytes)
        };
        // 16 bytes of characteristics play no part here; the index that may follow isn't read.
        let (offset, size) = (word(16), word(24));
        let skip = offset
            .checked_sub(self.at)
            .ok_or_else(|| self.malformed("its inner archive begins inside the header"))?;
        let skipped = io::copy(&mut self.input.by_ref().take(skip), &mut io::sink())?;
        if skipped != skip {
            return Err(self.malformed("it ends before its inner archive"));
        }
        self.at = offset;
        self.left = Some(size);
        Ok(())
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), CarError> {
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(buffer.len() as u64)
                .ok_or(CarError::Malformed {
                    at: self.at,
                    why: "a block reaches over the end of the inner archive",
                })?;
        }
        self.input.read_exact(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.malformed("it is cut off"),
            _ => CarError::Io(e),
        })?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    /// A length and that many bytes; `None` at the end. Memory grows with what really comes.
    fn section(&mut self, max: usize) -> Result<Option<Vec<u8>>, CarError> {
        let mut length = 0_u64;
        for shift in (0..).step_by(7) {
            let mut byte = [0];
            if shift == 0 {
                if self.left == Some(0) {
                    return Ok(None);
                }
                // The archive may end here, and nowhere else.
                let count = loop {
                    match self.input.read(&mut byte) {
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        other => break other?,
                    }
                };
                if count == 0 {
                    return match self.left {
                        Some(_) => Err(self.malformed("it is cut off")),
                        None => Ok(None),
                    };
                }
                self.at += 1;
                self.left = self.left.map(|left| left.saturating_sub(1));
            } else {
                self.exact(&mut byte)?;
            }
            length |= u64::from(byte[0] & 0x7f) << shift;
            if length > max as u64 || shift > 28 {
                return Err(self.malformed("a block or header is longer than any may be"));
            }
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        if length == 0 {
            return Err(self.malformed("a block has no address"));
        }
        let mut bytes = vec![0; length as usize];
        self.exact(&mut bytes)?;
        Ok(Some(bytes))
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(10);
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
