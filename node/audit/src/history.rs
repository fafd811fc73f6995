//! One line of blocks, from the head back to genesis, or to a block that was verified before. What the blocks say is
//! read by `reader`; here only their ids are found.

use instar_attest::ChainId;
use instar_ledger::grammar::{self, Kind};
use instar_ledger::{Certificate, Genesis, Oid};

use crate::objects::{ObjectError, Objects};
use crate::wrong::{At, Wrong};

/// A chain longer than this can't be audited in memory; ids alone take 32 bytes a block.
pub const MAX_BLOCKS: usize = 50_000_000;

/// How many chains one chain may descend from, each a fork of the one before.
const MAX_MOTHERS: usize = 64;

/// A clone whose line of blocks is known, and whose genesis and tip were checked.
pub struct History {
    pub(crate) objects: Objects,
    /// The chain.
    pub chain: ChainId,
    /// What it started with.
    pub genesis: Genesis,
    /// The bytes of `genesis.json`.
    pub genesis_bytes: Vec<u8>,
    /// The height of the first id in `blocks`.
    base: u64,
    /// Block ids from `base` on; genesis stands at 0.
    blocks: Vec<Oid>,
    /// The tip, and the certificate of the head in it; none if the chain has no block yet.
    pub(crate) tip: Option<(Oid, Certificate)>,
}

/// A block that was verified before: the walk back ends there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The chain.
    pub chain: ChainId,
    /// The block's height.
    pub height: u64,
    /// Its id.
    pub block: Oid,
}

/// A chain with those that it descends from: a fork's clone has its mother's history up to where it left her.
pub struct Lineage {
    /// The mothers that are not verified yet, oldest first; none of a chain that is no fork.
    pub mothers: Vec<History>,
    /// The chain itself.
    pub own: History,
}

impl Lineage {
    /// Finds the head, goes back to genesis, and on through the mothers; checks each genesis and the tip.
    pub fn open(objects: Objects) -> Result<Self, Wrong> {
        Self::open_above(objects, None).map(|(lineage, _)| lineage)
    }

    /// As [`Lineage::open`]; goes back to `known` only, if a trunk holds it. Says whether one does: a clone that is older
    /// than what is known is read from the first genesis.
    pub fn open_above(objects: Objects, known: Option<Known>) -> Result<(Self, bool), Wrong> {
        let at = At::new("clone", "the clone");
        // The tip is authoritative; a chain without a block has none.
        let tip = objects
            .branch("tip")
            .or_else(|_| objects.branch("trunk"))
            .map_err(|e| at.unread(&e))?;
        let known = known.filter(|k| objects.read(&k.chain.into(), Kind::Commit).is_ok());
        let again = objects.again().map_err(|e| at.unread(&e))?;
        let (mut own, mut met) = History::below(objects, tip, known)?;
        // All but a chain without blocks ends in its tip.
        if tip != Oid::from(own.chain) && own.blocks.len() > 1 {
            own.blocks.pop();
            own.tip = Some((tip, own.read_tip(tip)?));
        }
        let mut mothers: Vec<History> = Vec::new();
        while !met {
            let youngest = mothers.last().unwrap_or(&own);
            let Some(fork) = &youngest.genesis.fork else {
                break;
            };
            if mothers.len() == MAX_MOTHERS {
                let at = At::new("clone", "the clone");
                return Err(at.wrong("too-many", "the chain descends from too many others"));
            }
            let (chain, certificate) = (youngest.chain, fork.header.certificate.clone());
            let objects = again.again().map_err(|e| at.unread(&e))?;
            let (mut mother, found) = History::below(objects, fork.block(), known)?;
            if mother.chain != *fork.mother() || mother.height() != fork.height() {
                let at = At::new("genesis", "the genesis commit").object(chain.into());
                let why = format!(
                    "it names height {} of chain {}, but stands on height {} of chain {}",
                    fork.height(),
                    fork.mother(),
                    mother.height(),
                    mother.chain
                );
                return Err(at.wrong("other-mother", why));
            }
            mother.tip = Some((chain.into(), certificate));
            met = found;
            mothers.push(mother);
        }
        mothers.reverse();
        let lineage = Self { mothers, own };
        if let Some(k) = known.filter(|_| !met) {
            lineage.still_has(&k)?;
        }
        Ok((lineage, met))
    }

    /// A trunk that was verified up to a block has to have it still, or to end below.
    fn still_has(&self, known: &Known) -> Result<(), Wrong> {
        let all = self.mothers.iter().chain([&self.own]);
        let Some(line) = all.into_iter().find(|h| h.chain == known.chain) else {
            return Ok(());
        };
        let Some(id) = line.id(known.height) else {
            return Ok(());
        };
        let at = At::block("clone", known.height, id);
        let why = format!(
            "block {} was verified before and is not in it any more",
            known.block
        );
        Err(at.wrong("history-rewritten", why))
    }
}

impl History {
    /// The line from a commit back to the first genesis below it, or to `known`. Says whether it met that.
    fn below(objects: Objects, from: Oid, known: Option<Known>) -> Result<(Self, bool), Wrong> {
        let mut blocks = vec![from];
        let mut met = false;
        loop {
            let id = blocks[blocks.len() - 1];
            if known.is_some_and(|k| k.block == id) {
                met = true;
                break;
            }
            let at = At::new("clone", format!("the trunk at {id}")).object(id);
            let commit = objects.read(&id, Kind::Commit).map_err(|e| match e {
                ObjectError::Missing { .. } if objects.is_shallow() => at.wrong(
                    "clone-shallow",
                    "the clone is shallow and begins after this block: it comes from a node that is no \
                     archive, or was made with --depth; clone the ledger of an archive",
                ),
                e => at.unread(&e),
            })?;
            // What lies below a fork's genesis is its mother's.
            if grammar::is_genesis(&commit) {
                break;
            }
            let parents = grammar::parents(&commit).map_err(|e| at.unread(&e.into()))?;
            match parents.first() {
                Some(parent) if blocks.len() <= MAX_BLOCKS => blocks.push(*parent),
                Some(_) => return Err(at.wrong("too-many", "the trunk is too long")),
                None => break,
            }
        }
        blocks.reverse();
        let base = known.filter(|_| met).map_or(0, |k| k.height);
        let root = known
            .filter(|_| met)
            .map_or(blocks[0], |k| Oid::from(k.chain));
        let at = At::new("genesis", "the genesis commit")
            .object(root)
            .height(0);
        let (genesis, genesis_bytes) =
            grammar::read_genesis(&root, |id, kind| objects.read(id, kind))
                .map_err(|e| at.unread(&e))?;
        let history = Self {
            objects,
            chain: root.into(),
            genesis,
            genesis_bytes,
            base,
            blocks,
            tip: None,
        };
        Ok((history, met))
    }

    /// The newest height.
    pub fn height(&self) -> u64 {
        self.base + self.blocks.len() as u64 - 1
    }

    /// The block at a height, where it is known.
    pub fn id(&self, height: u64) -> Option<Oid> {
        let index = usize::try_from(height.checked_sub(self.base)?).ok()?;
        self.blocks.get(index).copied()
    }

    /// As [`History::id`]; what lies below what was verified before is found by its way back there.
    pub(crate) fn find(&self, height: u64) -> Result<Option<Oid>, Wrong> {
        if height >= self.base {
            return Ok(self.id(height));
        }
        let mut id = self.blocks[0];
        for below in (height..self.base).rev() {
            let at = At::new("clone", format!("the trunk at {id}"))
                .object(id)
                .height(below + 1);
            let commit = self
                .objects
                .read(&id, Kind::Commit)
                .map_err(|e| at.unread(&e))?;
            let parents = grammar::parents(&commit).map_err(|e| at.unread(&e.into()))?;
            let Some(parent) = parents.first() else {
                return Ok(None);
            };
            id = *parent;
        }
        Ok(Some(id))
    }

    /// The newest block; genesis before the first.
    pub fn head(&self) -> Oid {
        *self.blocks.last().expect("there is genesis at least")
    }

    fn read_tip(&self, id: Oid) -> Result<Certificate, Wrong> {
        let at = At::new("certificates", "the tip")
            .object(id)
            .height(self.height());
        let fetch = |id: &Oid, kind| self.objects.read(id, kind);
        let (_, certificate) =
            grammar::read_tip(&id, &self.chain, fetch).map_err(|e| at.unread(&e))?;
        Ok(certificate)
    }
}
