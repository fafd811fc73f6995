//! The whole chain, from genesis to the tip: every byte of every block and lane commit, every certificate.

use std::collections::BTreeMap;

use instar_attest::ChainId;
use instar_ledger::grammar::{
    CERTIFICATE_FILE, ENTRIES_FILE, GENESIS_FILE, Kind, SignedLaneCommit, genesis_objects,
    read_block, read_entries, single_file_tree, tip_commit, tip_tree,
};
use instar_ledger::grammar::{GrammarError, Object};
use instar_ledger::{Block, Certificate, Genesis, Lane, LaneCommit, LaneRange, Oid, ReceiptLine};

use crate::objects::{ObjectError, Objects};

/// A chain longer than this can't be audited in memory; ids alone take 32 bytes a block.
pub const MAX_BLOCKS: usize = 50_000_000;

/// Why a clone is not a chain.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// An object is missing, or not what it should be.
    #[error("{what}: {source}")]
    Object {
        /// Which one.
        what: String,
        /// What is wrong with it.
        source: ObjectError,
    },
    /// Something does not fit what stands before it.
    #[error("{what}: {why}")]
    Broken {
        /// Where.
        what: String,
        /// What does not fit.
        why: String,
    },
}

impl HistoryError {
    fn at(what: impl Into<String>) -> impl FnOnce(ObjectError) -> Self {
        let what = what.into();
        move |source| Self::Object { what, source }
    }

    pub(crate) fn broken(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Broken {
            what: what.into(),
            why: why.into(),
        }
    }
}

fn grammar(what: &str, error: GrammarError) -> HistoryError {
    HistoryError::Object {
        what: what.to_owned(),
        source: error.into(),
    }
}

/// A clone whose shape was checked: one line of blocks from the head to genesis.
pub struct History {
    objects: Objects,
    /// The chain.
    pub chain: ChainId,
    /// What it started with.
    pub genesis: Genesis,
    /// The bytes of `genesis.json`.
    pub genesis_bytes: Vec<u8>,
    /// The block ids; genesis stands at 0.
    pub blocks: Vec<Oid>,
    /// The certificate of the head; none if the chain has no block yet.
    pub tip: Option<Certificate>,
}

impl History {
    /// Finds the head, goes back to genesis, and checks genesis and tip.
    pub fn open(objects: Objects) -> Result<Self, HistoryError> {
        // The tip is authoritative; a chain without a block has none.
        let tip = objects
            .branch("tip")
            .or_else(|_| objects.branch("trunk"))
            .map_err(HistoryError::at("the tip"))?;
        let commit = objects
            .read(&tip, Kind::Commit)
            .map_err(HistoryError::at("the tip"))?;
        let Some(head) = first_parent(&commit) else {
            return Self::without_blocks(objects, tip);
        };
        let mut blocks = vec![head];
        loop {
            let id = blocks[blocks.len() - 1];
            let commit = objects
                .read(&id, Kind::Commit)
                .map_err(HistoryError::at(format!("block {id}")))?;
            match first_parent(&commit) {
                Some(parent) if blocks.len() < MAX_BLOCKS => blocks.push(parent),
                Some(_) => return Err(HistoryError::broken("the trunk", "it is too long")),
                None => break,
            }
        }
        blocks.reverse();
        let (genesis, genesis_bytes) = read_genesis(&objects, &blocks[0])?;
        let chain = ChainId::from(blocks[0]);
        let mut history = Self {
            objects,
            chain,
            genesis,
            genesis_bytes,
            blocks,
            tip: None,
        };
        history.tip = Some(history.read_tip(&tip, &commit)?);
        Ok(history)
    }

    fn without_blocks(objects: Objects, tip: Oid) -> Result<Self, HistoryError> {
        let (genesis, genesis_bytes) = read_genesis(&objects, &tip)?;
        Ok(Self {
            objects,
            chain: tip.into(),
            genesis,
            genesis_bytes,
            blocks: vec![tip],
            tip: None,
        })
    }

    /// The newest height.
    pub fn height(&self) -> u64 {
        self.blocks.len() as u64 - 1
    }

    /// Reads a block, exactly, and checks that it stands where it says.
    pub fn block(&self, height: u64) -> Result<Block, HistoryError> {
        let what = format!("block {height}");
        let index = height as usize;
        let fetch = |id: &Oid, kind| self.objects.read(id, kind);
        let block =
            read_block(self.blocks[index], &self.chain, fetch).map_err(HistoryError::at(&what))?;
        if block.header.height != height {
            let why = format!("its header says height {}", block.header.height);
            return Err(HistoryError::broken(what, why));
        }
        if block.header.parent != self.blocks[index - 1] {
            let why = format!("its header names parent {}", block.header.parent);
            return Err(HistoryError::broken(what, why));
        }
        Ok(block)
    }

    /// The certificate of a block: in the next block, or in the tip. `next` is the block after it, if there is one.
    pub fn certificate<'a>(&'a self, next: Option<&'a Block>) -> Option<&'a Certificate> {
        match next {
            Some(block) => block.previous.as_ref(),
            None => self.tip.as_ref(),
        }
    }

    /// The commits that a block merges of one lane, oldest first, each with the key that signed it. `merged` is what
    /// stood in the trunk of this lane before: the head and its sequence number.
    pub fn lane_range(
        &self,
        range: &LaneRange,
        merged: Option<(Oid, u64)>,
    ) -> Result<Vec<(LaneCommit, instar_attest::PublicKey)>, HistoryError> {
        let lane = range.lane();
        let what = format!("lane {lane}, {} to {}", range.from, range.to);
        let (base, before) = merged.unwrap_or((Oid::from(self.chain), 0));
        if range.from != before + 1 {
            let why = format!("it does not follow on {before}, which is merged");
            return Err(HistoryError::broken(what, why));
        }
        let mut out = Vec::new();
        let mut id = range.head;
        for seq in (range.from..=range.to).rev() {
            let (commit, key) = self.lane_commit(&id, &lane)?;
            if commit.seq != seq {
                let why = format!("commit {id} has sequence number {}, not {seq}", commit.seq);
                return Err(HistoryError::broken(what, why));
            }
            id = commit.parent;
            out.push((commit, key));
        }
        if id != base {
            let why = format!("its oldest commit stands on {id}, not on {base}");
            return Err(HistoryError::broken(what, why));
        }
        out.reverse();
        Ok(out)
    }

    fn lane_commit(
        &self,
        id: &Oid,
        lane: &Lane,
    ) -> Result<(LaneCommit, instar_attest::PublicKey), HistoryError> {
        let what = format!("lane commit {id}");
        let bytes = self
            .objects
            .read(id, Kind::Commit)
            .map_err(HistoryError::at(&what))?;
        let signed =
            SignedLaneCommit::from_bytes(&bytes, &self.chain).map_err(|e| grammar(&what, e))?;
        let payload = signed.payload;
        if payload.lane != *lane {
            let why = format!("it belongs to lane {}", payload.lane);
            return Err(HistoryError::broken(what, why));
        }
        let tree = self
            .objects
            .read(&payload.tree, Kind::Tree)
            .map_err(HistoryError::at(&what))?;
        // The tree holds this one file and nothing else; its id is in the last 32 bytes.
        let blob = tree
            .last_chunk::<32>()
            .map(|id| Oid::from_bytes(*id))
            .ok_or_else(|| HistoryError::broken(&what, "its tree is empty"))?;
        let content = self
            .objects
            .read(&blob, Kind::Blob)
            .map_err(HistoryError::at(&what))?;
        let content = Object::new(Kind::Blob, content);
        if single_file_tree(ENTRIES_FILE, &content).bytes != tree {
            let why = "its tree is not that of one entries.jsonl";
            return Err(HistoryError::broken(what, why));
        }
        let entries = read_entries(&content.bytes, &self.chain).map_err(|e| grammar(&what, e))?;
        if entries.len() != payload.entries {
            let why = format!(
                "it says {} entries and has {}",
                payload.entries,
                entries.len()
            );
            return Err(HistoryError::broken(what, why));
        }
        let commit = LaneCommit {
            id: *id,
            lane: payload.lane,
            seq: payload.seq,
            parent: payload.parent,
            time_s: payload.time_s,
            entries,
        };
        Ok((commit, signed.sig.key))
    }

    /// Rebuilds the tip from its certificate and compares.
    fn read_tip(&self, id: &Oid, commit: &[u8]) -> Result<Certificate, HistoryError> {
        let what = format!("the tip {id}");
        let tree = tree_of(commit)
            .ok_or_else(|| HistoryError::broken(&what, "it is no commit with a tree"))?;
        let tree = self
            .objects
            .read(&tree, Kind::Tree)
            .map_err(HistoryError::at(&what))?;
        let blob = tree
            .last_chunk::<32>()
            .map(|id| Oid::from_bytes(*id))
            .ok_or_else(|| HistoryError::broken(&what, "its tree is empty"))?;
        let bytes = self
            .objects
            .read(&blob, Kind::Blob)
            .map_err(HistoryError::at(&what))?;
        let certificate = Certificate::from_bytes(&bytes)
            .map_err(|e| HistoryError::broken(&what, format!("{CERTIFICATE_FILE}: {e}")))?;
        let head = self.block(self.height())?;
        let [tree, _] = tip_tree(&certificate).map_err(|e| grammar(&what, e))?;
        let rebuilt = tip_commit(&self.chain, &certificate, &tree.id, head.header.time_ms);
        if rebuilt != commit {
            let why = "it is not the commit that its certificate asks for";
            return Err(HistoryError::broken(what, why));
        }
        Ok(certificate)
    }
}

/// That each merged entry has exactly one receipt, in merge order.
pub fn check_receipt_order(
    height: u64,
    lanes: &[LaneCommit],
    receipts: &[ReceiptLine],
) -> Result<(), HistoryError> {
    let what = format!("block {height}");
    let mut receipts = receipts.iter().filter_map(|line| match line {
        ReceiptLine::Entry(receipt) => Some(receipt),
        ReceiptLine::Event(_) => None,
    });
    for commit in lanes {
        for (index, entry) in commit.entries.iter().enumerate() {
            let receipt = receipts.next().filter(|r| {
                (r.entry, r.lane, r.seq, r.index as usize)
                    == (entry.id(), commit.lane, commit.seq, index)
            });
            if receipt.is_none() {
                let why = format!("entry {} has no receipt in its place", entry.id());
                return Err(HistoryError::broken(what, why));
            }
        }
    }
    match receipts.next() {
        None => Ok(()),
        Some(extra) => {
            let why = format!("a receipt for {}, which was not merged", extra.entry);
            Err(HistoryError::broken(what, why))
        }
    }
}

/// Where each lane stands in the trunk.
pub type Merged = BTreeMap<Lane, (Oid, u64)>;

fn read_genesis(objects: &Objects, id: &Oid) -> Result<(Genesis, Vec<u8>), HistoryError> {
    let what = format!("the genesis commit {id}");
    let commit = objects
        .read(id, Kind::Commit)
        .map_err(HistoryError::at(&what))?;
    let tree = tree_of(&commit).ok_or_else(|| HistoryError::broken(&what, "it has no tree"))?;
    let tree = objects
        .read(&tree, Kind::Tree)
        .map_err(HistoryError::at(&what))?;
    let blob = tree
        .last_chunk::<32>()
        .map(|id| Oid::from_bytes(*id))
        .ok_or_else(|| HistoryError::broken(&what, "its tree is empty"))?;
    let bytes = objects
        .read(&blob, Kind::Blob)
        .map_err(HistoryError::at(&what))?;
    let genesis = Genesis::from_bytes(&bytes)
        .map_err(|e| HistoryError::broken(&what, format!("{GENESIS_FILE}: {e}")))?;
    let [rebuilt, ..] = genesis_objects(&genesis).map_err(|e| grammar(&what, e))?;
    if rebuilt.id != *id {
        let why = "it is not the commit that its genesis.json asks for";
        return Err(HistoryError::broken(what, why));
    }
    Ok((genesis, bytes))
}

/// The first parent, read leniently: whatever uses it rebuilds the commit afterwards.
fn first_parent(commit: &[u8]) -> Option<Oid> {
    header_line(commit, "parent ")
}

fn tree_of(commit: &[u8]) -> Option<Oid> {
    header_line(commit, "tree ")
}

fn header_line(commit: &[u8], name: &str) -> Option<Oid> {
    let text = String::from_utf8_lossy(commit);
    text.lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(name))
        .and_then(|hex| hex.parse().ok())
}
