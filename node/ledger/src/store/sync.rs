//! Packs between nodes: what is sent of a lane or a block, and what is taken in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use instar_attest::PublicKey;

use super::base::cut_off;
use super::lanes::at;
use super::{Store, StoreError, io_error};
use crate::block::MAX_COMMITS_A_BLOCK;
use crate::fork::{ForkDue, Slice};
use crate::grammar::{self, Kind, Loose, Object, SignedLaneCommit};
use crate::journal::RecordKind;
use crate::lane::{Lane, LaneCommit, LaneRange};
use crate::oid::Oid;
use crate::pack;

/// A lane commit whose every signature holds, and the key that signed it.
type Verified = Arc<(LaneCommit, PublicKey)>;

/// What a pack brought that was not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Lane commits, with every signature checked under the key they name.
    pub lane_commits: Vec<LaneCommit>,
    /// Blocks, in the exact grammar; nothing is said about their state or finality.
    pub blocks: Vec<Oid>,
}

impl Store {
    /// The commits of a lane after sequence number `after`, oldest first, as a pack; at most
    /// [`MAX_COMMITS_A_BLOCK`] of them.
    pub fn pack_lane(&self, lane: &Lane, after: u64) -> Result<Vec<u8>, StoreError> {
        let mut ids = Vec::new();
        if let Some((head, seq)) = self.lane_head(lane) {
            let last = seq.min(after.saturating_add(MAX_COMMITS_A_BLOCK));
            let from = self.lane_commit_at(&head, last)?.unwrap_or(head);
            ids = self.lane_range(&from, after)?;
        }
        Ok(self.pack_commits(&ids, usize::MAX)?.0)
    }

    /// Lane commits as a pack, as many of the first as fit into `max` bytes before they are compressed; and how many
    /// those are. One always fits.
    pub fn pack_commits(&self, ids: &[Oid], max: usize) -> Result<(Vec<u8>, usize), StoreError> {
        let (mut objects, mut bytes, mut taken) = (Vec::new(), 0usize, 0);
        for id in ids {
            let before = objects.len();
            self.collect(id, &mut objects)?;
            bytes += objects[before..]
                .iter()
                .map(|(_, o)| o.len())
                .sum::<usize>();
            if taken > 0 && bytes > max {
                objects.truncate(before);
                break;
            }
            taken += 1;
        }
        Ok((write(&objects), taken))
    }

    /// One lane commit as a pack, for gossip.
    pub fn pack_commit(&self, id: &Oid) -> Result<Vec<u8>, StoreError> {
        let mut objects = Vec::new();
        self.collect(id, &mut objects)?;
        Ok(write(&objects))
    }

    /// A block with all that it merges, of lanes and of forks, as a pack.
    pub fn pack_block(&self, id: &Oid) -> Result<Vec<u8>, StoreError> {
        let block = self.read_block(id)?;
        let mut objects = Vec::new();
        for range in &block.header.lanes {
            for commit in self.lane_range(&range.head, range.from - 1)? {
                self.collect(&commit, &mut objects)?;
            }
        }
        for range in &block.header.forks {
            for commit in self.slice(range)?.commits {
                self.collect(&commit, &mut objects)?;
            }
        }
        self.collect(id, &mut objects)?;
        Ok(write(&objects))
    }

    /// A commit, its tree, and the tree's files.
    pub(super) fn collect(
        &self,
        id: &Oid,
        out: &mut Vec<(Kind, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let wrong = |source| StoreError::Grammar { id: *id, source };
        let commit = self.objects.read(id, Kind::Commit)?;
        let tree_id = Loose::read("commit", &commit).map_err(wrong)?.tree;
        let tree = self.objects.read(&tree_id, Kind::Tree)?;
        let blobs = grammar::files_of(&tree)
            .map_err(wrong)?
            .into_iter()
            .map(|(_, blob)| self.objects.read(&blob, Kind::Blob))
            .collect::<Result<Vec<_>, _>>()?;
        out.push((Kind::Commit, commit));
        out.push((Kind::Tree, tree));
        out.extend(blobs.into_iter().map(|blob| (Kind::Blob, blob)));
        Ok(())
    }

    /// Takes in a pack of at most `max` bytes. See [`Store::import_pack_from`]; here any key may sign a lane.
    pub fn import_pack(&mut self, bytes: &[u8], max: usize) -> Result<Imported, StoreError> {
        self.import_pack_from(bytes, max, |_, _| true)
    }

    /// As [`Store::import_pack`], for a block that may merge one of the slices of forks that are `due`. A slice comes whole,
    /// with its block, or not at all.
    pub fn import_block(
        &mut self,
        bytes: &[u8],
        max: usize,
        due: &[ForkDue],
    ) -> Result<Imported, StoreError> {
        self.import(bytes, max, |_, _| true, due)
    }

    /// Takes in a pack of at most `max` bytes, all of it or nothing.
    ///
    /// Nothing reaches the disk before all of this holds: the pack is within its bounds; every commit that is new is a
    /// lane commit or a block of this chain in the exact grammar; every signature holds; `may_sign` takes each lane
    /// commit's key; every commit continues its parent and has all that it names, in the pack or in the store; and
    /// nothing is in the pack that no commit names. What was taken in stands on no ref. A block is durable when this
    /// returns, with every lane commit that it merges; lane commits without a block become so with the next block, own
    /// commit or [`Store::sync`].
    pub fn import_pack_from(
        &mut self,
        bytes: &[u8],
        max: usize,
        may_sign: impl FnMut(&Lane, &PublicKey) -> bool,
    ) -> Result<Imported, StoreError> {
        self.import(bytes, max, may_sign, &[])
    }

    fn import(
        &mut self,
        bytes: &[u8],
        max: usize,
        mut may_sign: impl FnMut(&Lane, &PublicKey) -> bool,
        due: &[ForkDue],
    ) -> Result<Imported, StoreError> {
        let mut fresh: HashMap<Oid, Object> = HashMap::new();
        let mut order = Vec::new();
        for object in pack::read(bytes, max)? {
            if !self.objects.contains(&object.id) && !fresh.contains_key(&object.id) {
                order.push(object.id);
                fresh.insert(object.id, object);
            }
        }
        let mut named: HashSet<Oid> = HashSet::new();
        let mut imported = Imported::default();
        let mut reads: HashMap<Oid, Verified> = HashMap::new();
        let (mut of_forks, mut cut): (HashSet<Oid>, Vec<Oid>) = Default::default();
        let slices = self.slices_in(&fresh, due, &mut named, &mut cut)?;
        for slice in &slices {
            of_forks.extend(&slice.commits);
        }
        for id in &order {
            let object = &fresh[id];
            if object.kind != Kind::Commit || of_forks.contains(id) {
                continue;
            }
            named.insert(*id);
            let mut fetch = |id: &Oid, kind: Kind| {
                named.insert(*id);
                self.fetch(&fresh, id, kind)
            };
            if is_lane_commit(&object.bytes) {
                let read = grammar::read_lane_commit(*id, &self.chain, &mut fetch)
                    .map_err(|error| at(id, error))?;
                let read = Arc::new(read);
                reads.insert(*id, read.clone());
                self.check_link(&fresh, &read.0)?;
                if !may_sign(&read.0.lane, &read.1) {
                    return Err(StoreError::NotAllowed {
                        id: *id,
                        lane: read.0.lane,
                        key: read.1,
                    });
                }
                imported.lane_commits.push(read.0.clone());
            } else {
                let block = grammar::read_block(*id, &self.chain, &mut fetch)
                    .map_err(|error| at(id, error))?;
                let parent = block.header.parent;
                self.fetch(&fresh, &parent, Kind::Commit)?;
                self.check_ranges(id, &block.header.lanes, |head| match reads.get(head) {
                    Some(read) => Ok(read.clone()),
                    None => self.lane_commit_of(&fresh, head),
                })?;
                imported.blocks.push(*id);
            }
        }
        if let Some(stray) = order.iter().find(|id| !named.contains(id)) {
            return Err(StoreError::Stray(*stray));
        }
        if order.is_empty() {
            return Ok(imported);
        }
        let objects: Vec<Object> = order
            .iter()
            .map(|id| fresh.remove(id).expect("each id was put in once"))
            .collect();
        cut_off(&self.path, &cut)?;
        let record = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
        let journal = &mut self.writer()?.journal;
        // A block must be durable before it is voted for, and everything before it in the journal becomes so with it.
        // Lane commits alone can wait: whoever made them has them.
        let appended = match imported.blocks.is_empty() {
            true => journal.append_lazily(RecordKind::Objects, &record),
            false => journal.append(RecordKind::Objects, &record),
        };
        appended.map_err(io_error("appending to the journal"))?;
        self.objects.add(objects);
        for read in reads.into_values() {
            self.remember(read);
        }
        self.flush_if_due()?;
        Ok(imported)
    }

    /// The slices that new blocks in a pack merge, each of them due and checked whole. A slice that is here already is checked
    /// again: it may have come another way.
    fn slices_in(
        &self,
        fresh: &HashMap<Oid, Object>,
        due: &[ForkDue],
        named: &mut HashSet<Oid>,
        cut: &mut Vec<Oid>,
    ) -> Result<Vec<Slice>, StoreError> {
        let mut slices = Vec::new();
        for block in fresh.values() {
            if block.kind != Kind::Commit || is_lane_commit(&block.bytes) {
                continue;
            }
            let header = grammar::read_header(&block.id, &self.chain, |id, kind| {
                self.fetch(fresh, id, kind)
            });
            // A block of a fork is none of this chain; what else is none is refused where it is read exactly.
            let Ok(header) = header else { continue };
            for range in header.forks {
                let Some(due) = due.iter().find(|due| due.range == range) else {
                    let block = block.id;
                    return Err(StoreError::NotDue { block, range });
                };
                let (slice, more) = self.admit(due, |id, kind| {
                    named.insert(*id);
                    self.fetch(fresh, id, kind)
                })?;
                slices.push(slice);
                cut.extend(more);
            }
        }
        Ok(slices)
    }

    /// Keeps objects that were checked. They become durable with the next block, own commit or [`Store::sync`].
    pub(super) fn keep(&mut self, objects: Vec<Object>) -> Result<(), StoreError> {
        let record = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
        self.writer()?
            .journal
            .append_lazily(RecordKind::Objects, &record)
            .map_err(io_error("appending to the journal"))?;
        self.objects.add(objects);
        self.flush_if_due()
    }

    /// Makes everything that was taken in durable.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.writer()?
            .journal
            .sync()
            .map_err(io_error("syncing the journal"))
    }

    fn fetch(
        &self,
        fresh: &HashMap<Oid, Object>,
        id: &Oid,
        kind: Kind,
    ) -> Result<Vec<u8>, StoreError> {
        match fresh.get(id) {
            Some(object) if object.kind == kind => Ok(object.bytes.clone()),
            Some(_) => Err(StoreError::Unexpected { id: *id, kind }),
            None => self.objects.read(id, kind),
        }
    }

    fn lane_commit_of(
        &self,
        fresh: &HashMap<Oid, Object>,
        id: &Oid,
    ) -> Result<Verified, StoreError> {
        if !fresh.contains_key(id) {
            return self.verified_lane_commit(id);
        }
        grammar::read_lane_commit(*id, &self.chain, |id, kind| self.fetch(fresh, id, kind))
            .map(Arc::new)
            .map_err(|error| at(id, error))
    }

    /// A lane commit continues its parent: same lane, next sequence number. The first one stands on genesis, which the
    /// grammar holds. The parent's own signature is checked where the parent is taken in.
    fn check_link(
        &self,
        fresh: &HashMap<Oid, Object>,
        commit: &LaneCommit,
    ) -> Result<(), StoreError> {
        if commit.seq == 1 {
            return Ok(());
        }
        let bytes = self.fetch(fresh, &commit.parent, Kind::Commit)?;
        let parent = SignedLaneCommit::from_bytes(&bytes, &self.chain)
            .map_err(|source| StoreError::Grammar {
                id: commit.parent,
                source,
            })?
            .payload;
        if parent.lane != commit.lane || parent.seq + 1 != commit.seq {
            return Err(StoreError::Linkage {
                id: commit.id,
                seq: commit.seq,
                parent: commit.parent,
            });
        }
        Ok(())
    }

    /// Each range's head is a commit of that lane at that sequence number.
    pub(super) fn check_ranges(
        &self,
        block: &Oid,
        ranges: &[LaneRange],
        read: impl Fn(&Oid) -> Result<Verified, StoreError>,
    ) -> Result<(), StoreError> {
        for range in ranges {
            let head = read(&range.head)?;
            if head.0.lane != range.lane() || head.0.seq != range.to {
                return Err(StoreError::Range {
                    block: *block,
                    head: range.head,
                });
            }
        }
        Ok(())
    }
}

/// A block has no signature of its own, so the header tells the two apart; the grammar then decides.
fn is_lane_commit(bytes: &[u8]) -> bool {
    let head_end = bytes.windows(2).position(|w| w == b"\n\n");
    let head = &bytes[..head_end.unwrap_or(bytes.len())];
    head.windows(15).any(|w| w == b"\ngpgsig-sha256 ")
}

fn write(objects: &[(Kind, Vec<u8>)]) -> Vec<u8> {
    pack::write(
        objects
            .iter()
            .map(|(kind, bytes)| (*kind, bytes.as_slice())),
    )
}
