//! Slices of forks: taken in with the block that merges them, or from a repository that has the fork's history.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use super::base::cut_off;
use super::lanes::at;
use super::objects::Objects;
use super::open::open_repository;
use super::{Store, StoreError};
use crate::fork::{
    BlockSize, ForkDue, ForkPart, ForkRange, MAX_SLICE_BYTES, MAX_SLICE_OBJECTS, Slice, read_slice,
};
use crate::grammar::{self, GrammarError, Kind, Object, Signatures};
use crate::oid::Oid;

impl Store {
    /// Whether a slice is here: none is taken in but whole.
    pub fn has_slice(&self, range: &ForkRange) -> bool {
        self.objects.contains(&range.head)
    }

    /// Reads a slice that is here. Its signatures were checked when it was taken in.
    pub fn slice(&self, range: &ForkRange) -> Result<Slice, StoreError> {
        read_slice(range, Signatures::Trusted, |id, kind| {
            self.objects.read(id, kind)
        })
        .map_err(|error| at(&range.head, error))
    }

    /// As [`Store::slice`], with every signature: in a clone nothing was checked before.
    pub fn verify_slice(&self, range: &ForkRange) -> Result<Slice, StoreError> {
        read_slice(range, Signatures::Check, |id, kind| {
            self.objects.read(id, kind)
        })
        .map_err(|error| at(&range.head, error))
    }

    /// Takes a slice from another repository on this machine, such as a clone of the fork; nothing in it is trusted. The
    /// slice stands on no ref, and becomes durable with the block that merges it.
    pub fn take_slice(&mut self, from: &Path, due: &ForkDue) -> Result<Slice, StoreError> {
        let other = Objects::new(open_repository(from)?);
        let taken: RefCell<BTreeMap<Oid, Object>> = RefCell::default();
        let (slice, cut) = self.admit(due, |id, kind| {
            if self.objects.contains(id) {
                return self.objects.read(id, kind);
            }
            if let Some(known) = taken.borrow().get(id) {
                return Ok(known.bytes.clone());
            }
            let read = other.read(id, kind)?;
            let object = Object::new(kind, read.clone());
            // A repository that was tampered with gives other bytes under an id.
            if object.id != *id {
                return Err(StoreError::Unexpected { id: *id, kind });
            }
            taken.borrow_mut().insert(*id, object);
            Ok(read)
        })?;
        let objects: Vec<Object> = taken.into_inner().into_values().collect();
        if !objects.is_empty() {
            cut_off(&self.path, &cut)?;
            self.keep(objects)?;
        }
        Ok(slice)
    }

    /// Checks a slice that is due: every byte and signature, and that it stands on what is merged. Also gives the commits
    /// of it whose parents this ledger does not have because it begins later.
    pub(super) fn admit(
        &self,
        due: &ForkDue,
        mut fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, StoreError>,
    ) -> Result<(Slice, Vec<Oid>), StoreError> {
        let head = due.range.head;
        let (mut objects, mut bytes) = (0usize, 0usize);
        let counted = |id: &Oid, kind| {
            let read = fetch(id, kind)?;
            (objects, bytes) = (objects + 1, bytes + read.len());
            too_many("objects of a fork in a block", objects, MAX_SLICE_OBJECTS)?;
            too_many("bytes of a fork in a block", bytes, MAX_SLICE_BYTES)?;
            Ok(read)
        };
        let slice = read_slice(&due.range, Signatures::Check, counted).map_err(|e| at(&head, e))?;
        if slice.after != due.after {
            return Err(StoreError::SliceGap {
                head,
                after: slice.after,
                expected: due.after,
            });
        }
        if let Some(mother) = &slice.mother {
            let ours = self.block_at(mother.height);
            let cut_off = self.base().is_some_and(|base| mother.height < base);
            if ours != Some(mother.id) && !cut_off {
                return Err(StoreError::OtherMother {
                    chain: due.range.chain,
                    block: mother.id,
                    height: mother.height,
                });
            }
        }
        let mut cut = Vec::new();
        for (commit, parent) in &slice.edges {
            if self.objects.contains(parent) {
                continue;
            }
            if self.base().is_none() {
                return Err(StoreError::NotFound {
                    id: *parent,
                    kind: Kind::Commit,
                });
            }
            cut.push(*commit);
        }
        Ok((slice, cut))
    }

    /// The blocks of this trunk above `after`, up to `to`, each with its size, for [`crate::fork::cut`]: what a slice with
    /// it brings.
    pub fn block_sizes(&self, after: u64, to: u64) -> Result<Vec<BlockSize>, StoreError> {
        let mut sizes = Vec::new();
        for height in after + 1..=to {
            let Some(id) = self.block_at(height) else {
                break;
            };
            let header = self.header(&id)?;
            let mut commits = Vec::new();
            if height == 1 {
                commits.push(self.chain.into());
            }
            for range in &header.lanes {
                commits.extend(self.lane_range(&range.head, range.from - 1)?);
            }
            commits.push(id);
            let (mut objects, mut bytes) = (0, 0);
            for commit in &commits {
                let mut all = Vec::new();
                self.collect(commit, &mut all)?;
                objects += all.len();
                bytes += all.iter().map(|(_, o)| o.len()).sum::<usize>();
            }
            let (.., entries) =
                grammar::read_light(&id, &self.chain, |id, kind| self.objects.read(id, kind))
                    .map_err(|error| at(&id, error))?;
            sizes.push(BlockSize {
                part: ForkPart { height, id },
                bytes,
                entries,
                objects,
            });
        }
        Ok(sizes)
    }
}

/// Whether a repository has a commit; one that can't be opened has none.
pub fn has_commit(path: &Path, id: &Oid) -> bool {
    open_repository(path).is_ok_and(|repo| Objects::new(repo).contains(id))
}

fn too_many(what: &'static str, got: usize, max: usize) -> Result<(), StoreError> {
    if got <= max {
        return Ok(());
    }
    Err(StoreError::Draft(GrammarError::TooMany {
        what,
        got: got as u64,
        max: max as u64,
    }))
}
