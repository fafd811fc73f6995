//! Slices of forks: what is due of them, and whether this node can bring it.
//!
//! A node that has a fork's history in its home takes the next slice from there into its ledger, through the same checks as
//! from a peer, and proposes it. To a node without it the slice comes with the block. So what one node has is no work by
//! itself, which the others would not know of: for how long blocks are made for a slice, the state says.

use std::fmt::Display;

use instar_chain::{StateView, query};
use instar_ledger::{ForkDue, ForkRange, Slice};

use super::{Core, CoreError};

impl Core {
    /// A slice that the next block may merge and that is here, if there is one. Slices are taken in on the way.
    pub(super) fn slice_at_hand(
        &mut self,
        view: &dyn StateView,
    ) -> Result<Option<Slice>, CoreError> {
        for due in query::forks_due(view)? {
            // A dapp that rests makes it wait.
            if let Some(slice) = self.bring(&due)
                && query::check_slice(view, &slice).is_ok()
            {
                return Ok(Some(slice));
            }
        }
        Ok(None)
    }

    /// A slice from the ledger, or from the fork's history in the home.
    fn bring(&mut self, due: &ForkDue) -> Option<Slice> {
        let head = due.range.head;
        if self.broken_slices.contains(&head) {
            return None;
        }
        let read = if self.ledger.has_slice(&due.range) {
            self.ledger.slice(&due.range)
        } else {
            let history = self.home.fork_history(&due.range.chain);
            if !instar_ledger::store::has_commit(&history, &head) {
                return None;
            }
            self.ledger.take_slice(&history, due)
        };
        read.inspect_err(|error| self.give_up(&due.range, error))
            .ok()
    }

    /// A slice that can't be merged here must not keep this node from proposing.
    pub(super) fn give_up(&mut self, range: &ForkRange, why: &dyn Display) {
        tracing::warn!(
            fork = %range.chain, from = range.from, to = range.to, %why,
            "a slice of a fork can't be merged; this node does not try it again until it starts again"
        );
        self.broken_slices.insert(range.head);
    }
}
