//! Where the receipt of each entry stands, and at which heights the validator set changed. An index, not a truth: it is
//! made again from the ledger when it is lost.

use std::path::Path;

use instar_attest::{Digest, json};
use instar_ledger::{Receipt, ReceiptLine, ValidatorSet};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};

/// Entry id → block height and position among the block's receipt lines.
const RECEIPTS: TableDefinition<&[u8; 32], (u64, u32)> = TableDefinition::new("receipts");
/// Height → the validator set that its header names, where that is another one than before; canonical JSON.
const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("validator-changes");
/// The height up to which blocks are indexed.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const DONE: &str = "done";

/// Memory for pages of the index. Entry ids lie anywhere in it, so that more would be of little use.
const CACHE_BYTES: usize = 256 << 10;
/// Blocks between two that are synced: so many are indexed again after a crash, and for so long the file can't use the
/// place again of what was rewritten.
const SYNC_EVERY: u64 = 64;

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
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(fail)?;
        let tx = db.begin_write().map_err(fail)?;
        tx.open_table(RECEIPTS).map_err(fail)?;
        tx.open_table(CHANGES).map_err(fail)?;
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

    /// Notes the receipts of a block, and the validator set that its header names if that is another one than before.
    /// Seldom synced: after a crash the tail is indexed again.
    pub fn add(
        &self,
        height: u64,
        lines: &[ReceiptLine],
        changed: Option<&ValidatorSet>,
    ) -> Result<(), IndexError> {
        let mut tx = self.0.begin_write().map_err(fail)?;
        let synced = height.is_multiple_of(SYNC_EVERY);
        tx.set_durability(match synced {
            true => Durability::Immediate,
            false => Durability::None,
        })
        .map_err(fail)?;
        {
            let mut table = tx.open_table(RECEIPTS).map_err(fail)?;
            for (position, line) in lines.iter().enumerate() {
                let ReceiptLine::Entry(receipt) = line else {
                    continue;
                };
                let position = u32::try_from(position).map_err(fail)?;
                let entry = receipt.entry.as_bytes();
                // Looked up for copies alone, which are rare: ids lie anywhere, so that each look is a page to read.
                if !is_copy(receipt) || table.get(entry).map_err(fail)?.is_none() {
                    table.insert(entry, (height, position)).map_err(fail)?;
                }
            }
            if let Some(set) = changed {
                let bytes = json::to_vec(set).map_err(fail)?;
                tx.open_table(CHANGES)
                    .map_err(fail)?
                    .insert(height, bytes.as_slice())
                    .map_err(fail)?;
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

    /// Up to `limit` changes of the validator set above a height, oldest first.
    pub fn changes(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, ValidatorSet)>, IndexError> {
        let tx = self.0.begin_read().map_err(fail)?;
        let table = tx.open_table(CHANGES).map_err(fail)?;
        let from = after.saturating_add(1);
        table
            .range(from..)
            .map_err(fail)?
            .take(limit)
            .map(|row| {
                let (height, set) = row.map_err(fail)?;
                Ok((height.value(), read_set(set.value())?))
            })
            .collect()
    }

    /// The set that the newest change at or below a height brought; none if there was no change yet.
    pub fn change_at_or_below(&self, height: u64) -> Result<Option<ValidatorSet>, IndexError> {
        let tx = self.0.begin_read().map_err(fail)?;
        let table = tx.open_table(CHANGES).map_err(fail)?;
        let newest = table.range(..=height).map_err(fail)?.next_back();
        newest
            .map(|row| read_set(row.map_err(fail)?.1.value()))
            .transpose()
    }
}

fn read_set(bytes: &[u8]) -> Result<ValidatorSet, IndexError> {
    json::from_slice(bytes, bytes.len()).map_err(fail)
}
