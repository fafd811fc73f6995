//! The high-water mark of the consensus key: what was signed last, durable before the signature leaves.
//!
//! One file of two slots, written in turn, so that a torn write leaves the slot before it. A slot is
//! `"instarM1" ‖ key ‖ counter u64 ‖ height u64 ‖ round u32 ‖ 3 × (signed u8 ‖ pol_round i64 ‖ block id) ‖ SHA-256 of
//! all this`, integers big-endian; `signed` is 0 (nothing), 1 (nil) or 2 (the block). The file is not part of any
//! snapshot, backup or checkpoint.
//!
//! The mark holds what was signed, not only that something was: when a crash lost the engine's own record, the same
//! message is signed again instead of a second one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use instar_attest::{Digest, PublicKey};
use instar_ledger::{Oid, born};

use crate::medium::Medium;

const MAGIC: &[u8; 8] = b"instarM1";
const HEAD_BYTES: usize = 8 + 32 + 8 + 8 + 4;
const WHAT_BYTES: usize = 1 + 8 + 32;
const BODY_BYTES: usize = HEAD_BYTES + 3 * WHAT_BYTES;
const SLOT_BYTES: usize = BODY_BYTES + 32;
/// The name of the file in the marks folder.
pub const FILE_NAME: &str = "consensus.mark";

/// No round goes this far, so a mark at this round says that nothing more is signed at its height.
const SEALED: u32 = u32::MAX;

/// The three things a validator signs in a round, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A proposal.
    Propose = 0,
    /// A prevote.
    Prevote = 1,
    /// A precommit.
    Precommit = 2,
}

/// What a message says, beside its height, round and step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct What {
    /// The block, or nil.
    pub block: Option<Oid>,
    /// Of a proposal: the round whose prevotes justify it, or -1. Always -1 in votes.
    pub pol_round: i64,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// Something later was already signed.
    #[error(
        "refused to sign {step:?} at height {height}, round {round}: height {last_height}, round {last_round} was \
         reached before"
    )]
    Behind {
        /// The height of the refused message.
        height: u64,
        /// Its round.
        round: u32,
        /// Its step.
        step: Step,
        /// The height of the mark.
        last_height: u64,
        /// The round of the mark.
        last_round: u32,
    },
    /// The disk failed.
    #[error("the high-water mark {path} can't be kept")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mark {
    counter: u64,
    height: u64,
    round: u32,
    signed: [Option<What>; 3],
}

/// The mark and its open file.
#[derive(Debug)]
pub struct Marks {
    path: PathBuf,
    key: PublicKey,
    file: Box<dyn Medium>,
    mark: Mark,
}

/// What a folder holds.
#[derive(Debug)]
pub enum Found {
    /// A mark.
    Mark(Box<Marks>),
    /// No file. Only whoever made the key knows whether it never signed or the file was lost.
    Missing,
    /// A file that holds no mark of this key, or a copy of one.
    Unreadable,
}

impl Marks {
    /// Opens the mark of `key` in `dir`.
    pub fn open(dir: &Path, key: PublicKey) -> Result<Found, MarkError> {
        let path = dir.join(FILE_NAME);
        let io = |source| MarkError::Io {
            path: path.clone(),
            source,
        };
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(error) => return Err(io(error)),
        };
        // A restored backup says less than what was signed.
        if born::is_copy(&path).map_err(io)? {
            tracing::warn!(path = %path.display(), "the high-water mark is a copy, and counts as none");
            return Ok(Found::Unreadable);
        }
        Self::read(path, key, Box::new(file))
    }

    /// Reads a mark from a medium that is there.
    pub(crate) fn read(
        path: PathBuf,
        key: PublicKey,
        file: Box<dyn Medium>,
    ) -> Result<Found, MarkError> {
        let mut bytes = [0; 2 * SLOT_BYTES];
        let read = match file.read_at(&mut bytes, 0) {
            Ok(read) => read,
            Err(source) => return Err(MarkError::Io { path, source }),
        };
        let slots = bytes[..read].chunks_exact(SLOT_BYTES);
        match slots
            .filter_map(|slot| decode(slot, &key))
            .max_by_key(|mark| mark.counter)
        {
            Some(mark) => Ok(Found::Mark(Box::new(Self {
                path,
                key,
                file,
                mark,
            }))),
            None => Ok(Found::Unreadable),
        }
    }

    /// Makes a mark that says: nothing after `height` was signed. 0 is for a key that was just made. An unreadable file
    /// in its place is kept beside it.
    pub fn create(dir: &Path, key: PublicKey, height: u64) -> Result<Self, MarkError> {
        let path = dir.join(FILE_NAME);
        let io = |source| MarkError::Io {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(io)?;
        if path.exists() {
            // Whoever calls this could not read it; a person may want to.
            std::fs::rename(&path, path.with_extension("mark.unreadable")).map_err(io)?;
        }
        // Whole before it has its name: a half-written new file would look like a lost mark.
        let new = path.with_extension("mark.new");
        let mut options = OpenOptions::new();
        let options = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600);
        let file = options.open(&new).map_err(io)?;
        let marks = Self::write_new(path.clone(), key, Box::new(file), height)?;
        std::fs::rename(new, &path).map_err(io)?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
        born::note(&path).map_err(io)?;
        Ok(marks)
    }

    /// Writes both slots of a mark that says: nothing after `height` was signed.
    pub(crate) fn write_new(
        path: PathBuf,
        key: PublicKey,
        file: Box<dyn Medium>,
        height: u64,
    ) -> Result<Self, MarkError> {
        let round = if height == 0 { 0 } else { SEALED };
        let mut marks = Self {
            path,
            key,
            file,
            mark: Mark::default(),
        };
        for counter in [1, 2] {
            marks.write(Mark {
                counter,
                height,
                round,
                signed: [None; 3],
            })?;
        }
        Ok(marks)
    }

    /// The height and round that were signed last; (0, 0) if nothing was.
    pub fn last(&self) -> (u64, u32) {
        (self.mark.height, self.mark.round)
    }

    /// Whether nothing more may be signed at the height of the mark.
    pub fn is_sealed(&self) -> bool {
        self.mark.round == SEALED
    }

    /// Signs nothing more up to this height, durably: what this validator is locked on there is no longer known.
    pub fn seal(&mut self, height: u64) -> Result<(), MarkError> {
        let height = height.max(self.mark.height);
        let counter = self.mark.counter + 1;
        self.write(Mark {
            counter,
            height,
            round: SEALED,
            signed: [None; 3],
        })
    }

    /// Notes durably that `what` is about to be signed, and returns what to sign: if something was signed at this very
    /// height, round and step before, it is that again, whatever is asked for.
    pub fn advance(
        &mut self,
        height: u64,
        round: u32,
        step: Step,
        what: What,
    ) -> Result<What, MarkError> {
        let (last_height, last_round) = self.last();
        let behind = MarkError::Behind {
            height,
            round,
            step,
            last_height,
            last_round,
        };
        let mut mark = self.mark;
        if (height, round) < self.last() || (self.is_sealed() && height == last_height) {
            return Err(behind);
        }
        if (height, round) > self.last() {
            mark = Mark {
                counter: mark.counter,
                height,
                round,
                signed: [None; 3],
            };
        }
        if let Some(before) = mark.signed[step as usize] {
            return Ok(before);
        }
        if mark.signed[step as usize..].iter().any(Option::is_some) {
            return Err(behind);
        }
        mark.signed[step as usize] = Some(what);
        mark.counter += 1;
        self.write(mark)?;
        Ok(what)
    }

    fn write(&mut self, mark: Mark) -> Result<(), MarkError> {
        let offset = (mark.counter % 2) * SLOT_BYTES as u64;
        let written = self.file.write_at(&encode(&mark, &self.key), offset);
        written
            .and_then(|()| self.file.sync())
            .map_err(|source| MarkError::Io {
                path: self.path.clone(),
                source,
            })?;
        self.mark = mark;
        Ok(())
    }
}

fn encode(mark: &Mark, key: &PublicKey) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(key.as_bytes());
    out.extend(mark.counter.to_be_bytes());
    out.extend(mark.height.to_be_bytes());
    out.extend(mark.round.to_be_bytes());
    for signed in &mark.signed {
        let block = signed.and_then(|what| what.block);
        out.push(u8::from(signed.is_some()) + u8::from(block.is_some()));
        out.extend(signed.map_or(0, |what| what.pol_round).to_be_bytes());
        out.extend(block.as_ref().map_or(&[0; 32], Oid::as_bytes));
    }
    let sum = Digest::of(&out);
    out.extend(sum.as_bytes());
    out
}

fn decode(slot: &[u8], key: &PublicKey) -> Option<Mark> {
    let (body, sum) = slot.split_at_checked(BODY_BYTES)?;
    let head = [MAGIC, key.as_bytes().as_slice()].concat();
    if Digest::of(body).as_bytes() != sum || !body.starts_with(&head) {
        return None;
    }
    let mut signed = [None; 3];
    for (out, bytes) in signed
        .iter_mut()
        .zip(body[HEAD_BYTES..].chunks_exact(WHAT_BYTES))
    {
        let block = Oid::from_bytes(bytes[9..].try_into().ok()?);
        let pol_round = i64::from_be_bytes(bytes[1..9].try_into().ok()?);
        *out = match bytes[0] {
            0 => None,
            1 => Some(What {
                block: None,
                pol_round,
            }),
            2 => Some(What {
                block: Some(block),
                pol_round,
            }),
            _ => return None,
        };
    }
    Some(Mark {
        counter: u64::from_be_bytes(body[40..48].try_into().ok()?),
        height: u64::from_be_bytes(body[48..56].try_into().ok()?),
        round: u32::from_be_bytes(body[56..60].try_into().ok()?),
        signed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn block(n: u8) -> What {
        What {
            block: Some(Oid::from_bytes([n; 32])),
            pol_round: -1,
        }
    }

    const NIL: What = What {
        block: None,
        pol_round: -1,
    };

    fn key() -> PublicKey {
        PublicKey::from_bytes([7; 32])
    }

    fn open(dir: &Path) -> Marks {
        match Marks::open(dir, key()).unwrap() {
            Found::Mark(marks) => *marks,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_different_vote_is_never_signed_even_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut marks = Marks::create(dir.path(), key(), 0).unwrap();
        assert_eq!(
            marks.advance(7, 0, Step::Prevote, block(1)).unwrap(),
            block(1)
        );
        drop(marks);
        let mut marks = open(dir.path());
        assert_eq!(marks.last(), (7, 0));
        assert_eq!(
            marks.advance(7, 0, Step::Prevote, block(2)).unwrap(),
            block(1)
        );
        assert_eq!(marks.advance(7, 0, Step::Prevote, NIL).unwrap(), block(1));
        // An earlier step of the round, after a later one.
        let behind = marks.advance(7, 0, Step::Propose, block(3)).unwrap_err();
        assert!(matches!(behind, MarkError::Behind { .. }));
        assert_eq!(marks.advance(7, 0, Step::Precommit, NIL).unwrap(), NIL);
        assert_eq!(marks.advance(7, 0, Step::Precommit, block(1)).unwrap(), NIL);
        assert_eq!(
            marks.advance(7, 1, Step::Prevote, block(5)).unwrap(),
            block(5)
        );
        let behind = marks.advance(7, 0, Step::Precommit, block(4)).unwrap_err();
        assert!(matches!(behind, MarkError::Behind { last_round: 1, .. }));
        let again = What {
            block: Some(Oid::from_bytes([9; 32])),
            pol_round: 1,
        };
        assert_eq!(marks.advance(8, 2, Step::Propose, again).unwrap(), again);
        drop(marks);
        let mut marks = open(dir.path());
        assert_eq!(marks.advance(8, 2, Step::Propose, block(1)).unwrap(), again);
    }

    #[test]
    fn a_torn_write_leaves_the_mark_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut marks = Marks::create(dir.path(), key(), 0).unwrap();
        marks.advance(1, 0, Step::Prevote, block(1)).unwrap();
        marks.advance(1, 0, Step::Precommit, block(1)).unwrap();
        let counter = marks.mark.counter;
        drop(marks);
        let path = dir.path().join(FILE_NAME);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 20], (counter % 2) * SLOT_BYTES as u64 + 30)
            .unwrap();
        let marks = open(dir.path());
        assert_eq!(marks.mark.signed, [None, Some(block(1)), None]);
    }

    #[test]
    fn an_unreadable_mark_is_noticed_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Marks::open(dir.path(), key()), Ok(Found::Missing)));
        std::fs::write(dir.path().join(FILE_NAME), b"not a mark").unwrap();
        assert!(matches!(
            Marks::open(dir.path(), key()),
            Ok(Found::Unreadable)
        ));
        let mut marks = Marks::create(dir.path(), key(), 40).unwrap();
        let kept = std::fs::read(dir.path().join("consensus.mark.unreadable")).unwrap();
        assert_eq!(kept, b"not a mark");
        let behind = marks.advance(40, 5, Step::Prevote, NIL).unwrap_err();
        assert!(matches!(
            behind,
            MarkError::Behind {
                last_height: 40,
                ..
            }
        ));
        drop(marks);
        assert!(open(dir.path()).is_sealed());
        assert_eq!(
            open(dir.path()).advance(41, 0, Step::Prevote, NIL).unwrap(),
            NIL
        );
    }

    #[test]
    fn a_mark_of_another_key_is_no_mark() {
        let dir = tempfile::tempdir().unwrap();
        drop(Marks::create(dir.path(), key(), 0).unwrap());
        let other = Marks::open(dir.path(), PublicKey::from_bytes([8; 32]));
        assert!(matches!(other, Ok(Found::Unreadable)));
    }
}
