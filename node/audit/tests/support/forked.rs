//! A chain that leaves another one.

use std::collections::BTreeMap;

use instar_chain::{MemoryState, fork_writes};
use instar_ledger::store::{OpenOptions, Store};
use instar_ledger::{Genesis, GenesisFork};
use instar_state::Fork;

use super::releases::genesis;
use super::{Chain, Coin, lane};

impl Chain {
    /// A fork at a height, with the validators of the mother, as `change` wants its genesis, and with `state` in the place of
    /// the mother's.
    pub fn fork(
        &mut self,
        height: u64,
        state: &MemoryState,
        change: impl FnOnce(&mut Genesis),
    ) -> Self {
        self.store.flush().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            lane_mark: Some(dir.path().join("lane.mark")),
            mother: Some(self.store.path().into()),
        };
        let mut genesis = genesis();
        genesis.chain_name = "fork".into();
        genesis.time_ms = self.time_ms + 1_000_000;
        genesis.fork = Some(GenesisFork {
            dapps: vec!["coin".into()],
            header: self.store.signed_header(height).unwrap().unwrap(),
        });
        change(&mut genesis);
        let path = dir.path().join("ledger.git");
        let (mut store, chain) = Store::create_with(&path, &genesis, &options).unwrap();
        let writes = fork_writes(&genesis, &chain, state).unwrap();
        let (mut own, mut tree) = (MemoryState::default(), Fork::empty());
        own.apply(&writes);
        tree.apply(&writes).unwrap();
        store.begin_incarnation(&lane()).unwrap();
        Self {
            accounts: self.accounts.clone(),
            dir,
            store,
            chain,
            state: own,
            tree,
            coin: Coin {
                writes: self.coin.writes,
                lie: None,
            },
            nonces: BTreeMap::new(),
            root: String::new(),
            falsify: None,
            signers: 3,
            lane_key: 0,
            time_ms: genesis.time_ms,
            merging: None,
        }
    }
}
