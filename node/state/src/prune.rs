//! Forgetting old states, a bounded number of rows at a time.

use redb::{ReadableTable, WriteTransaction};

use crate::keys::{after_key, key_hash, split_row, value_row};
use crate::rows::read_floor;
use crate::tables::{DELETED, KEYS, META, NODES, STALE_NODES, STALE_VALUES, VALUES};
use crate::{StateStore, StoreError};

impl StateStore {
    /// Forgets the states below `keep_from`, at most `max_rows` rows in one go. Returns how many rows went; 0 means that
    /// nothing is left to forget. Block ids and roots of all heights stay.
    pub fn prune(&self, keep_from: u64, max_rows: usize) -> Result<usize, StoreError> {
        let _guard = self.lock();
        let head = self.head()?.ok_or(StoreError::Uninitialised)?;
        let keep_from = keep_from.min(head.height);
        let txn = self.begin_write()?;
        let mut gone = 0;
        {
            let mut meta = txn.open_table(META)?;
            let floor = read_floor(&meta)?.max(keep_from);
            // The floor rises first: from here on nobody asks for what is removed below.
            meta.insert("floor", floor.to_be_bytes().as_slice())?;
            // What is unreached since version v is needed by versions below v alone.
            let end = (floor + 1).to_be_bytes();
            for (stale, target) in [(STALE_NODES, NODES), (STALE_VALUES, VALUES)] {
                let mut stale = txn.open_table(stale)?;
                let mut target = txn.open_table(target)?;
                let rows: Vec<Vec<u8>> = stale
                    .range::<&[u8]>(..end.as_slice())?
                    .take(max_rows - gone)
                    .map(|row| row.map(|(key, _)| key.value().to_vec()))
                    .collect::<Result<_, _>>()?;
                for row in &rows {
                    stale.remove(row.as_slice())?;
                    let mark = target
                        .remove(&row[8..])?
                        .is_some_and(|old| old.value() == DELETED);
                    if mark {
                        forget_key(&txn, &target, &row[8..])?;
                    }
                }
                gone += rows.len();
            }
        }
        txn.commit()?;
        Ok(gone)
    }
}

/// Forgets a key whose mark of deletion was pruned, if nothing else is left of it.
fn forget_key(
    txn: &WriteTransaction,
    values: &impl ReadableTable<&'static [u8], &'static [u8]>,
    row: &[u8],
) -> Result<(), StoreError> {
    let Some((key, _)) = split_row(row) else {
        return Ok(());
    };
    let (start, end) = (value_row(key, u64::MAX), after_key(key));
    let none_left = values
        .range::<&[u8]>(start.as_slice()..end.as_slice())?
        .next()
        .is_none();
    if none_left {
        txn.open_table(KEYS)?.remove(key_hash(key).0.as_slice())?;
    }
    Ok(())
}
