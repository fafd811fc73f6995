//! A chain whose keys governance has changed.

use instar_attest::Purpose;
use instar_chain::govern::ops::{ForkMerge, KeyReplace, MotionVote, Propose};
use instar_chain::govern::{Change, GovernOp, key_proof_bytes};
use instar_chain::ops::Ballot;
use instar_chain::query;
use instar_ledger::{Entry, ForkPart};

use super::{Chain, key};

impl Chain {
    /// The validators vote a new account key to the first one, which speaks by it from the next block on.
    pub fn replace_an_account(&mut self) {
        const NEW: usize = 70;
        let new = key("account", NEW);
        let known = query::key(&self.state, &key("account", 0).public());
        let operator = known.unwrap().unwrap().operator;
        let proven = key_proof_bytes(&self.chain, &new.public(), Purpose::Account, &operator);
        let change = Change::KeyReplace(KeyReplace {
            new: new.public(),
            old: key("account", 0).public(),
            proof: new.sign(&proven),
        });
        self.pass(change);
        self.accounts.insert(0, NEW);
    }

    /// A motion that the fork be merged, cut after these heights, passes and takes effect.
    pub fn move_merge(&mut self, fork: &Self, heights: &[u64]) {
        let parts = heights.iter().map(|height| ForkPart {
            height: *height,
            id: fork.store.block_at(*height).unwrap(),
        });
        let last = *heights.last().unwrap();
        let change = Change::ForkMerge(Box::new(ForkMerge {
            chain: fork.chain,
            changes: vec![],
            genesis: fork.store.genesis().clone(),
            header: fork.store.signed_header(last).unwrap().unwrap(),
            parts: parts.collect(),
        }));
        self.pass(change);
    }

    /// A motion passes and takes effect.
    fn pass(&mut self, change: Change) {
        let propose = GovernOp::Propose(Propose {
            change,
            delay: 1,
            reason: None,
        });
        let propose = self.entry(1, "govern", propose.to_value());
        let motion = propose.id();
        self.block(&[propose]);
        let votes: Vec<Entry> = (1..4)
            .map(|i| {
                let vote = MotionVote {
                    motion,
                    reason: None,
                    vote: Ballot::Yes,
                };
                self.entry(i, "govern", GovernOp::Vote(vote).to_value())
            })
            .collect();
        self.block(&votes);
        self.block(&[]);
    }
}
