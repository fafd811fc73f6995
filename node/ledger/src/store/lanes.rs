//! Lanes: appending to the own one, reading and moving all others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use instar_attest::{PublicKey, SecretKey, json};
use serde::{Deserialize, Serialize};

use super::open::record_bytes;
use super::{Store, StoreError, io_error};
use crate::block::MAX_COMMITS_A_BLOCK;
use crate::entry::Entry;
use crate::grammar::{
    self, ENTRIES_FILE, GrammarError, Kind, LanePayload, Object, SignedLaneCommit,
};
use crate::journal::RecordKind;
use crate::lane::{Lane, LaneCommit, LaneRange};
use crate::mark::{Mark, MarkError, MarkFile};
use crate::oid::Oid;
use crate::pack;
use crate::sshsig;

/// About how much memory verified lane commits may take that no block has merged yet.
const REMEMBERED_BYTES: usize = 16 * 1024 * 1024;
/// About what an entry takes in memory; most are a few hundred bytes of JSON.
const REMEMBERED_ENTRY_BYTES: usize = 2048;

/// Lane commits whose every signature was checked, so that a block costs no second check of what gossip brought.
#[derive(Default)]
pub(super) struct Verified {
    commits: HashMap<Oid, Arc<(LaneCommit, PublicKey)>>,
    /// Oldest first.
    order: VecDeque<Oid>,
    bytes: usize,
}

impl Verified {
    fn insert(&mut self, commit: Arc<(LaneCommit, PublicKey)>) {
        let id = commit.0.id;
        self.bytes += bytes_of(&commit.0);
        if let Some(known) = self.commits.insert(id, commit) {
            self.bytes -= bytes_of(&known.0);
            return;
        }
        self.order.push_back(id);
        // To forget one only costs a second check. The newest stays, however large.
        while self.bytes > REMEMBERED_BYTES && self.order.len() > 1 {
            let oldest = self.order.pop_front();
            if let Some(gone) = oldest.and_then(|id| self.commits.remove(&id)) {
                self.bytes -= bytes_of(&gone.0);
            }
        }
    }

    /// Forgets what a block has merged: nobody looks at its entries again, but for who asks about one.
    pub fn forget_merged(&mut self, ranges: &[LaneRange]) {
        let merged: HashMap<Lane, u64> = ranges.iter().map(|r| (r.lane(), r.to)).collect();
        let bytes = &mut self.bytes;
        self.commits.retain(|_, known| {
            let stays = merged.get(&known.0.lane).is_none_or(|to| known.0.seq > *to);
            if !stays {
                *bytes -= bytes_of(&known.0);
            }
            stays
        });
        self.order.retain(|id| self.commits.contains_key(id));
    }
}

fn bytes_of(commit: &LaneCommit) -> usize {
    (commit.entries.len() + 1) * REMEMBERED_ENTRY_BYTES
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaneRecord {
    head: Oid,
    lane: Lane,
    seq: u64,
}

pub(super) fn lane_record(payload: &[u8]) -> Result<(Lane, Oid, u64), StoreError> {
    let record: LaneRecord = json::from_slice(payload, 1024).map_err(|source| {
        StoreError::Draft(GrammarError::Json {
            file: "journal",
            source,
        })
    })?;
    Ok((record.lane, record.head, record.seq))
}

impl Store {
    /// Appends a batch to the own lane: signed, durable, and its high-water mark fsynced before this returns.
    ///
    /// # Errors
    /// [`StoreError::Mark`] when the mark is missing, damaged, or apart from what the store has: then nothing was
    /// signed, and the device needs a new incarnation.
    pub fn append_lane(
        &mut self,
        key: &SecretKey,
        lane: &Lane,
        entries: &[Entry],
        time_s: u64,
    ) -> Result<LaneCommit, StoreError> {
        let chain = self.chain;
        let (parent, last) = self
            .lanes
            .get(lane)
            .copied()
            .unwrap_or((Oid::from(chain), 0));
        self.check_mark(lane, &parent, last)?;
        if let Some(entry) = entries.iter().find(|e| e.chain != chain) {
            return Err(StoreError::Draft(GrammarError::OtherChain {
                expected: chain,
                got: entry.chain,
            }));
        }
        let blob = Object::new(Kind::Blob, grammar::entries_jsonl(entries)?);
        let tree = grammar::single_file_tree(ENTRIES_FILE, &blob);
        let seq = last + 1;
        let payload = LanePayload {
            chain,
            entries: entries.len(),
            lane: *lane,
            parent,
            seq,
            time_s,
            tree: tree.id,
        };
        let commit = Object::new(Kind::Commit, payload.sign(key)?.to_bytes());
        let id = commit.id;
        let objects = [commit, tree, blob];
        let record = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
        let writer = self.writer()?;
        writer
            .journal
            .append(RecordKind::OwnCommit, &record)
            .map_err(io_error("appending to the journal"))?;
        // From here on the commit must become the lane's head or nothing may be signed any more: if the mark can't be
        // written it is dropped, and only opening the store again decides.
        let mut mark = writer.mark.take().expect("check_mark saw an open mark");
        mark.advance(Mark {
            chain,
            commit: Some(id),
            lane: *lane,
            seq,
        })?;
        writer.mark = Some(mark);
        self.objects.add(objects);
        self.lanes.insert(*lane, (id, seq));
        let commit = LaneCommit {
            id,
            lane: *lane,
            seq,
            parent,
            time_s,
            entries: entries.to_vec(),
        };
        self.remember(Arc::new((commit.clone(), key.public())));
        self.flush_if_due()?;
        Ok(commit)
    }

    fn check_mark(&mut self, lane: &Lane, head: &Oid, seq: u64) -> Result<(), StoreError> {
        let chain = self.chain;
        let writer = self.writer()?;
        let Some(file) = &writer.mark else {
            let path = writer.mark_path.clone().unwrap_or_default();
            // Opening again tells what is wrong with it; if nothing is, then it was dropped after a failed write.
            MarkFile::open(&path)?;
            return Err(MarkError::Unreadable(path).into());
        };
        let mark = file.mark();
        if mark.chain != chain {
            return Err(MarkError::OtherChain {
                expected: chain,
                got: mark.chain,
            }
            .into());
        }
        if mark.lane != *lane {
            return Err(MarkError::OtherLane {
                expected: *lane,
                got: mark.lane,
            }
            .into());
        }
        if mark.seq != seq || (seq > 0 && mark.commit != Some(*head)) {
            return Err(MarkError::Apart {
                mark: mark.seq,
                store: seq,
            }
            .into());
        }
        Ok(())
    }

    /// Opens a new incarnation of the own lane, after its mark was lost or damaged. `lane` must be newer than every
    /// incarnation of this device that the store or the mark knows.
    pub fn begin_incarnation(&mut self, lane: &Lane) -> Result<(), StoreError> {
        let newest = self
            .lanes
            .keys()
            .filter(|l| l.device == lane.device)
            .max()
            .copied();
        if let Some(old) = newest.filter(|old| old.incarnation >= lane.incarnation) {
            return Err(MarkError::NotNewer { new: *lane, old }.into());
        }
        let mark = Mark::start(self.chain, *lane);
        let writer = self.writer()?;
        let path = writer.mark_path.clone().unwrap_or_default();
        writer.mark = Some(MarkFile::begin_incarnation(&path, mark)?);
        Ok(())
    }

    /// The lane that may be appended to: the one of the high-water mark, where mark and store agree.
    ///
    /// # Errors
    /// [`StoreError::Mark`] when there is none: the device needs a new incarnation.
    pub fn marked_lane(&mut self) -> Result<Lane, StoreError> {
        let path = self.writer()?.mark_path.clone().unwrap_or_default();
        let lane = match &self.writer()?.mark {
            Some(file) => file.mark().lane,
            None => MarkFile::open(&path)?.mark().lane,
        };
        let genesis = (Oid::from(self.chain), 0);
        let (head, seq) = self.lanes.get(&lane).copied().unwrap_or(genesis);
        self.check_mark(&lane, &head, seq)?;
        Ok(lane)
    }

    /// The head and the sequence number of each lane, merged or not, in the order of their names.
    pub fn lane_heads(&self) -> Vec<(Lane, Oid, u64)> {
        self.lanes
            .iter()
            .map(|(lane, (head, seq))| (*lane, *head, *seq))
            .collect()
    }

    /// The head and the sequence number of one lane.
    pub fn lane_head(&self, lane: &Lane) -> Option<(Oid, u64)> {
        self.lanes.get(lane).copied()
    }

    /// Reads a lane commit: exact bytes, every entry's signature, and the commit's own under the key that it names.
    /// Whether that key may sign for this lane is *not* known here; see [`Store::verify_lane_commit`].
    pub fn lane_commit(&self, id: &Oid) -> Result<LaneCommit, StoreError> {
        self.verified_lane_commit(id).map(|c| c.0.clone())
    }

    /// As [`Store::lane_commit`], and signed by `key`.
    pub fn verify_lane_commit(&self, id: &Oid, key: &PublicKey) -> Result<LaneCommit, StoreError> {
        let commit = self.verified_lane_commit(id)?;
        if commit.1 != *key {
            return Err(StoreError::NotAllowed {
                id: *id,
                lane: commit.0.lane,
                key: commit.1,
            });
        }
        Ok(commit.0.clone())
    }

    /// The key that signed a lane commit.
    pub fn lane_signer(&self, id: &Oid) -> Result<PublicKey, StoreError> {
        self.verified_lane_commit(id).map(|c| c.1)
    }

    pub(super) fn verified_lane_commit(
        &self,
        id: &Oid,
    ) -> Result<Arc<(LaneCommit, PublicKey)>, StoreError> {
        if let Some(known) = self.verified.borrow().commits.get(id) {
            return Ok(known.clone());
        }
        let read =
            grammar::read_lane_commit(*id, &self.chain, |id, kind| self.objects.read(id, kind))
                .map_err(|error| at(id, error))?;
        let commit = Arc::new(read);
        self.remember(commit.clone());
        Ok(commit)
    }

    /// Only commits that are in the store may be remembered: what is remembered counts as being there.
    pub(super) fn remember(&self, commit: Arc<(LaneCommit, PublicKey)>) {
        self.verified.borrow_mut().insert(commit);
    }

    /// What is remembered counts as being there; after something went, nothing does.
    pub(super) fn forget_verified(&self) {
        *self.verified.borrow_mut() = Verified::default();
    }

    /// A lane commit without its entries.
    pub fn signed_lane_commit(&self, id: &Oid) -> Result<SignedLaneCommit, StoreError> {
        let bytes = self.objects.read(id, Kind::Commit)?;
        SignedLaneCommit::from_bytes(&bytes, &self.chain)
            .map_err(|source| StoreError::Grammar { id: *id, source })
    }

    /// The commits of a lane after sequence number `after`, up to `head`, oldest first.
    pub fn lane_range(&self, head: &Oid, after: u64) -> Result<Vec<Oid>, StoreError> {
        let (seq, _) = self.place_of(head)?;
        if seq.saturating_sub(after) > MAX_COMMITS_A_BLOCK {
            return Err(StoreError::TooMany {
                got: seq - after,
                max: MAX_COMMITS_A_BLOCK,
            });
        }
        self.lane_back(head, after)
    }

    /// As [`Store::lane_range`], however many there are: for the own lane, which may have grown for weeks offline.
    pub fn lane_back(&self, head: &Oid, after: u64) -> Result<Vec<Oid>, StoreError> {
        let mut out = Vec::new();
        let mut next = *head;
        loop {
            let (seq, parent) = self.place_of(&next)?;
            if seq <= after {
                break;
            }
            out.push(next);
            if seq == 1 {
                break;
            }
            next = parent;
        }
        out.reverse();
        Ok(out)
    }

    /// The commit of a lane at sequence number `seq`, walking back from `head`.
    pub fn lane_commit_at(&self, head: &Oid, seq: u64) -> Result<Option<Oid>, StoreError> {
        let mut next = *head;
        loop {
            let (at, parent) = self.place_of(&next)?;
            if at == seq {
                return Ok(Some(next));
            }
            if at < seq || at == 1 {
                return Ok(None);
            }
            next = parent;
        }
    }

    /// Sequence number and parent of a lane commit.
    fn place_of(&self, id: &Oid) -> Result<(u64, Oid), StoreError> {
        if let Some(known) = self.verified.borrow().commits.get(id) {
            return Ok((known.0.seq, known.0.parent));
        }
        // What is in the store had its signature checked when it was taken in.
        let bytes = self.objects.read(id, Kind::Commit)?;
        let payload = SignedLaneCommit::unverified(&bytes, &self.chain)
            .map_err(|source| StoreError::Grammar { id: *id, source })?
            .payload;
        Ok((payload.seq, payload.parent))
    }

    /// Moves a lane forward to a commit that continues it. Older heads are no error and change nothing.
    ///
    /// # Errors
    /// [`StoreError::Fork`] when `head` does not contain what the store has: one of the two is an equivocation, or the
    /// device was restored.
    pub fn set_lane(&mut self, lane: &Lane, head: &Oid) -> Result<(), StoreError> {
        let commit = self.verified_lane_commit(head)?;
        if commit.0.lane != *lane {
            return Err(StoreError::Linkage {
                id: *head,
                seq: commit.0.seq,
                parent: commit.0.parent,
            });
        }
        let seq = commit.0.seq;
        if let Some((ours, our_seq)) = self.lane_head(lane) {
            let (newer, older, at) = if seq >= our_seq {
                (head, ours, our_seq)
            } else {
                (&ours, *head, seq)
            };
            let common = self.lane_commit_at(newer, at)?;
            if common != Some(older) {
                return Err(StoreError::Fork {
                    lane: *lane,
                    seq: at,
                    ours,
                    theirs: *head,
                });
            }
            if seq <= our_seq {
                return Ok(());
            }
        }
        self.record_lane(lane, head, seq)
    }

    pub(super) fn record_lane(
        &mut self,
        lane: &Lane,
        head: &Oid,
        seq: u64,
    ) -> Result<(), StoreError> {
        let record = record_bytes(&LaneRecord {
            head: *head,
            lane: *lane,
            seq,
        });
        self.writer()?
            .journal
            .append_lazily(RecordKind::Lane, &record)
            .map_err(io_error("appending to the journal"))?;
        self.lanes.insert(*lane, (*head, seq));
        self.flush_if_due()
    }

    /// See [`sshsig::allowed_signers`].
    pub fn allowed_signers(&self, devices: &[(String, PublicKey)]) -> String {
        sshsig::allowed_signers(devices)
    }
}

/// Says in which commit the grammar was broken.
pub(super) fn at(id: &Oid, error: StoreError) -> StoreError {
    match error {
        StoreError::Draft(source) => StoreError::Grammar { id: *id, source },
        other => other,
    }
}
