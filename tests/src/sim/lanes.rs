//! The lanes of a simulated node: its own, and what it heard of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use instar_chain::merge::{self, Refusal, refuse};
use instar_chain::query;
use instar_chain::record::LaneMark;
use instar_ledger::grammar::{self, Kind, LanePayload, Object};
use instar_ledger::{Entry, Lane, LaneCommit, LaneRange, Oid};

use super::disk::lock;
use super::host::{SimHost, packed, unpack};
use super::world::World;

/// Unmerged commits of one lane that are walked at most.
const MAX_TAIL: usize = 1024;

/// A lane's unmerged end, as it is gossiped.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneNews {
    /// Whose lane it is.
    pub lane: Lane,
    /// The newest commit in the pack.
    pub head: Oid,
    /// The commits.
    pub pack: Vec<u8>,
}

impl SimHost {
    /// Takes the own lane from disk.
    pub(super) fn load_own_lane(&mut self) {
        let lane = World::get().lane(self.number);
        let own = lock(&self.disk).store.lane.clone();
        let Some((head, _)) = own.last().cloned() else {
            return;
        };
        for (_, objects) in own {
            self.objects.extend(objects.into_iter().map(|o| (o.id, o)));
        }
        let merged = self.merged(&lane).expect("the state is readable");
        if let Ok(tail) = self.verified(&lane, &head, &merged, &BTreeMap::new()) {
            self.tails.insert(lane, tail);
        }
    }

    /// Appends entries to the own lane, durably; what the peers are told.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<LaneNews, String> {
        let world = World::get();
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let lane = world.lane(self.number);
        let (seq, parent) = {
            let disk = lock(&self.disk);
            let own = &disk.store.lane;
            let genesis = Oid::from(world.chain);
            (own.len() as u64 + 1, own.last().map_or(genesis, |c| c.0))
        };
        let bytes = grammar::entries_jsonl(&entries).map_err(|e| text(&e))?;
        let blob = Object::new(Kind::Blob, bytes);
        let tree = grammar::single_file_tree(grammar::ENTRIES_FILE, &blob);
        let payload = LanePayload {
            chain: world.chain,
            entries: entries.len(),
            lane,
            parent,
            seq,
            time_s: super::world::BEGIN_MS / 1000,
            tree: tree.id,
        };
        let signed = payload.sign(&world.secrets[self.number].lane);
        let bytes = signed.map_err(|e| text(&e))?.to_bytes();
        let commit = Object::new(Kind::Commit, bytes);
        let id = commit.id;
        let objects = vec![commit, tree, blob];
        {
            let mut disk = lock(&self.disk);
            disk.work().map_err(|e| text(&e))?;
            disk.store.lane.push((id, objects.clone()));
        }
        self.objects.extend(objects.into_iter().map(|o| (o.id, o)));
        let commit = Arc::new(LaneCommit {
            id,
            lane,
            seq,
            parent,
            time_s: super::world::BEGIN_MS / 1000,
            entries,
        });
        self.commits.insert(id, Arc::clone(&commit));
        self.tails.entry(lane).or_default().push(commit);
        self.lane_news(&lane)
            .ok_or_else(|| "the lane has an end".to_owned())
    }

    /// The lanes with an unmerged end here.
    pub fn unmerged(&self) -> Vec<Lane> {
        let tails = self.tails.iter().filter(|(_, t)| !t.is_empty());
        tails.map(|(lane, _)| *lane).collect()
    }

    /// A lane's unmerged end.
    pub fn lane_news(&self, lane: &Lane) -> Option<LaneNews> {
        let tail = self.tails.get(lane)?;
        let head = tail.last()?.id;
        let pack = packed(self.objects_of(tail).iter());
        Some(LaneNews {
            lane: *lane,
            head,
            pack,
        })
    }

    /// Takes in a peer's. Says whether it brought anything new.
    pub fn hear(&mut self, news: &LaneNews) -> Result<bool, Refusal> {
        let known = self.tails.get(&news.lane).map_or(&[][..], Vec::as_slice);
        let own = news.lane == World::get().lane(self.number);
        if own || known.iter().any(|c| c.id == news.head) {
            return Ok(false);
        }
        let fresh = unpack(&news.pack)?;
        let merged = self.merged(&news.lane)?;
        let tail = self.verified(&news.lane, &news.head, &merged, &fresh)?;
        let known = self.tails.entry(news.lane).or_default();
        if tail.len() <= known.len() {
            return Ok(false);
        }
        if known.iter().zip(&tail).any(|(a, b)| a.id != b.id) {
            return Err(refuse("lane-fork", news.lane.to_string()));
        }
        *known = tail;
        self.objects.extend(fresh);
        Ok(true)
    }

    /// Up to where a lane is merged.
    pub(super) fn merged(&self, lane: &Lane) -> Result<LaneMark, Refusal> {
        let mark = query::lane(&self.state, lane);
        let mark = mark.map_err(|e| refuse("state-corrupt", e.to_string()))?;
        Ok(mark.unwrap_or(LaneMark {
            head: Oid::from(World::get().chain),
            seq: 0,
        }))
    }

    /// The commits of a lane after what is merged up to `head`, oldest first, each with bytes and signature checked.
    pub(super) fn verified(
        &mut self,
        lane: &Lane,
        head: &Oid,
        merged: &LaneMark,
        fresh: &BTreeMap<Oid, Object>,
    ) -> Result<Vec<Arc<LaneCommit>>, Refusal> {
        let key = query::lane_key(&self.state, lane);
        let key = key.map_err(|e| refuse("state-corrupt", e.to_string()))?;
        let key = key.ok_or_else(|| refuse("lane-refused", "the device is not registered"))?;
        let mut run: Vec<Arc<LaneCommit>> = Vec::new();
        let mut next = *head;
        while next != merged.head && run.len() < MAX_TAIL {
            let commit = match self.commits.get(&next) {
                Some(commit) => Arc::clone(commit),
                None => {
                    let chain = World::get().chain;
                    let read = grammar::read_lane_commit(next, &chain, |id, kind| {
                        super::host::fetch(fresh, &self.objects, id, kind)
                    });
                    let (commit, signer) =
                        read.map_err(|e| refuse("lane-refused", e.to_string()))?;
                    if signer != key {
                        return Err(refuse("lane-refused", "signed by another key"));
                    }
                    let commit = Arc::new(commit);
                    self.commits.insert(next, Arc::clone(&commit));
                    commit
                }
            };
            if commit.seq <= merged.seq {
                return Err(refuse(
                    "lane-refused",
                    "it does not stand on what is merged",
                ));
            }
            next = commit.parent;
            run.push(commit);
        }
        run.reverse();
        let mut parent = merged.head;
        for (seq, commit) in (merged.seq + 1..).zip(&run) {
            if !merge::continues(commit, lane, seq, &parent) {
                return Err(refuse("lane-refused", format!("a gap at {seq}")));
            }
            parent = commit.id;
        }
        Ok(run)
    }

    /// The objects of lane commits.
    pub(super) fn objects_of(&self, commits: &[Arc<LaneCommit>]) -> Vec<Object> {
        let mut out = Vec::new();
        for commit in commits {
            let blob = grammar::entries_jsonl(&commit.entries).unwrap_or_default();
            let blob = Object::new(Kind::Blob, blob);
            let tree = grammar::single_file_tree(grammar::ENTRIES_FILE, &blob);
            out.extend(self.objects.get(&commit.id).cloned());
            out.extend([tree, blob]);
        }
        out
    }

    /// Cuts from every tail what is merged by now.
    pub(super) fn trim_tails(&mut self, ranges: &[LaneRange]) {
        for range in ranges {
            let tail = self.tails.entry(range.lane()).or_default();
            let mut commits = tail.iter();
            let conflict = commits.any(|c| c.seq == range.to && c.id != range.head);
            tail.retain(|c| c.seq > range.to && !conflict);
        }
        self.tails.retain(|_, tail| !tail.is_empty());
    }
}
