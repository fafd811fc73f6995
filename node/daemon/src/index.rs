//! Where the receipt of each entry stands. An index, not a truth: it is made again from the ledger when it is lost.

use std::path::Path;

use instar_attest::Digest;
use instar_ledger::{Receipt, ReceiptLine};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};

/// Entry id → block height and position among the block's receipt lines.
const RECEIPTS: TableDefinition<&[u8; 32], (u64, u32)> = TableDefinition::new("receipts");
/// The height up to which blocks are indexed.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const DONE: &str = "done";

/// The index could not be read or written; deleting the file is safe.
#[derive(Debug, thiserror::Error)]
#[error("the receipt index failed ({0}); it can be deleted, the node makes it again")]
pub struct IndexError(String);

fn fail(e: impl std::fmt::Display) -> IndexError {
    IndexError(e.to_string())
}

/// The index of one node.
pub struct Index(Database);

/// Copies of an entry leave receipts too; the one that says what became of the entry counts.
pub(crate) fn is_copy(receipt: &Receipt) -> bool {
    receipt
        .rule
        .as_deref()
        .is_some_and(|rule| rule.starts_with("nonce-"))
}

impl Index {
    /// Opens or makes the index.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let db = Database::create(path).map_err(fail)?;
        let tx = db.begin_write().map_err(fail)?;
        tx.open_table(RECEIPTS).map_err(fail)?;
        tx.open_table(META).map_err(fail)?;
        tx.commit().map_err(fail)?;
        Ok(Self(db))
    }

    /// The newest indexed height; 0 when there is none.
    pub fn done(&self) -> Result<u64, IndexError> {
        let tx = self.0.begin_read().map_err(fail)?;
        let meta = tx.open_table(META).map_err(fail)?;
        Ok(meta.get(DONE).map_err(fail)?.map_or(0, |v| v.value()))
    }

    /// Notes the receipts of a block. Not synced: after a crash the tail is indexed again.
    pub fn add(&self, height: u64, lines: &[ReceiptLine]) -> Result<(), IndexError> {
        let mut tx = self.0.begin_write().map_err(fail)?;
        tx.set_durability(Durability::None).map_err(fail)?;
        {
            let mut table = tx.open_table(RECEIPTS).map_err(fail)?;
            for (position, line) in lines.iter().enumerate() {
                let ReceiptLine::Entry(receipt) = line else {
                    continue;
                };
                let position = u32::try_from(position).map_err(fail)?;
                let known = table.get(receipt.entry.as_bytes()).map_err(fail)?.is_some();
                if !known || !is_copy(receipt) {
                    table
                        .insert(receipt.entry.as_bytes(), (height, position))
                        .map_err(fail)?;
                }
            }
            tx.open_table(META)
                .map_err(fail)?
                .insert(DONE, height)
                .map_err(fail)?;
        }
        tx.commit().map_err(fail)
    }

    /// Height and position of an entry's receipt.
    pub fn find(&self, entry: &Digest) -> Result<Option<(u64, u32)>, IndexError> {
        let tx = self.0.begin_read().map_err(fail)?;
        let table = tx.open_table(RECEIPTS).map_err(fail)?;
        Ok(table
            .get(entry.as_bytes())
            .map_err(fail)?
            .map(|v| v.value()))
    }
}
