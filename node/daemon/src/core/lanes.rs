//! Lanes: appending to the own one, taking in the others'.

use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;

use instar_attest::PublicKey;
use instar_chain::{merge, query};
use instar_ledger::{Entry, Lane, LaneCommit, Oid, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Core, CoreError, ledger_error};
use crate::metrics::Phase;

/// The largest lane message on the data swarm; of a larger tail a prefix is sent.
pub const MAX_LANE_MESSAGE_BYTES: usize = 2 << 20;
/// Commits that go out with each new one, so that a peer that missed the last messages can follow. The whole end goes out
/// now and then while the trunk stands still; with every commit it would cost the square of its length.
const RECENT_COMMITS: usize = 32;
/// Entries in those commits together: a device that fills its commits sends each of them once, or the others would be busy
/// with what they have.
const RECENT_ENTRIES: usize = 128;
/// Unmerged commits of one lane that are kept verified in memory; a device that floods waits for the trunk.
const MAX_TAIL_COMMITS: usize = 1024;

/// The first line of a lane message; a git pack follows it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneMessage {
    /// The newest commit in the pack.
    pub head: Oid,
    /// Whose lane it is.
    pub lane: Lane,
}

impl LaneMessage {
    /// Splits a message into its first line and the pack.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), CoreError> {
        if bytes.len() > MAX_LANE_MESSAGE_BYTES {
            return Err(CoreError::Forged(format!(
                "a lane message of {} bytes",
                bytes.len()
            )));
        }
        let end = bytes
            .iter()
            .position(|b| *b == b'\n')
            .ok_or_else(|| CoreError::Forged("a lane message without a first line".into()))?;
        let message = instar_attest::json::from_slice(&bytes[..end], 1024)
            .map_err(|e| CoreError::Forged(e.to_string()))?;
        Ok((message, &bytes[end + 1..]))
    }
}

/// The unmerged end of one lane.
///
/// A device may have appended for weeks without a quorum: what is verified and in memory is bounded, the rest is known
/// by its ids and follows when the trunk has merged what comes before.
#[derive(Default, Clone)]
pub(crate) struct Tail {
    /// From where the trunk merged the lane last; every commit verified.
    pub commits: Vec<Arc<LaneCommit>>,
    /// What comes after them, oldest first.
    pub rest: VecDeque<Oid>,
}

/// The newest commit, and those before it that go with it.
fn recent(commits: &[Arc<LaneCommit>]) -> Vec<Oid> {
    let mut entries = 0;
    let mut ids: Vec<Oid> = commits
        .iter()
        .rev()
        .take(RECENT_COMMITS)
        .enumerate()
        .take_while(|(back, commit)| {
            entries += commit.entries.len();
            *back == 0 || entries <= RECENT_ENTRIES
        })
        .map(|(_, commit)| commit.id)
        .collect();
    ids.reverse();
    ids
}

/// Whoever hands over an entry can do something about a full disk: wait, or go to another node.
fn not_appended(error: StoreError) -> CoreError {
    match &error {
        StoreError::Io { source, .. }
            if matches!(
                source.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            ) =>
        {
            CoreError::NoRoom(error.to_string())
        }
        _ => ledger_error(error),
    }
}

impl Core {
    /// Every lane's unmerged end as it stands on disk, verified; for the start.
    pub(crate) fn load_tails(&mut self) -> Result<(), CoreError> {
        for (lane, head, seq) in self.ledger.lane_heads() {
            if let Err(e) = self.load_tail(&lane, &head, seq) {
                tracing::warn!(%lane, error = %e, "a lane on disk is not usable; its unmerged end is fetched again");
            }
        }
        Ok(())
    }

    fn load_tail(&mut self, lane: &Lane, head: &Oid, seq: u64) -> Result<(), CoreError> {
        let merged = self.merged_seq(lane)?;
        if seq <= merged {
            return Ok(());
        }
        let mut ids: VecDeque<Oid> = self
            .ledger
            .lane_back(head, merged)
            .map_err(ledger_error)?
            .into();
        let rest = ids.split_off(ids.len().min(MAX_TAIL_COMMITS));
        let Some(first) = ids.back() else {
            return Ok(());
        };
        self.extend_tail(lane, first)?;
        self.tails.entry(*lane).or_default().rest = rest;
        Ok(())
    }

    /// Appends entries to the own lane and returns the commit with the message that tells the peers.
    ///
    /// Entries that are pending already are left out; `None` when nothing is left, or nothing that peers would take now.
    pub fn append(&mut self, entries: &[Entry], time_s: u64) -> Result<Option<Vec<u8>>, CoreError> {
        let mut fresh = BTreeSet::new();
        let entries: Vec<Entry> = entries
            .iter()
            .filter(|e| !self.pending_ids.contains(&e.id()) && fresh.insert(e.id()))
            .cloned()
            .collect();
        if entries.is_empty() {
            return Ok(None);
        }
        let lane = self.own_lane;
        self.check_own_lane()?;
        let mut laps = self.metrics.laps();
        let commit = self
            .ledger
            .append_lane(&self.keys.lane, &lane, &entries, time_s)
            .map_err(not_appended)?;
        self.pending_ids.extend(fresh);
        self.tails_changed();
        let tail = self.tails.entry(lane).or_default();
        if !tail.rest.is_empty() || tail.commits.len() >= MAX_TAIL_COMMITS {
            // Peers keep no more of it either, until the trunk has merged what comes before.
            tail.rest.push_back(commit.id);
            return Ok(None);
        }
        tail.commits.push(Arc::new(commit));
        let ids = recent(&tail.commits);
        laps.lap(Phase::Append);
        let message = self.message(&lane, &ids);
        laps.lap(Phase::Pack);
        message
    }

    /// The lanes that have an unmerged end here, the own one first.
    pub fn unmerged_lanes(&self) -> Vec<Lane> {
        let mut lanes: Vec<Lane> = self
            .tails
            .iter()
            .filter(|(_, tail)| !tail.commits.is_empty())
            .map(|(lane, _)| *lane)
            .collect();
        lanes.sort_by_key(|lane| *lane != self.own_lane);
        lanes
    }

    /// The unmerged end of a lane as a message, as much of it as fits, or `None` when all of it is merged.
    pub fn lane_message(&self, lane: &Lane) -> Result<Option<Vec<u8>>, CoreError> {
        let Some(tail) = self.tails.get(lane) else {
            return Ok(None);
        };
        let ids: Vec<Oid> = tail.commits.iter().map(|c| c.id).collect();
        self.message(lane, &ids)
    }

    fn message(&self, lane: &Lane, ids: &[Oid]) -> Result<Option<Vec<u8>>, CoreError> {
        if ids.is_empty() {
            return Ok(None);
        }
        // Compressed it is smaller, but a lane of random bodies must fit too.
        let (pack, taken) = self
            .ledger
            .pack_commits(ids, MAX_LANE_MESSAGE_BYTES / 2)
            .map_err(ledger_error)?;
        let message = LaneMessage {
            head: ids[taken - 1],
            lane: *lane,
        };
        let mut bytes = instar_attest::json::to_vec(&message).map_err(ledger_error)?;
        bytes.push(b'\n');
        bytes.extend(pack);
        Ok(Some(bytes))
    }

    /// Takes in a peer's lane message. Returns whether it brought anything new.
    pub fn receive_lane(&mut self, bytes: &[u8]) -> Result<bool, CoreError> {
        let (message, pack) = LaneMessage::parse(bytes)?;
        // A lane of a device that nobody registered is refused before its pack is unpacked.
        let key = self.lane_key(&message.lane)?;
        if message.lane == self.own_lane {
            return self.own_lane_heard(&message.head, pack, &key);
        }
        if self
            .tails
            .get(&message.lane)
            .is_some_and(|t| t.commits.iter().any(|c| c.id == message.head))
        {
            return Ok(false);
        }
        let mut laps = self.metrics.laps();
        self.ledger
            .import_pack_from(pack, MAX_LANE_MESSAGE_BYTES, |lane, signer| {
                *lane == message.lane && *signer == key
            })
            .map_err(|e| match e.is_forged() {
                true => CoreError::Forged(e.to_string()),
                false => CoreError::Refused(e.to_string()),
            })?;
        laps.lap(Phase::Unpack);
        self.check_fork(&message.lane, &message.head)?;
        self.extend_tail(&message.lane, &message.head)?;
        laps.lap(Phase::Signatures);
        self.ledger
            .set_lane(&message.lane, &message.head)
            .map_err(ledger_error)?;
        self.tails_changed();
        laps.lap(Phase::Publish);
        Ok(true)
    }

    fn extend_tail(&mut self, lane: &Lane, head: &Oid) -> Result<(), CoreError> {
        let merged = self.merged_seq(lane)?;
        let commits = self.verified_range(lane, head, merged)?;
        let known = self.tails.entry(*lane).or_default();
        if commits.len() <= known.commits.len() {
            return Ok(());
        }
        if known
            .commits
            .iter()
            .zip(&commits)
            .any(|(a, b)| a.id != b.id)
        {
            return Err(CoreError::Refused(format!(
                "lane {lane} says two things at one sequence number"
            )));
        }
        for commit in &commits[known.commits.len()..] {
            self.pending_ids
                .extend(commit.entries.iter().map(Entry::id));
        }
        known.commits = commits;
        Ok(())
    }

    /// The commits of `lane` after `merged` up to `head`, each with its exact bytes and signature checked.
    pub(crate) fn verified_range(
        &self,
        lane: &Lane,
        head: &Oid,
        merged: u64,
    ) -> Result<Vec<Arc<LaneCommit>>, CoreError> {
        let key = self.lane_key(lane)?;
        let known = self.tails.get(lane);
        let ids = self
            .ledger
            .lane_range(head, merged)
            .map_err(|e| CoreError::Refused(e.to_string()))?;
        if ids.len() > MAX_TAIL_COMMITS {
            return Err(CoreError::Refused(format!(
                "{} unmerged commits on lane {lane}, at most {MAX_TAIL_COMMITS} are kept",
                ids.len()
            )));
        }
        let mut parent = self.merged_head(lane)?;
        let mut commits = Vec::with_capacity(ids.len());
        for (expected, id) in (merged + 1..).zip(ids) {
            // What is known begins where the trunk stands too.
            let at = commits.len();
            let verified = known.and_then(|t| t.commits.get(at));
            let commit = match verified.filter(|c| c.id == id) {
                Some(commit) => Arc::clone(commit),
                None => Arc::new(
                    self.ledger
                        .verify_lane_commit(&id, &key)
                        .map_err(|e| CoreError::Refused(e.to_string()))?,
                ),
            };
            if !merge::continues(&commit, lane, expected, &parent) {
                return Err(CoreError::Refused(format!(
                    "commit {id} does not continue lane {lane} at {expected}"
                )));
            }
            parent = id;
            commits.push(commit);
        }
        Ok(commits)
    }

    pub(crate) fn merged_seq(&self, lane: &Lane) -> Result<u64, CoreError> {
        Ok(query::lane(&self.state.view()?, lane)?.map_or(0, |m| m.seq))
    }

    fn merged_head(&self, lane: &Lane) -> Result<Oid, CoreError> {
        Ok(query::lane(&self.state.view()?, lane)?.map_or(self.genesis_block, |m| m.head))
    }

    /// The key that signs a lane, from the registry; unregistered devices have no lanes.
    fn lane_key(&self, lane: &Lane) -> Result<PublicKey, CoreError> {
        query::lane_key(&self.state.view()?, lane)?.ok_or(CoreError::Stranger(lane.device))
    }

    /// Cuts from every tail what the trunk has merged by now, and loads what follows.
    pub(crate) fn trim_tails(&mut self, ranges: &[instar_ledger::LaneRange]) {
        for range in ranges {
            let lane = range.lane();
            let tail: &mut Tail = self.tails.entry(lane).or_default();
            let conflict = tail
                .commits
                .iter()
                .any(|c| c.seq == range.to && c.id != range.head);
            let keep = |c: &Arc<LaneCommit>| c.seq > range.to && !conflict;
            for gone in tail.commits.iter().filter(|c| !keep(c)) {
                for entry in &gone.entries {
                    self.pending_ids.remove(&entry.id());
                }
            }
            tail.commits.retain(keep);
            if conflict {
                tail.rest.clear();
            } else if let Err(e) = self.refill_tail(&lane) {
                tracing::warn!(%lane, error = %e, "the rest of a lane is not usable; it is fetched again");
            }
        }
        self.tails
            .retain(|_, tail| !tail.commits.is_empty() || !tail.rest.is_empty());
        self.tails_changed();
    }

    /// Verifies and loads as much of what is known by id alone as has room now.
    fn refill_tail(&mut self, lane: &Lane) -> Result<(), CoreError> {
        let Some(tail) = self.tails.get_mut(lane) else {
            return Ok(());
        };
        let room = MAX_TAIL_COMMITS.saturating_sub(tail.commits.len());
        // In halves, so that not every block that merges a few commits walks the lane.
        if tail.rest.is_empty() || room < MAX_TAIL_COMMITS / 2 {
            return Ok(());
        }
        let mut next: VecDeque<Oid> = std::mem::take(&mut tail.rest);
        let later = next.split_off(next.len().min(room));
        let Some(head) = next.back().copied() else {
            return Ok(());
        };
        self.extend_tail(lane, &head)?;
        self.tails.entry(*lane).or_default().rest = later;
        Ok(())
    }

    /// Entries in lanes that no block has merged, as far as they are in memory.
    pub fn pending(&self) -> usize {
        self.tails
            .values()
            .flat_map(|t| &t.commits)
            .map(|c| c.entries.len())
            .sum()
    }

    /// Signs a statement with the node's own account. The nonce follows the state and what is under way in any lane.
    pub fn sign_statement(&self, topic: &str, body: Value) -> Result<Entry, CoreError> {
        let (_, nonce) = self.nonces(&self.keys.account.public())?;
        Entry::sign(&self.chain, &self.keys.account, nonce, topic, body)
            .map_err(|e| CoreError::Refused(e.to_string()))
    }

    /// The nonce of an author's next entry: by the trunk alone, and by the trunk and every lane known here.
    pub fn nonces(&self, author: &PublicKey) -> Result<(u64, u64), CoreError> {
        let nonce = query::nonce(&self.state.view()?, author)?;
        let next = self.pending_by(author).map(|e| e.nonce + 1);
        Ok((nonce, next.fold(nonce, u64::max)))
    }

    /// Unmerged entries of one author.
    pub fn pending_by<'a>(&'a self, author: &'a PublicKey) -> impl Iterator<Item = &'a Entry> + 'a {
        self.tails
            .values()
            .flat_map(|t| &t.commits)
            .flat_map(|c| &c.entries)
            .filter(move |e| e.author == *author)
    }
}
