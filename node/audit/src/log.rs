//! What the ledger says about builds and upgrades: the signed entries, their receipts, and the ledger's own events, in
//! the order in which they took effect.

use instar_attest::{Digest, PublicKey};
use instar_chain::ops::{BUILD, BuildOp, UPGRADE, UpgradeOp};
use instar_ledger::{Entry, Event, LaneCommit, Outcome, Receipt, ReceiptLine};
use serde::de::DeserializeOwned;

/// An entry about builds or upgrades, with what became of it.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its id.
    pub id: Digest,
    /// The block that merged it.
    pub height: u64,
    /// What was signed.
    pub entry: Entry,
    /// What became of it.
    pub receipt: Receipt,
}

/// All of it, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Entries with the topics `build` and `upgrade`.
    pub entries: Vec<Logged>,
    /// Transitions that the ledger made by itself, with their heights.
    pub events: Vec<(u64, Event)>,
    /// How many entries of any topic there are.
    pub entries_total: u64,
}

/// An operation that took effect.
#[derive(Debug, Clone)]
pub struct Applied<T> {
    /// The entry's id.
    pub id: Digest,
    /// The block that merged it.
    pub height: u64,
    /// Who signed it.
    pub author: PublicKey,
    /// What it says.
    pub op: T,
}

impl Log {
    /// Adds a block, whose receipts are in merge order.
    pub(crate) fn add(&mut self, height: u64, lanes: &[LaneCommit], receipts: &[ReceiptLine]) {
        let mut entries = lanes.iter().flat_map(|commit| &commit.entries);
        for line in receipts {
            match line {
                ReceiptLine::Event(event) => self.events.push((height, event.clone())),
                ReceiptLine::Entry(receipt) => {
                    self.entries_total += 1;
                    // What is merged of forks is no native entry, and stands after all of this chain's.
                    if receipt.chain.is_some() {
                        continue;
                    }
                    // The order of receipts was compared with that of entries before.
                    let Some(entry) = entries.next() else { return };
                    if entry.topic == BUILD || entry.topic == UPGRADE {
                        self.entries.push(Logged {
                            id: receipt.entry,
                            height,
                            entry: entry.clone(),
                            receipt: receipt.clone(),
                        });
                    }
                }
            }
        }
    }

    /// The build operations that took effect.
    pub fn builds(&self) -> impl Iterator<Item = Applied<BuildOp>> {
        self.applied(BUILD)
    }

    /// The upgrade operations that took effect.
    pub fn upgrades(&self) -> impl Iterator<Item = Applied<UpgradeOp>> {
        self.applied(UPGRADE)
    }

    fn applied<'a, T: DeserializeOwned + 'a>(
        &'a self,
        topic: &'a str,
    ) -> impl Iterator<Item = Applied<T>> + 'a {
        self.entries
            .iter()
            .filter(move |e| e.entry.topic == topic && e.receipt.outcome == Outcome::Applied)
            .filter_map(|e| {
                Some(Applied {
                    id: e.id,
                    height: e.height,
                    author: e.entry.author,
                    op: serde_json::from_value(e.entry.body.clone()).ok()?,
                })
            })
    }
}
