//! Forks come back: what slices come to.

use instar_attest::{ChainId, Digest, SecretKey};
use instar_ledger::light::SignedHeader;
use instar_ledger::vote::{self, VoteKind};
use instar_ledger::{
    Certificate, CommitSignature, DeviceId, Entry, ForkDue, ForkPart, ForkRange, Genesis,
    GenesisFork, Header, Lane, Oid, Outcome, ReceiptLine, Slice, SliceEntry, Validator,
    ValidatorSet,
};
use serde_json::{Value, json};

use super::world::*;
use crate::block::BlockError;
use crate::dapps::SUSPENSION_BLOCKS;
use crate::forks::SLICE_BLOCKS;
use crate::govern::Change;
use crate::govern::ops::ForkMerge;
use crate::lanes::{MAX_BLOCK_ENTRIES, Quota};
use crate::view::StateView as _;
use crate::{keys, merge, query};

/// A fork of a world's chain, as light checkers see it: one validator, and blocks of nothing but a header.
pub struct Forked {
    pub chain: ChainId,
    pub genesis: Genesis,
    pub secret: SecretKey,
    pub blocks: Vec<SignedHeader>,
}

/// A header that stands on `parent`, signed by `secret`.
pub fn signed(
    chain: ChainId,
    height: u64,
    parent: Oid,
    set: Digest,
    secret: &SecretKey,
) -> SignedHeader {
    let mut header = SignedHeader {
        certificate: Certificate {
            block: parent,
            height,
            round: 0,
            signatures: vec![],
        },
        entries: 0,
        header: Header {
            chain,
            dapps: Default::default(),
            forks: vec![],
            height,
            kernel: 1,
            lanes: vec![],
            left_out: vec![],
            parent,
            proposer: secret.public(),
            protocol: 1,
            receipts: Digest::of(b"receipts"),
            state_root: Digest::of(b"root"),
            time_ms: 1_000_000 + height,
            validators: set,
        },
        previous: None,
        receipts: parent,
    };
    let block = header.block().unwrap();
    let bytes = vote::signed_bytes(&chain, VoteKind::Precommit, height, 0, Some(&block));
    header.certificate.block = block;
    header.certificate.signatures = vec![CommitSignature {
        sig: secret.sign(&bytes),
        validator: secret.public(),
    }];
    header
}

pub fn set_of(secret: &SecretKey) -> ValidatorSet {
    let key = secret.public();
    ValidatorSet::new(vec![Validator { key, power: 1 }]).unwrap()
}

impl Forked {
    pub fn of(world: &World, name: &str, blocks: u64) -> Self {
        Self::with(world, name, blocks, |_| {})
    }

    pub fn with(world: &World, name: &str, blocks: u64, change: impl FnOnce(&mut Genesis)) -> Self {
        let secret = secret(&format!("{name} consensus"));
        let mut genesis = world.genesis.clone();
        genesis.chain_name = name.into();
        genesis.time_ms = 3_000_000_000;
        genesis.accounts.clear();
        genesis.releases.clear();
        genesis.validators.truncate(1);
        genesis.validators[0].keys.consensus = secret.public();
        let parent = Oid::from_bytes([7; 32]);
        let header = signed(world.chain, 1, parent, Digest::of(b"set"), &secret);
        genesis.fork = Some(GenesisFork {
            dapps: vec!["coin".into()],
            header,
        });
        change(&mut genesis);
        let chain = genesis.chain_id().unwrap();
        let mut fork = Self {
            chain,
            genesis,
            secret: secret.clone(),
            blocks: Vec::new(),
        };
        for _ in 0..blocks {
            fork.grow(&secret, set_of(&secret).digest());
        }
        fork
    }

    pub fn grow(&mut self, secret: &SecretKey, set: Digest) {
        let last = self.blocks.last().map(|b| b.certificate.block);
        let parent = last.unwrap_or(self.chain.into());
        let height = self.blocks.len() as u64 + 1;
        self.blocks
            .push(signed(self.chain, height, parent, set, secret));
    }

    pub fn part(&self, height: u64) -> ForkPart {
        let id = self.blocks[height as usize - 1].certificate.block;
        ForkPart { height, id }
    }

    pub fn merge(&self, parts: &[u64]) -> ForkMerge {
        ForkMerge {
            chain: self.chain,
            changes: vec![],
            genesis: self.genesis.clone(),
            header: self.blocks[*parts.last().unwrap() as usize - 1].clone(),
            parts: parts.iter().map(|h| self.part(*h)).collect(),
        }
    }

    pub fn change(&self, parts: &[u64]) -> Change {
        Change::ForkMerge(Box::new(self.merge(parts)))
    }

    /// The slice of blocks `from` to `to`, with entries that took effect there.
    pub fn slice(&self, from: u64, to: u64, entries: Vec<Entry>) -> Slice {
        let after = match from {
            1 => Oid::from(self.chain),
            _ => self.part(from - 1).id,
        };
        let lane = Lane {
            device: DeviceId::of(&self.secret.public()),
            incarnation: 1,
        };
        let entries = (0..).zip(entries).map(|(index, entry)| SliceEntry {
            entry,
            index,
            lane,
            seq: from,
        });
        Slice {
            range: ForkRange {
                chain: self.chain,
                from,
                head: self.part(to).id,
                to,
            },
            after,
            mother: None,
            entries: entries.collect(),
            commits: vec![],
            edges: vec![],
        }
    }

    fn entry(&self, nonce: u64, topic: &str, body: Value) -> Entry {
        Entry::sign(&self.chain, &secret("ann account"), nonce, topic, body).unwrap()
    }

    fn put(&self, nonce: u64, key: &str) -> Entry {
        self.entry(nonce, "coin", json!({"put": {key: "1"}}))
    }
}

/// A world of some blocks whose dapp takes entries of forks.
pub fn world() -> World {
    let mut world = World::new();
    world.host.takes_foreign = true;
    world.blocks(2);
    world
}

impl World {
    pub fn merge(&mut self, slice: Slice) -> Result<crate::BlockOutput, BlockError> {
        let mut made = self.draft();
        made.fork = Some(slice);
        self.try_block(made)
    }

    #[track_caller]
    fn not_due(&mut self, slice: Slice) {
        let refused = self.merge(slice).unwrap_err();
        assert!(
            matches!(refused, BlockError::ForkNotDue { .. }),
            "{refused}"
        );
    }

    fn text(&self, key: &str) -> Option<String> {
        let value = self.state.get(&format!("d/coin/{key}")).unwrap();
        value.map(|v| String::from_utf8(v).unwrap())
    }
}

#[test]
fn slices_are_merged_in_order_and_once() {
    let mut w = world();
    let fork = Forked::of(&w, "fork", 4);
    let ann = w.nodes[0].account.public();
    let nonce = query::nonce(&w.state, &ann).unwrap();
    let first = vec![
        fork.put(0, "early"),
        fork.entry(1, "govern", json!({"op": "withdraw"})),
        fork.entry(2, "unheard-of", json!({})),
        fork.entry(3, "coin", json!({"other": 1})),
    ];
    let ids: Vec<Digest> = first.iter().map(Entry::id).collect();
    let slice = fork.slice(1, 2, first);
    w.not_due(slice.clone());
    w.pass(fork.change(&[2, 4]));
    let due = query::forks_due(&w.state).unwrap();
    assert_eq!(
        due,
        [ForkDue {
            after: fork.chain.into(),
            range: slice.range
        }]
    );
    // Anything but the next part.
    w.not_due(fork.slice(1, 4, vec![]));
    w.not_due(fork.slice(1, 3, vec![]));
    w.not_due(fork.slice(3, 4, vec![]));
    w.not_due(Forked::of(&w, "stranger", 4).slice(1, 2, vec![]));
    let mut elsewhere = slice.clone();
    elsewhere.after = Oid::from_bytes([1; 32]);
    w.not_due(elsewhere);

    let own = w.say(
        1,
        &w.nodes[1].account.clone(),
        "coin",
        json!({"put": {"own": "2"}}),
    );
    let made = {
        let mut made = w.draft();
        made.fork = Some(slice.clone());
        made
    };
    let (before, again) = (w.state.clone(), made.clone());
    let output = w.try_block(made).unwrap();
    // Whoever runs it again, on another machine, comes to the same.
    let mut other = w.host.clone();
    let twin = crate::apply_block(&before, &again.input(&w), &mut other).unwrap();
    assert_eq!(twin, output);

    w.applied(&own);
    w.applied(&ids[0]);
    w.refused(&ids[3], "unknown-op");
    assert!(!w.receipts.contains_key(&ids[1]) && !w.receipts.contains_key(&ids[2]));
    let receipt = &w.receipts[&ids[0]];
    assert_eq!((receipt.chain, receipt.seq), (Some(fork.chain), 1));
    let order: Vec<Digest> = output
        .receipts
        .iter()
        .filter_map(|line| match line {
            ReceiptLine::Entry(r) => Some(r.entry),
            ReceiptLine::Event(_) => None,
        })
        .collect();
    assert_eq!(order, [own, ids[0], ids[3]], "own entries first");
    assert_eq!(
        w.text(&format!("{}/early", fork.chain)).as_deref(),
        Some("1")
    );
    assert_eq!(
        w.text("early"),
        None,
        "the same key on a fork is another author"
    );
    let body = &w.event("fork-merged").unwrap().body;
    assert_eq!((&body["offered"], &body["left"]), (&json!(2), &json!(2)));
    assert_eq!(
        (&body["from"], &body["to"], &body["parts"]),
        (&json!(1), &json!(2), &json!(1))
    );
    let after = query::nonce(&w.state, &ann).unwrap();
    let voted = 2;
    assert_eq!(after, nonce + voted, "only what she said here counts");

    w.not_due(slice);
    w.merge(fork.slice(3, 4, vec![])).unwrap();
    assert_eq!(query::forks_due(&w.state).unwrap(), []);
    w.not_due(fork.slice(3, 4, vec![]));
    assert_eq!(query::forks(&w.state).unwrap()[&fork.chain].height, 4);
}

#[test]
fn a_second_motion_goes_on_from_where_the_first_ended() {
    let mut w = world();
    let fork = Forked::of(&w, "fork", 6);
    w.pass(fork.change(&[2]));
    w.merge(fork.slice(1, 2, vec![fork.put(0, "a")])).unwrap();
    w.cant(fork.change(&[1]), "fork-merged-already");
    w.cant(fork.change(&[2]), "fork-merged-already");
    // Its cuts may lie elsewhere: what is merged is merged.
    w.pass(fork.change(&[3, 5]));
    assert_eq!(
        query::forks_due(&w.state).unwrap()[0].range,
        fork.slice(3, 3, vec![]).range
    );
    w.merge(fork.slice(3, 3, vec![fork.put(1, "b")])).unwrap();
    // A newer one takes the place of what the last one has left.
    let newest = w.pass(fork.change(&[4, 6]));
    let record = query::forks(&w.state).unwrap()[&fork.chain].clone();
    assert_eq!((record.motion, record.height), (newest, 3));
    w.not_due(fork.slice(4, 5, vec![]));
    w.merge(fork.slice(4, 4, vec![])).unwrap();
    w.merge(fork.slice(5, 6, vec![fork.put(2, "c")])).unwrap();
    for key in ["a", "b", "c"] {
        assert!(w.text(&format!("{}/{key}", fork.chain)).is_some());
    }
}

/// Everybody makes blocks until one comes who has the slice, and nobody for ever.
#[test]
fn a_slice_is_waited_for_and_not_for_ever() {
    let mut w = world();
    let fork = Forked::of(&w, "fork", 2);
    let due = |w: &World| crate::due(&w.state, w.height() + 1, w.time_ms + 1).unwrap();
    assert!(!due(&w));
    w.pass(fork.change(&[1, 2]));
    for _ in 0..SLICE_BLOCKS {
        assert!(due(&w));
        w.block();
    }
    assert!(!due(&w));
    // Whoever has it still brings it, and then the next one is waited for.
    w.merge(fork.slice(1, 1, vec![])).unwrap();
    assert!(due(&w));
    w.merge(fork.slice(2, 2, vec![])).unwrap();
    assert!(!due(&w));
}

#[test]
fn a_dapp_that_did_not_opt_in_takes_nothing() {
    let mut w = world();
    w.host.takes_foreign = false;
    let fork = Forked::of(&w, "fork", 1);
    w.pass(fork.change(&[1]));
    let entry = fork.put(0, "mine");
    let before = w.state.clone();
    w.merge(fork.slice(1, 1, vec![entry.clone()])).unwrap();
    w.refused(&entry.id(), "foreign-not-taken");
    let dapps = |state: &crate::MemoryState| -> Vec<(String, Vec<u8>)> {
        state.range("d/", 1_000).unwrap()
    };
    assert_eq!(dapps(&w.state), dapps(&before));
    assert!(w.state.get(&keys::fork(&fork.chain)).unwrap().is_some());
}

#[test]
fn a_block_never_exceeds_its_bounds() {
    let mut w = world();
    let fork = Forked::of(&w, "fork", 1);
    w.pass(fork.change(&[1]));
    let full: Vec<Entry> = (0..MAX_BLOCK_ENTRIES)
        .map(|n| fork.put(n, &format!("k{n}")))
        .collect();
    let slice = fork.slice(1, 1, full);
    w.say(
        1,
        &w.nodes[1].account.clone(),
        "coin",
        json!({"put": {"own": "2"}}),
    );
    let mut made = w.draft();
    made.fork = Some(slice.clone());
    // A proposer keeps the room free.
    let tail: Vec<_> = made
        .lanes
        .iter()
        .cloned()
        .map(std::sync::Arc::new)
        .collect();
    let lanes = || std::iter::once((&made.lanes[0].lane, tail.as_slice()));
    let (ranges, _) = merge::select(&w.state, &made.parent, lanes(), Some(&slice));
    assert!(ranges.is_empty());
    let (ranges, _) = merge::select(&w.state, &made.parent, lanes(), None);
    assert_eq!(ranges.len(), 1);
    let mut quota = Quota::beside(MAX_BLOCK_ENTRIES - 1);
    assert!(quota.take(&made.lanes[0]) && !quota.take(&made.lanes[0]));
    let alone = {
        let mut alone = made.clone();
        alone.lanes.clear();
        alone
    };
    let refused = w.try_block(made).unwrap_err();
    assert!(
        matches!(refused, BlockError::TooManyEntries { .. }),
        "{refused}"
    );
    let output = w.try_block(alone).unwrap();
    instar_ledger::receipt::to_jsonl(&output.receipts).unwrap();
}

/// Nothing of a fork is offered twice, so a dapp that rests makes its slice wait.
#[test]
fn a_dapp_that_rests_loses_nothing() {
    let mut w = world();
    let fork = Forked::of(&w, "fork", 2);
    w.pass(fork.change(&[1, 2]));
    let first = fork.put(0, "a");
    let slice = fork.slice(1, 1, vec![first.clone()]);
    let mut made = w.draft();
    (made.fork, made.left_out) = (Some(slice.clone()), vec!["coin".into()]);
    let refused = w.try_block(made).unwrap_err();
    assert!(matches!(refused, BlockError::ForkWaits { .. }), "{refused}");
    let mut made = w.draft();
    made.left_out = vec!["coin".into()];
    w.try_block(made).unwrap();
    let refused = w.merge(slice.clone()).unwrap_err();
    assert!(matches!(refused, BlockError::ForkWaits { .. }), "{refused}");
    assert!(query::check_slice(&w.state, &slice).is_err());
    w.blocks(SUSPENSION_BLOCKS - 1);
    query::check_slice(&w.state, &slice).unwrap();
    w.merge(slice).unwrap();
    assert_eq!(w.receipts[&first.id()].outcome, Outcome::Applied);
    // What is for nobody that rests need not wait.
    let mut made = w.draft();
    made.left_out = vec!["coin".into()];
    made.fork = Some(fork.slice(2, 2, vec![]));
    w.try_block(made).unwrap();
}
