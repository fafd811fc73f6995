//! Finding single entries on the trunk.

use instar_attest::Digest;
use instar_ledger::{Block, Entry, Receipt, ReceiptLine};

use super::{Core, CoreError, ledger_error};

impl Core {
    /// An entry that a final block merged, found through its receipt.
    pub fn entry(&self, id: &Digest) -> Result<Option<Entry>, CoreError> {
        let Some((height, position)) = self.index.find(id)? else {
            return Ok(None);
        };
        // Of the block that a node began with it has the receipts alone.
        if height < self.first_height() {
            return Ok(None);
        }
        let Some(block) = self.ledger.block_at(height) else {
            return Ok(None);
        };
        let block = self.ledger.read_block(&block).map_err(ledger_error)?;
        let line = usize::try_from(position)
            .ok()
            .and_then(|p| block.receipts.get(p));
        let Some(ReceiptLine::Entry(receipt)) = line else {
            return Ok(None);
        };
        if receipt.chain.is_some() {
            return self.entry_of_fork(&block, receipt);
        }
        let Some(range) = block.header.lanes.iter().find(|r| r.lane() == receipt.lane) else {
            return Ok(None);
        };
        for commit in self
            .ledger
            .lane_range(&range.head, range.from - 1)
            .map_err(ledger_error)?
        {
            let commit = self.ledger.lane_commit(&commit).map_err(ledger_error)?;
            if commit.seq == receipt.seq {
                let index = usize::try_from(receipt.index).map_err(ledger_error)?;
                return Ok(commit.entries.into_iter().nth(index));
            }
        }
        Ok(None)
    }

    fn entry_of_fork(&self, block: &Block, receipt: &Receipt) -> Result<Option<Entry>, CoreError> {
        let ranges = &block.header.forks;
        let Some(range) = ranges.iter().find(|r| Some(r.chain) == receipt.chain) else {
            return Ok(None);
        };
        let slice = self.ledger.slice(range).map_err(ledger_error)?;
        let mut merged = slice.entries.into_iter().map(|merged| merged.entry);
        Ok(merged.find(|entry| entry.id() == receipt.entry))
    }
}
