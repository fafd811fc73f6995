//! Lanes: appending to the own one, taking in the others'.

use std::collections::BTreeSet;
use std::sync::Arc;

use instar_attest::{Digest, PublicKey};
use instar_chain::query;
use instar_ledger::{Entry, Lane, LaneCommit, Oid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Core, CoreError, Tail, ledger_error};

/// The largest lane message on the data swarm; larger tails are cut at a prefix.
pub const MAX_LANE_MESSAGE_BYTES: usize = 2 << 20;
/// Unmerged commits that are kept of one lane; a device that floods waits for the trunk.
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
            return Err(CoreError::Refused(format!(
                "a lane message of {} bytes",
                bytes.len()
            )));
        }
        let end = bytes
            .iter()
            .position(|b| *b == b'\n')
            .ok_or_else(|| CoreError::Refused("a lane message without a first line".into()))?;
        let message = instar_attest::json::from_slice(&bytes[..end], 1024)
            .map_err(|e| CoreError::Refused(e.to_string()))?;
        Ok((message, &bytes[end + 1..]))
    }
}

impl Core {
    /// Every lane's unmerged end as it stands on disk, verified; for the start.
    pub(crate) fn load_tails(&mut self) -> Result<(), CoreError> {
        for (lane, head, _) in self.ledger.lane_heads() {
            if let Err(e) = self.extend_tail(&lane, &head) {
                tracing::warn!(%lane, error = %e, "a lane on disk is not usable; its unmerged end is fetched again");
            }
        }
        Ok(())
    }

    /// Appends entries to the own lane and returns the commit with the message that tells the peers.
    ///
    /// Entries that are pending already are left out; `None` when nothing is left.
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
        let commit = self
            .ledger
            .append_lane(&self.keys.lane, &lane, &entries, time_s)
            .map_err(ledger_error)?;
        self.pending_ids.extend(fresh);
        self.tails
            .entry(lane)
            .or_default()
            .commits
            .push(Arc::new(commit));
        self.own_lane_message()
    }

    /// The unmerged end of the own lane as a message, or `None` when all of it is merged.
    pub fn own_lane_message(&self) -> Result<Option<Vec<u8>>, CoreError> {
        let lane = self.own_lane;
        let Some(tail) = self.tails.get(&lane) else {
            return Ok(None);
        };
        let Some(last) = tail.commits.last() else {
            return Ok(None);
        };
        let merged = self.merged_seq(&lane)?;
        let pack = self.ledger.pack_lane(&lane, merged).map_err(ledger_error)?;
        let message = LaneMessage {
            head: last.id,
            lane,
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
            return Ok(false);
        }
        if self
            .tails
            .get(&message.lane)
            .is_some_and(|t| t.commits.iter().any(|c| c.id == message.head))
        {
            return Ok(false);
        }
        self.ledger
            .import_pack_from(pack, MAX_LANE_MESSAGE_BYTES, |lane, signer| {
                *lane == message.lane && *signer == key
            })
            .map_err(|e| CoreError::Refused(e.to_string()))?;
        self.extend_tail(&message.lane, &message.head)?;
        self.ledger
            .set_lane(&message.lane, &message.head)
            .map_err(ledger_error)?;
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
            let commit = match known.and_then(|t| t.commits.iter().find(|c| c.id == id)) {
                Some(commit) => Arc::clone(commit),
                None => Arc::new(
                    self.ledger
                        .verify_lane_commit(&id, &key)
                        .map_err(|e| CoreError::Refused(e.to_string()))?,
                ),
            };
            if commit.lane != *lane || commit.seq != expected || commit.parent != parent {
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
        let device = query::device(&self.state.view()?, &lane.device)?;
        let device = device.ok_or_else(|| {
            CoreError::Refused(format!("device {} is not registered", lane.device))
        })?;
        Ok(device.lane_key)
    }

    /// Cuts from every tail what the trunk has merged by now.
    pub(crate) fn trim_tails(&mut self, ranges: &[instar_ledger::LaneRange]) {
        for range in ranges {
            let tail: &mut Tail = self.tails.entry(range.lane()).or_default();
            let conflict = tail
                .commits
                .iter()
                .any(|c| c.seq == range.to && c.id != range.head);
            tail.commits.retain(|c| c.seq > range.to && !conflict);
        }
        let left: BTreeSet<Digest> = self
            .tails
            .values()
            .flat_map(|t| &t.commits)
            .flat_map(|c| c.entries.iter().map(Entry::id))
            .collect();
        self.pending_ids = left;
    }

    /// Entries in lanes that no block has merged.
    pub fn pending(&self) -> usize {
        self.tails
            .values()
            .flat_map(|t| &t.commits)
            .map(|c| c.entries.len())
            .sum()
    }

    /// Signs a statement with the node's own account. The nonce follows the state and what is under way in any lane.
    pub fn sign_statement(&self, topic: &str, body: Value) -> Result<Entry, CoreError> {
        let author = self.keys.account.public();
        let mut nonce = query::nonce(&self.state.view()?, &author)?;
        for entry in self.pending_by(&author) {
            nonce = nonce.max(entry.nonce + 1);
        }
        Entry::sign(&self.chain, &self.keys.account, nonce, topic, body)
            .map_err(|e| CoreError::Refused(e.to_string()))
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
