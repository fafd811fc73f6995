//! Letting go of old history: what the ledger needs to know of the state for it, and what stays of what went.

use std::collections::BTreeMap;

use instar_chain::query;
use instar_ledger::store::{Merged, Pruning};

use super::base::Base;
use super::{Core, CoreError, ledger_error};

impl Core {
    /// Writes what waits into git, and says what is merged of each lane at the head.
    pub(crate) fn merged_lanes(&mut self) -> Result<Merged, CoreError> {
        self.ledger.flush().map_err(ledger_error)?;
        let view = self.state.view()?;
        // By the ledger's own list, which has every lane that anything was merged of.
        let mut lanes = BTreeMap::new();
        for (lane, ..) in self.ledger.lane_heads() {
            if let Some(mark) = query::lane(&view, &lane)? {
                lanes.insert(lane, (mark.head, mark.seq));
            }
        }
        Ok(Merged {
            height: self.head.height,
            lanes,
        })
    }

    /// Moves the beginning of this node's history. The changes of the validators from before, each with the header that
    /// certifies it, go to `base.json` first: from it the light check stays possible, for this node and for who asks it.
    pub(crate) fn begin_later(&mut self, pruning: &mut Pruning) -> Result<(), CoreError> {
        let height = pruning.height();
        let header = self.signed_header(height)?.ok_or_else(|| {
            CoreError::Ledger(format!("block {height} has no certified header here"))
        })?;
        let (checkpoint, mut after) = match &self.base {
            Some(base) => (base.checkpoint.clone(), base.known_from()),
            None => (None, 0),
        };
        let mut changes = Vec::new();
        loop {
            let found = self.changes(after)?;
            let last = found.changes.last().map(|c| c.at.header.height);
            let until = |change: &instar_ledger::light::Change| change.at.header.height <= height;
            changes.extend(found.changes.into_iter().filter(until));
            match last {
                Some(last) if found.more && last < height => after = last,
                _ => break,
            }
        }
        let base = Base::new(checkpoint, changes, header);
        base.write(&self.home.base())?;
        // What the file says is true as soon as it is there.
        self.base = Some(base);
        self.ledger.begin_later(pruning).map_err(ledger_error)
    }
}
