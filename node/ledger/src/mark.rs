//! The high-water mark of the own lane: what was signed last, outside anything that a restore can roll back.
//!
//! A file of two slots, written in turn and in place, so that one fsync of one sector makes a mark durable. Any slot
//! that is not readable means that the file can't be trusted, and the device must go on in a new incarnation.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use instar_attest::{ChainId, Digest, json};
use serde::{Deserialize, Serialize};

use crate::born;
use crate::lane::Lane;
use crate::oid::Oid;

/// One slot fits one sector, which disks write whole or not at all.
const SLOT_BYTES: usize = 512;
const CHECK_DOMAIN: &str = "instar/lane-mark/v1";

/// What a device signed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The chain.
    pub chain: ChainId,
    /// The commit of `seq`; none when nothing was signed in this incarnation yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Oid>,
    /// The lane.
    pub lane: Lane,
    /// The last sequence number, 0 when nothing was signed in this incarnation yet.
    pub seq: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    check: Digest,
    mark: Mark,
    turn: u64,
}

/// Why a mark does not allow to sign. Each but [`MarkError::Exists`] asks for a new incarnation.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// There is none.
    #[error(
        "the lane's high-water mark {path} can't be opened: {source}; open a new lane incarnation"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is damaged.
    #[error("the lane's high-water mark {0} is unreadable; open a new lane incarnation")]
    Unreadable(PathBuf),
    /// It was copied here, as a backup is: nobody knows what was signed after it.
    #[error(
        "the lane's high-water mark {0} is a copy, not the file that was made here; open a new lane incarnation"
    )]
    Copied(PathBuf),
    /// It is of another chain or lane.
    #[error(
        "the high-water mark is of lane {got}, not of lane {expected}; open a new lane incarnation"
    )]
    OtherLane {
        /// The lane that is to be signed.
        expected: Lane,
        /// The lane of the mark.
        got: Lane,
    },
    /// It is of another chain.
    #[error("the high-water mark is of chain {got}, not of chain {expected}")]
    OtherChain {
        /// This chain.
        expected: ChainId,
        /// The mark's.
        got: ChainId,
    },
    /// The store was rolled back, or the mark was: signing could say two things at one sequence number.
    #[error(
        "the high-water mark stands at {mark}, the lane in the store at {store}: one of them was restored; \
         get the lane's newer commits from a peer, or open a new lane incarnation"
    )]
    Apart {
        /// The mark's sequence number.
        mark: u64,
        /// The store's.
        store: u64,
    },
    /// A new mark would replace one.
    #[error("there is a high-water mark at {0} already")]
    Exists(PathBuf),
    /// An incarnation that is not newer than the last.
    #[error("the new lane {new} is not a newer incarnation than {old}")]
    NotNewer {
        /// What was asked for.
        new: Lane,
        /// What the mark has.
        old: Lane,
    },
    /// The mark could not be made durable: nothing may be signed.
    #[error("the high-water mark {path} can't be written: {source}")]
    Write {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Mark {
    /// The mark of a lane in which nothing was signed.
    pub fn start(chain: ChainId, lane: Lane) -> Self {
        Self {
            chain,
            commit: None,
            lane,
            seq: 0,
        }
    }
}

/// An open mark file.
#[derive(Debug)]
pub struct MarkFile {
    file: File,
    path: PathBuf,
    turn: u64,
    mark: Mark,
}

impl MarkFile {
    /// Makes the mark of a device's first lane. Refused when the file exists: a mark is never started over by accident.
    pub fn create(path: &Path, mark: Mark) -> Result<Self, MarkError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => MarkError::Exists(path.into()),
                _ => MarkError::Write {
                    path: path.into(),
                    source,
                },
            })?;
        Self::start(file, path, mark)
    }

    /// Begins a newer incarnation: what the file says, if it says anything, must be of an older one.
    pub fn begin_incarnation(path: &Path, mark: Mark) -> Result<Self, MarkError> {
        if let Ok(old) = Self::open(path)
            && old.mark.chain == mark.chain
            && (old.mark.lane.device != mark.lane.device
                || old.mark.lane.incarnation >= mark.lane.incarnation)
        {
            return Err(MarkError::NotNewer {
                new: mark.lane,
                old: old.mark.lane,
            });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(|source| MarkError::Write {
                path: path.into(),
                source,
            })?;
        Self::start(file, path, mark)
    }

    fn start(file: File, path: &Path, mark: Mark) -> Result<Self, MarkError> {
        let mut this = Self {
            file,
            path: path.into(),
            turn: 0,
            mark,
        };
        // Both slots are filled at once: from here on an empty slot is damage.
        this.advance(mark)?;
        this.advance(mark)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|d| d.sync_all())
            .map_err(|source| this.write_error(source))?;
        born::note(path).map_err(|source| this.write_error(source))?;
        Ok(this)
    }

    /// Opens and checks.
    pub fn open(path: &Path) -> Result<Self, MarkError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| MarkError::Missing {
                path: path.into(),
                source,
            })?;
        let unreadable = || MarkError::Unreadable(path.into());
        if born::is_copy(path).map_err(|_| unreadable())? {
            return Err(MarkError::Copied(path.into()));
        }
        let mut bytes = [0u8; 2 * SLOT_BYTES];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|_| unreadable())?;
        let mut newest: Option<Slot> = None;
        for half in bytes.chunks_exact(SLOT_BYTES) {
            let slot = read_slot(half).ok_or_else(unreadable)?;
            if newest.as_ref().is_none_or(|n| n.turn < slot.turn) {
                newest = Some(slot);
            }
        }
        let newest = newest.ok_or_else(unreadable)?;
        Ok(Self {
            file,
            path: path.into(),
            turn: newest.turn,
            mark: newest.mark,
        })
    }

    /// What was signed last.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Writes and fsyncs. Only when it returns may the signature leave.
    pub fn advance(&mut self, mark: Mark) -> Result<(), MarkError> {
        let turn = self.turn + 1;
        let at = (turn % 2) * SLOT_BYTES as u64;
        self.file
            .write_all_at(&write_slot(&mark, turn), at)
            .and_then(|()| self.file.sync_data())
            .map_err(|source| self.write_error(source))?;
        self.turn = turn;
        self.mark = mark;
        Ok(())
    }

    fn write_error(&self, source: io::Error) -> MarkError {
        MarkError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

fn check_of(mark: &Mark, turn: u64) -> Digest {
    let bytes = json::to_vec(&(mark, turn)).expect("a mark holds hex and numbers below 2^53");
    Digest::tagged(CHECK_DOMAIN, &bytes)
}

fn write_slot(mark: &Mark, turn: u64) -> [u8; SLOT_BYTES] {
    let slot = Slot {
        check: check_of(mark, turn),
        mark: *mark,
        turn,
    };
    let text = json::to_vec(&slot).expect("a mark holds hex and numbers below 2^53");
    let mut out = [b' '; SLOT_BYTES];
    out[..text.len()].copy_from_slice(&text);
    out[SLOT_BYTES - 1] = b'\n';
    out
}

fn read_slot(bytes: &[u8]) -> Option<Slot> {
    let slot: Slot = json::from_slice(bytes.trim_ascii_end(), SLOT_BYTES).ok()?;
    (slot.check == check_of(&slot.mark, slot.turn)).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::DeviceId;

    fn lane(incarnation: u32) -> Lane {
        Lane {
            device: DeviceId::from_digest(Digest::of(b"device")),
            incarnation,
        }
    }

    #[test]
    fn marks_survive_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lane.mark");
        let chain = ChainId::from_bytes([1; 32]);
        let mut file = MarkFile::create(&path, Mark::start(chain, lane(1))).unwrap();
        assert!(matches!(
            MarkFile::create(&path, Mark::start(chain, lane(1))),
            Err(MarkError::Exists(_))
        ));
        for seq in 1..6 {
            let mark = Mark {
                chain,
                commit: Some(Oid::from_bytes([seq as u8; 32])),
                lane: lane(u32::MAX),
                seq,
            };
            file.advance(mark).unwrap();
            assert_eq!(MarkFile::open(&path).unwrap().mark(), &mark);
        }
        let whole = std::fs::read(&path).unwrap();
        for at in [20, SLOT_BYTES + 20] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(
                MarkFile::open(&path),
                Err(MarkError::Unreadable(_))
            ));
        }
        std::fs::write(&path, &whole[..SLOT_BYTES]).unwrap();
        let error = MarkFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("new lane incarnation"), "{error}");
        MarkFile::begin_incarnation(&path, Mark::start(chain, lane(2))).unwrap();
        assert!(MarkFile::begin_incarnation(&path, Mark::start(chain, lane(2))).is_err());
        assert!(MarkFile::begin_incarnation(&path, Mark::start(chain, lane(3))).is_ok());
    }
}
