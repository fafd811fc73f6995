//! One line of blocks, from the head back to genesis, or to a block that was verified before. What the blocks say is
//! read by `reader`; here only their ids are found.

use instar_attest::ChainId;
use instar_ledger::grammar::{self, Kind};
use instar_ledger::{Certificate, Genesis, Oid};

use crate::objects::{ObjectError, Objects};
use crate::wrong::{At, Wrong};

/// A chain longer than this can't be audited in memory; ids alone take 32 bytes a block.
pub const MAX_BLOCKS: usize = 50_000_000;

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

impl History {
    /// Finds the head, goes back to genesis, and checks genesis and tip.
    pub fn open(objects: Objects) -> Result<Self, Wrong> {
        Self::open_above(objects, None).map(|(history, _)| history)
    }

    /// As [`History::open`]; goes back to `known` only, if the trunk holds it. Says whether it does: a clone that is
    /// older than what is known is read from genesis.
    pub fn open_above(objects: Objects, known: Option<Known>) -> Result<(Self, bool), Wrong> {
        let at = At::new("clone", "the clone");
        // The tip is authoritative; a chain without a block has none.
        let tip = objects
            .branch("tip")
            .or_else(|_| objects.branch("trunk"))
            .map_err(|e| at.unread(&e))?;
        let known = known.filter(|k| objects.read(&k.chain.into(), Kind::Commit).is_ok());
        let mut blocks = vec![tip];
        let mut met = false;
        loop {
            let id = blocks[blocks.len() - 1];
            if known.is_some_and(|k| k.block == id) {
                met = true;
                break;
            }
            let at = At::new("clone", format!("the trunk at {id}")).object(id);
            let parents = objects
                .read(&id, Kind::Commit)
                .and_then(|commit| Ok(grammar::parents(&commit)?))
                .map_err(|e| match e {
                    ObjectError::Missing { .. } if objects.is_shallow() => at.wrong(
                        "clone-shallow",
                        "the clone is shallow and begins after this block: it comes from a node that came by a \
                         snapshot, or was made with --depth; clone the ledger of an archive",
                    ),
                    e => at.unread(&e),
                })?;
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
        // All but a chain without blocks ends in its tip.
        let tip = (tip != root).then(|| blocks.pop()).flatten();
        let mut history = Self {
            objects,
            chain: root.into(),
            genesis,
            genesis_bytes,
            base,
            blocks,
            tip: None,
        };
        if let Some(tip) = tip {
            history.tip = Some((tip, history.read_tip(tip)?));
        }
        if let Some(k) = known.filter(|k| !met && k.height <= history.height()) {
            let id = history.id(k.height).unwrap_or(root);
            let at = At::block("clone", k.height, id);
            let why = format!(
                "block {} was verified before and is not in it any more",
                k.block
            );
            return Err(at.wrong("history-rewritten", why));
        }
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
