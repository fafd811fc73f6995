//! Blocks, the trunk and its tip.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::lanes::at;
use super::objects::Objects;
use super::{PRIVATE_DIR, Store, StoreError, io_error};
use crate::block::{Block, BlockDraft, Header};
use crate::certificate::Certificate;
use crate::grammar::{self, CERTIFICATE_FILE, GrammarError, Kind, Loose, Object};
use crate::journal::RecordKind;
use crate::light::SignedHeader;
use crate::oid::Oid;
use crate::pack;

impl Store {
    /// Writes a block. It is durable when this returns, and stands on no ref until it is final.
    pub fn write_block(&mut self, draft: &BlockDraft) -> Result<Oid, StoreError> {
        let mut objects = grammar::block_tree(draft)?;
        let bytes = grammar::block_commit(&objects[0].id, &draft.header, &draft.receipts);
        let commit = Object::new(Kind::Commit, bytes);
        let id = commit.id;
        if draft.header.chain != self.chain {
            return Err(StoreError::Draft(GrammarError::OtherChain {
                expected: self.chain,
                got: draft.header.chain,
            }));
        }
        if !self.objects.contains(&draft.header.parent) {
            return Err(StoreError::NotFound {
                id: draft.header.parent,
                kind: Kind::Commit,
            });
        }
        self.check_ranges(&id, &draft.header.lanes, |head| {
            self.verified_lane_commit(head)
        })?;
        for range in &draft.header.forks {
            if !self.has_slice(range) {
                return Err(StoreError::NotFound {
                    id: range.head,
                    kind: Kind::Commit,
                });
            }
        }
        objects.insert(0, commit);
        objects.retain(|o| !self.objects.contains(&o.id));
        if !objects.is_empty() {
            let record = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
            self.writer()?
                .journal
                .append(RecordKind::Objects, &record)
                .map_err(io_error("appending to the journal"))?;
            self.objects.add(objects);
        }
        self.flush_if_due()?;
        Ok(id)
    }

    /// Reads a block: every byte of the commit, its tree and its files is rebuilt and compared.
    pub fn read_block(&self, id: &Oid) -> Result<Block, StoreError> {
        grammar::read_block(*id, &self.chain, |id, kind| self.objects.read(id, kind))
            .map_err(|error| at(id, error))
    }

    /// The header of a block, without its receipts. In this node's store every block was checked when it was taken in;
    /// in a clone use [`Store::read_block`], which checks everything.
    pub fn header(&self, id: &Oid) -> Result<Header, StoreError> {
        grammar::read_header(id, &self.chain, |id, kind| self.objects.read(id, kind))
            .map_err(|error| at(id, error))
    }

    /// The height and the id of the newest final block; genesis is height 0.
    pub fn head(&self) -> (u64, Oid) {
        let last = self.trunk.len() - 1;
        (self.first + last as u64, self.trunk[last])
    }

    /// The final block at `height`; genesis at 0. None below [`Store::base`].
    pub fn block_at(&self, height: u64) -> Option<Oid> {
        if height == 0 {
            return Some(self.chain.into());
        }
        let index = usize::try_from(height.checked_sub(self.first)?).ok()?;
        self.trunk.get(index).copied()
    }

    /// The certificate of the newest final block; none at genesis.
    pub fn tip_certificate(&self) -> Option<&Certificate> {
        self.tip.as_ref()
    }

    /// The certificate of the final block at `height`: from the next block, or from the tip.
    pub fn certificate_at(&self, height: u64) -> Result<Option<Certificate>, StoreError> {
        if height == self.head().0 {
            return Ok(self.tip.clone());
        }
        match self.block_at(height + 1) {
            Some(next) => grammar::read_certificate(&next, |id, kind| self.objects.read(id, kind))
                .map_err(|error| at(&next, error)),
            None => Ok(None),
        }
    }

    /// A final block's header with its certificate, for light checking; none where there is no such block.
    pub fn signed_header(&self, height: u64) -> Result<Option<SignedHeader>, StoreError> {
        let (Some(id), Some(certificate)) = (self.block_at(height), self.certificate_at(height)?)
        else {
            return Ok(None);
        };
        let (header, previous, receipts, entries) =
            grammar::read_light(&id, &self.chain, |id, kind| self.objects.read(id, kind))
                .map_err(|error| at(&id, error))?;
        Ok(Some(SignedHeader {
            certificate,
            entries,
            header,
            previous,
            receipts,
        }))
    }

    /// Makes a block the head: trunk, tip and the lanes that it merges move together.
    ///
    /// The caller has verified the certificate against the validator set of the height: this room has no state and
    /// can't know the set. A block that is the head already is no error.
    pub fn finalize(&mut self, block: &Oid, certificate: &Certificate) -> Result<(), StoreError> {
        if certificate.block != *block {
            return Err(StoreError::OtherBlock {
                block: *block,
                certified: certificate.block,
                height: certificate.height,
            });
        }
        let bytes = certificate.to_bytes().map_err(|source| {
            StoreError::Draft(GrammarError::Json {
                file: CERTIFICATE_FILE,
                source,
            })
        })?;
        if self.head() == (certificate.height, *block) {
            return Ok(());
        }
        let next = self.check_next(certificate)?;
        self.writer()?
            .journal
            .append(RecordKind::Final, &bytes)
            .map_err(io_error("appending to the journal"))?;
        self.apply(&next, certificate)?;
        self.flush_if_due()
    }

    fn check_next(&self, certificate: &Certificate) -> Result<Header, StoreError> {
        let block = certificate.block;
        let header = self.header(&block)?;
        let (height, head) = self.head();
        if header.height != certificate.height {
            return Err(StoreError::OtherBlock {
                block,
                certified: certificate.block,
                height: certificate.height,
            });
        }
        if header.height != height + 1 || header.parent != head {
            return Err(StoreError::NotNext {
                block,
                height: header.height,
                head: height,
            });
        }
        Ok(header)
    }

    /// Moves the trunk in memory; the journal has the certificate.
    pub(super) fn move_trunk(&mut self, certificate: &Certificate) -> Result<(), StoreError> {
        let header = self.check_next(certificate)?;
        self.apply(&header, certificate)
    }

    fn apply(&mut self, header: &Header, certificate: &Certificate) -> Result<(), StoreError> {
        for range in &header.lanes {
            let lane = range.lane();
            let ahead = match self.lane_head(&lane) {
                // What was merged first stands: a lane that has something else there follows the trunk.
                Some((head, seq)) if seq >= range.to => {
                    self.lane_commit_at(&head, range.to)? == Some(range.head)
                }
                _ => false,
            };
            if !ahead {
                self.lanes.insert(lane, (range.head, range.to));
            }
        }
        self.verified.borrow_mut().forget_merged(&header.lanes);
        self.trunk.push(certificate.block);
        self.tip = Some(certificate.clone());
        Ok(())
    }

    /// The tip's objects: commit, tree, blob. None at genesis.
    pub(super) fn tip_objects(&self) -> Result<Option<[Object; 3]>, StoreError> {
        let Some(certificate) = &self.tip else {
            return Ok(None);
        };
        let time_ms = self.header(&certificate.block)?.time_ms;
        let [tree, blob] = grammar::tip_tree(certificate)?;
        let bytes = grammar::tip_commit(&self.chain, certificate, &tree.id, time_ms);
        let commit = Object::new(Kind::Commit, bytes);
        Ok(Some([commit, tree, blob]))
    }

    /// Reads a tip: its parent must be the head, and its bytes what its certificate makes of them.
    pub(super) fn read_tip(&self, id: &Oid) -> Result<Certificate, StoreError> {
        let (parent, certificate) =
            grammar::read_tip(id, &self.chain, |id, kind| self.objects.read(id, kind))
                .map_err(|error| at(id, error))?;
        let (height, head) = self.head();
        if parent != head || certificate.height != height {
            return Err(StoreError::OtherBlock {
                block: head,
                certified: certificate.block,
                height: certificate.height,
            });
        }
        Ok(certificate)
    }
}

/// The head that a tip stands on.
pub(super) fn parent_of_tip(objects: &Objects, tip: &Oid) -> Result<Oid, StoreError> {
    let bytes = objects.read(tip, Kind::Commit)?;
    grammar::read_tip_parent(&bytes)
        .map(|(parent, _)| parent)
        .map_err(|source| StoreError::Grammar { id: *tip, source })
}

/// The block ids of a trunk by height, by walking first parents to genesis, or to a commit whose parents are cut off.
pub(super) fn walk_trunk(
    objects: &Objects,
    head: Oid,
    cut: &BTreeSet<Oid>,
) -> Result<Vec<Oid>, StoreError> {
    let mut out = vec![head];
    let mut next = head;
    while !cut.contains(&next) {
        let bytes = objects.read(&next, Kind::Commit)?;
        // Below a fork's genesis lies its mother's trunk.
        if grammar::is_genesis(&bytes) {
            break;
        }
        let loose = Loose::read("block", &bytes)
            .map_err(|source| StoreError::Grammar { id: next, source })?;
        let Some(parent) = loose.parents.first() else {
            break;
        };
        out.push(*parent);
        next = *parent;
    }
    out.reverse();
    Ok(out)
}

fn heights_path(path: &Path) -> std::path::PathBuf {
    path.join(PRIVATE_DIR).join("heights")
}

/// Reads the list of heights, or rebuilds it from the trunk when it does not end in `head`.
pub(super) fn load_heights(
    path: &Path,
    objects: &Objects,
    head: Oid,
    cut: &BTreeSet<Oid>,
) -> Result<(Vec<Oid>, usize), StoreError> {
    let bytes = fs::read(heights_path(path)).unwrap_or_default();
    let list: Vec<Oid> = bytes
        .as_chunks::<32>()
        .0
        .iter()
        .map(|id| Oid::from_bytes(*id))
        .collect();
    // A crash within a flush leaves heights that the refs don't have yet: they come again from the journal.
    match list.iter().rposition(|id| *id == head) {
        Some(at) => Ok((list[..=at].to_vec(), at + 1)),
        None => Ok((walk_trunk(objects, head, cut)?, 0)),
    }
}

/// Appends what the list lacks.
pub(super) fn store_heights(path: &Path, trunk: &[Oid], on_disk: usize) -> Result<(), StoreError> {
    let what = "writing the list of heights";
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(heights_path(path))
        .map_err(io_error(what))?;
    let keep = on_disk as u64 * 32;
    let bytes: Vec<u8> = trunk[on_disk..]
        .iter()
        .flat_map(|id| *id.as_bytes())
        .collect();
    file.set_len(keep)
        .and_then(|()| file.seek(SeekFrom::Start(keep)))
        .and_then(|_| file.write_all(&bytes))
        .and_then(|()| file.sync_data())
        .map_err(io_error(what))
}
