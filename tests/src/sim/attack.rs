//! One validator that lies. It runs the protocol like everybody else, and beside it signs what its mark would forbid,
//! sends different things to different peers, and keeps things back.

use std::collections::BTreeMap;

use bytes::Bytes;
use instar_consensus::bare::Channel;
use instar_ledger::Oid;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::host::{SimHost, Trick};
use super::wire::{self, Forger, Said, What};
use super::world::{VALIDATORS, World};

/// A message on its way: to whom, what.
pub type Sent = (usize, Channel, Bytes);

/// The liar's plans.
pub struct Liar {
    number: usize,
    /// Who gets the parts of what it proposes, by height and round.
    shown: BTreeMap<(u64, u32), [bool; VALIDATORS]>,
    /// Blocks that it saw at a height.
    seen: Vec<(u64, Oid)>,
    streams: u64,
    /// Votes for everything, everywhere: two such liars break agreement.
    pub shameless: bool,
}

impl Liar {
    /// A liar with this number.
    pub fn new(number: usize, shameless: bool) -> Self {
        Self {
            number,
            shown: BTreeMap::new(),
            seen: Vec::new(),
            streams: 1 << 32,
            shameless,
        }
    }

    fn forger(&self) -> Forger<'static> {
        let world = World::get();
        Forger {
            chain: &world.chain,
            key: &world.secrets[self.number].consensus,
        }
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.number;
        (0..VALIDATORS).filter(move |n| *n != own)
    }

    /// What it does to the next block that it makes.
    pub fn next_trick(rng: &mut ChaCha8Rng) -> Option<Trick> {
        match rng.random_range(0..8) {
            0 => Some(Trick::StateRoot),
            1 => Some(Trick::Receipts),
            2 => Some(Trick::Time),
            _ => None,
        }
    }

    /// What goes out instead of a message to everybody.
    pub fn publish(
        &mut self,
        channel: Channel,
        bytes: &Bytes,
        host: &mut SimHost,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Sent> {
        let all = |bytes: &Bytes, liar: &Self| -> Vec<Sent> {
            let to = liar.others();
            to.map(|to| (to, channel, bytes.clone())).collect()
        };
        if channel == Channel::Parts {
            let at = part_of(bytes);
            let shown = self.shown_to(at, rng);
            let to = self.others().filter(|n| shown[*n]);
            return to.map(|to| (to, channel, bytes.clone())).collect();
        }
        let Some(said) = wire::read(channel, bytes) else {
            return all(bytes, self);
        };
        match said.what {
            What::Proposal(block, _) => self.propose(said, block, bytes, host, rng),
            _ if channel == Channel::Consensus && rng.random_ratio(1, 2) => {
                self.vote_twice(said, bytes, rng)
            }
            _ => all(bytes, self),
        }
    }

    fn shown_to(&mut self, at: (u64, u32), rng: &mut ChaCha8Rng) -> [bool; VALIDATORS] {
        *self.shown.entry(at).or_insert_with(|| {
            let withholds = rng.random_ratio(1, 3);
            std::array::from_fn(|_| !withholds || rng.random())
        })
    }

    fn propose(
        &mut self,
        said: Said,
        block: Oid,
        bytes: &Bytes,
        host: &mut SimHost,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Sent> {
        self.seen.push((said.height, block));
        let second = (self.shameless || rng.random_ratio(1, 2))
            .then(|| host.make_block(1 + rng.random_range(0..50)).ok())
            .flatten();
        let Some(second) = second else {
            let to = self.others();
            return to
                .map(|to| (to, Channel::Consensus, bytes.clone()))
                .collect();
        };
        self.seen.push((said.height, second.block));
        self.streams += 1;
        let forger = self.forger();
        let other = forger.say(said.height, said.round, What::Proposal(second.block, -1));
        let (height, round) = (said.height, said.round);
        let parts = forger.parts(height, round, &second.block, &second.payload, self.streams);
        let parts = parts.into_iter().map(|part| (Channel::Parts, part));
        let other: Vec<_> = [(Channel::Consensus, other)]
            .into_iter()
            .chain(parts)
            .collect();
        self.one_or_other(bytes, &other, rng)
    }

    /// Some get the one, some the other, some both.
    fn one_or_other(
        &self,
        one: &Bytes,
        other: &[(Channel, Bytes)],
        rng: &mut ChaCha8Rng,
    ) -> Vec<Sent> {
        let mut sent = Vec::new();
        for to in self.others() {
            let which = rng.random_range(0..3);
            if which != 1 {
                sent.push((to, Channel::Consensus, one.clone()));
            }
            if which != 0 {
                sent.extend(other.iter().map(|(on, bytes)| (to, *on, bytes.clone())));
            }
        }
        sent
    }

    fn vote_twice(&mut self, said: Said, bytes: &Bytes, rng: &mut ChaCha8Rng) -> Vec<Sent> {
        let at_height: Vec<Oid> = self
            .seen
            .iter()
            .filter(|(height, _)| *height == said.height)
            .map(|(_, block)| *block)
            .collect();
        let value = match at_height.len() {
            0 => None,
            n if rng.random_ratio(2, 3) => Some(at_height[rng.random_range(0..n)]),
            _ => None,
        };
        let what = match said.what {
            What::Prevote(_) => What::Prevote(value),
            _ => What::Precommit(value),
        };
        let other = self.forger().say(said.height, said.round, what);
        self.one_or_other(bytes, &[(Channel::Consensus, other)], rng)
    }

    /// It hears a message, and may at once vote for what is in it.
    pub fn hears(
        &mut self,
        from: usize,
        channel: Channel,
        bytes: &Bytes,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Sent> {
        let Some(Said {
            height,
            round,
            what: What::Proposal(block, _),
            ..
        }) = wire::read(channel, bytes)
        else {
            return Vec::new();
        };
        if !self.seen.contains(&(height, block)) {
            self.seen.push((height, block));
        }
        if !self.shameless && !rng.random_ratio(1, 4) {
            return Vec::new();
        }
        let forger = self.forger();
        let votes = [What::Prevote(Some(block)), What::Precommit(Some(block))];
        let mut sent = Vec::new();
        for vote in votes {
            let bytes = forger.say(height, round, vote);
            let to = self.others().filter(|to| *to != from || self.shameless);
            sent.extend(to.map(|to| (to, Channel::Consensus, bytes.clone())));
        }
        sent
    }
}

/// The height and round in a part's stream id.
fn part_of(bytes: &[u8]) -> (u64, u32) {
    let number = |range: std::ops::Range<usize>| {
        let bytes = bytes.get(range).unwrap_or_default();
        bytes.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b))
    };
    (number(4..12), number(12..16) as u32)
}
