//! A ledger that begins in the middle of a chain: at the block of a snapshot, with the lanes as they are merged there.
//!
//! For stock git it is a shallow repository: the file `shallow` names the commits whose parents are not there. Genesis
//! is there too, on a branch of its own, since the chain's id is its id.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use super::flush::write_durably;
use super::lanes::at;
use super::open::not_a_ledger;
use super::{Store, StoreError, io_error};
use crate::certificate::Certificate;
use crate::grammar::{self, Kind, Object};
use crate::lane::Lane;
use crate::oid::Oid;
use crate::pack;

/// Where genesis stands in a ledger that begins later.
pub const GENESIS_REF: &str = "refs/heads/genesis";
/// Lines of a `shallow` file that are read at most: one for each lane that ever was.
const MAX_SHALLOW: usize = 1 << 20;

/// A commit that a ledger begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseCommit {
    /// The block.
    Block(Oid),
    /// The head of a lane as it is merged there, and its sequence number.
    Lane(Lane, Oid, u64),
}

impl BaseCommit {
    /// The commit's id.
    pub fn id(&self) -> Oid {
        match self {
            Self::Block(id) | Self::Lane(_, id, _) => *id,
        }
    }
}

impl Store {
    /// The height that this ledger begins with, if that is not genesis. Of that block there is the header and the
    /// receipts, and nothing that it merged.
    pub fn base(&self) -> Option<u64> {
        (self.first > 0).then_some(self.first)
    }

    /// Takes in commits for the beginning, from the front of `wanted`; the pack has as many of them as it has, whole and
    /// in the exact grammar, and nothing else. Says how many those are.
    pub fn import_base(
        &mut self,
        bytes: &[u8],
        max: usize,
        wanted: &[BaseCommit],
    ) -> Result<usize, StoreError> {
        let objects = pack::read(bytes, max)?;
        let fresh: HashMap<Oid, &Object> = objects.iter().map(|o| (o.id, o)).collect();
        let mut named = BTreeSet::new();
        let mut count = 0;
        for commit in wanted {
            let id = commit.id();
            if !fresh.contains_key(&id) {
                break;
            }
            let mut fetch = |id: &Oid, kind: Kind| {
                named.insert(*id);
                match fresh.get(id) {
                    Some(object) if object.kind == kind => Ok(object.bytes.clone()),
                    Some(_) => Err(StoreError::Unexpected { id: *id, kind }),
                    None => Err(StoreError::NotFound { id: *id, kind }),
                }
            };
            match commit {
                BaseCommit::Block(id) => {
                    grammar::read_block(*id, &self.chain, &mut fetch).map_err(|e| at(id, e))?;
                }
                BaseCommit::Lane(lane, id, seq) => {
                    let (read, _) = grammar::read_lane_commit(*id, &self.chain, &mut fetch)
                        .map_err(|e| at(id, e))?;
                    if read.lane != *lane || read.seq != *seq {
                        return Err(StoreError::Linkage {
                            id: *id,
                            seq: read.seq,
                            parent: read.parent,
                        });
                    }
                }
            }
            count += 1;
        }
        if let Some(stray) = objects.iter().find(|o| !named.contains(&o.id)) {
            return Err(StoreError::Stray(stray.id));
        }
        self.keep(objects)?;
        Ok(count)
    }

    /// Makes a new ledger begin with a block, all of whose commits were taken in. The caller has proven the block, and
    /// from its state the lanes.
    pub fn begin_at(
        &mut self,
        certificate: &Certificate,
        lanes: &[(Lane, Oid, u64)],
    ) -> Result<(), StoreError> {
        let block = certificate.block;
        let header = self.header(&block)?;
        if header.height != certificate.height {
            return Err(StoreError::OtherBlock {
                block,
                certified: block,
                height: certificate.height,
            });
        }
        if self.head().0 != 0 || !self.lanes.is_empty() {
            return Err(not_a_ledger(&self.path, "it has blocks or lanes already"));
        }
        for (_, head, _) in lanes {
            self.signed_lane_commit(head)?;
        }
        // The first commit of a lane stands on genesis, which is there.
        let cut = lanes.iter().filter(|(.., seq)| *seq > 1);
        let cut: BTreeSet<Oid> = cut.map(|(_, head, _)| *head).chain([block]).collect();
        // Before any ref leads there: git must never look for what is not there.
        write_shallow(&self.path, &cut)?;
        self.first = header.height;
        self.trunk = vec![block];
        self.tip = Some(certificate.clone());
        self.lanes = lanes
            .iter()
            .map(|(lane, head, seq)| (*lane, (*head, *seq)))
            .collect();
        // Nothing of the list of heights on disk is of use any more.
        self.writer()?.heights_on_disk = 0;
        self.flush()
    }
}

/// Notes commits whose parents are not there, before any ref leads to them.
pub(super) fn cut_off(path: &Path, commits: &[Oid]) -> Result<(), StoreError> {
    if commits.is_empty() {
        return Ok(());
    }
    let mut cut = read_shallow(path)?;
    cut.extend(commits);
    write_shallow(path, &cut)
}

/// Replaces the file `shallow` at once.
pub(super) fn write_shallow(path: &Path, cut: &BTreeSet<Oid>) -> Result<(), StoreError> {
    let text: String = cut.iter().map(|id| format!("{id}\n")).collect();
    write_durably(path, "shallow", &text)
}

/// The commits whose parents are not there, by the file `shallow` of a repository or a clone.
pub(super) fn read_shallow(git_dir: &Path) -> Result<BTreeSet<Oid>, StoreError> {
    let path = git_dir.join("shallow");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(io_error(path.display().to_string())(e)),
    };
    let count = text.lines().count();
    if count > MAX_SHALLOW {
        let why = format!("its file shallow has {count} lines, at most {MAX_SHALLOW} are read");
        return Err(not_a_ledger(git_dir, &why));
    }
    text.lines()
        .map(|line| {
            line.parse()
                .map_err(|_| not_a_ledger(git_dir, &format!("its file shallow has {line:?}")))
        })
        .collect()
}
