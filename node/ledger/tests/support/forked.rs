//! A chain and its fork, for those who merge the one into the other.

use std::path::Path;

use instar_attest::{ChainId, Digest};
use instar_ledger::fork::{ForkDue, ForkRange};
use instar_ledger::store::OpenOptions;
use instar_ledger::*;

use super::*;

pub const MAX_PACK: usize = 8 << 20;

/// A mother of three blocks, and her fork at the second.
pub struct Pair {
    pub net: Net,
    pub fork: Store,
    pub chain: ChainId,
    pub time_ms: u64,
}

impl Pair {
    pub fn new() -> Self {
        let mut net = Net::new(2);
        for _ in 0..3 {
            net.round(2);
        }
        net.stores[0].flush().unwrap();
        let mut genesis = genesis("fork");
        genesis.time_ms = TIME_MS + 1_000_000;
        genesis.fork = Some(GenesisFork {
            dapps: vec!["coin".into()],
            header: net.stores[0].signed_header(2).unwrap().unwrap(),
        });
        let options = OpenOptions {
            lane_mark: Some(net.dir.path().join("fork.mark")),
            mother: Some(net.stores[0].path().into()),
        };
        let path = net.dir.path().join("fork.git");
        let (mut fork, chain) = Store::create_with(&path, &genesis, &options).unwrap();
        fork.begin_incarnation(&lane_of(0)).unwrap();
        Self {
            net,
            fork,
            chain,
            time_ms: genesis.time_ms,
        }
    }

    /// A block of the fork with one entry, which took effect there, and one that did not.
    pub fn fork_block(&mut self) -> (Oid, Digest) {
        let nonce = self.fork.head().0 * 2;
        let entries = [0, 1].map(|i| transfer(&self.chain, 0, nonce + i));
        let time_s = TIME_MS / 1000;
        let key = key("lane", 0);
        let commit = self
            .fork
            .append_lane(&key, &lane_of(0), &entries, time_s)
            .unwrap();
        let mut draft = draft(&self.fork, &[vec![commit]]);
        if let Some(ReceiptLine::Entry(receipt)) = draft.receipts.last_mut() {
            receipt.outcome = Outcome::Rejected;
        }
        draft.header.receipts = receipt::digest(&draft.receipts).unwrap();
        self.finish(draft);
        (self.fork.head().1, entries[0].id())
    }

    pub fn finish(&mut self, mut draft: BlockDraft) {
        draft.header.time_ms = self.time_ms + draft.header.height;
        let block = self.fork.write_block(&draft).unwrap();
        let certificate = certificate(&self.chain, draft.header.height, 0, block);
        self.fork.finalize(&block, &certificate).unwrap();
        self.fork.flush().unwrap();
    }

    /// The slice of the fork's blocks `from` to `to`.
    pub fn due(&self, from: u64, to: u64) -> ForkDue {
        ForkDue {
            after: self.fork.block_at(from - 1).unwrap(),
            range: ForkRange {
                chain: self.chain,
                from,
                head: self.fork.block_at(to).unwrap(),
                to,
            },
        }
    }

    /// The next block of the mother, merging a slice that its first node has.
    pub fn draft(&self, range: ForkRange) -> BlockDraft {
        let mut draft = draft(&self.net.stores[0], &[]);
        draft.header.forks = vec![range];
        draft
    }

    /// The first node takes the slice from the fork, the second from the block.
    pub fn merge(&mut self, due: &ForkDue) -> Oid {
        let first = &mut self.net.stores[0];
        first.take_slice(self.fork.path(), due).unwrap();
        let draft = self.draft(due.range);
        let block = self.net.stores[0].write_block(&draft).unwrap();
        let pack = self.net.stores[0].pack_block(&block).unwrap();
        let certificate = certificate(&self.net.chain, draft.header.height, 0, block);
        let imported = self.net.stores[1]
            .import_block(&pack, MAX_PACK, &[*due])
            .unwrap();
        assert_eq!(imported.blocks, [block]);
        for store in &mut self.net.stores {
            assert_eq!(store.read_block(&block).unwrap().header, draft.header);
            store.finalize(&block, &certificate).unwrap();
            store.flush().unwrap();
        }
        block
    }
}

pub fn clone_of(dir: &Path, store: &Store, name: &str) -> std::path::PathBuf {
    let from = format!("file://{}", store.path().display());
    git(dir, &["clone", "-q", &from, name]).unwrap();
    dir.join(name)
}
