//! The consensus messages that the checker looks into and the attacker forges, after `docs/formats/consensus.md`: a
//! second implementation, so that neither trusts the first.

use bytes::Bytes;
use instar_attest::{ChainId, Digest, PublicKey, SecretKey};
use instar_consensus::bare::Channel;
use instar_ledger::Oid;
use instar_ledger::vote::{self, VoteKind};

/// What a validator signed, without its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A proposal, and the round that justifies it or -1.
    Proposal(Oid, i64),
    /// A prevote, for a block or nil.
    Prevote(Option<Oid>),
    /// A precommit, for a block or nil.
    Precommit(Option<Oid>),
}

impl What {
    /// Which of the three it is: of each, a validator signs one a height and round.
    pub fn step(&self) -> u8 {
        match self {
            Self::Proposal(..) => 0,
            Self::Prevote(_) => 1,
            Self::Precommit(_) => 2,
        }
    }
}

/// A signed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Whose key it names.
    pub by: PublicKey,
    /// Its height.
    pub height: u64,
    /// Its round.
    pub round: u32,
    /// What it says.
    pub what: What,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (now, later) = self.0.split_first_chunk::<N>()?;
        self.0 = later;
        Some(*now)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|b| b[0])
    }

    fn height(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn oid(&mut self) -> Option<Oid> {
        self.take().map(Oid::from_bytes)
    }

    /// The outer option is whether it could be read.
    fn round(&mut self) -> Option<Option<u32>> {
        match self.byte()? {
            0 => Some(None),
            _ => self.take().map(u32::from_le_bytes).map(Some),
        }
    }

    fn vote(&mut self) -> Option<Said> {
        let kind = self.byte()?;
        let (height, round) = (self.height()?, self.round()??);
        let value = match self.byte()? {
            0 => None,
            _ => Some(self.oid()?),
        };
        let what = match kind {
            0 => What::Prevote(value),
            _ => What::Precommit(value),
        };
        Some(Said {
            by: self.take().map(PublicKey::from_bytes)?,
            height,
            round,
            what,
        })
    }

    fn proposal(&mut self) -> Option<Said> {
        let (height, round) = (self.height()?, self.round()??);
        let block = self.oid()?;
        let pol_round = self.round()?.map_or(-1, i64::from);
        Some(Said {
            by: self.take().map(PublicKey::from_bytes)?,
            height,
            round,
            what: What::Proposal(block, pol_round),
        })
    }
}

/// What a message says, if it is a signed one.
pub fn read(channel: Channel, bytes: &[u8]) -> Option<Said> {
    let mut reader = Reader(bytes);
    match (channel, reader.byte()?) {
        (Channel::Consensus | Channel::Liveness, 0) => reader.vote(),
        (Channel::Consensus, 1) => reader.proposal(),
        _ => None,
    }
}

fn round(out: &mut Vec<u8>, round: Option<u32>) {
    out.push(u8::from(round.is_some()));
    out.extend(round.into_iter().flat_map(u32::to_le_bytes));
}

/// Signs whatever is asked for: what an honest validator's mark forbids.
pub struct Forger<'a> {
    /// The chain.
    pub chain: &'a ChainId,
    /// The consensus key.
    pub key: &'a SecretKey,
}

impl Forger<'_> {
    /// A signed message of the consensus topic.
    pub fn say(&self, height: u64, at: u32, what: What) -> Bytes {
        let chain = self.chain;
        let mut out = Vec::new();
        let (kind, wire_kind, value) = match what {
            What::Proposal(block, pol_round) => {
                out.push(1);
                out.extend(height.to_le_bytes());
                round(&mut out, Some(at));
                out.extend(block.as_bytes());
                round(&mut out, u32::try_from(pol_round).ok());
                let signed = vote::proposal_bytes(chain, height, at, pol_round, &block);
                return self.finish(out, &signed);
            }
            What::Prevote(value) => (VoteKind::Prevote, 0, value),
            What::Precommit(value) => (VoteKind::Precommit, 1, value),
        };
        out.extend([0, wire_kind]);
        out.extend(height.to_le_bytes());
        round(&mut out, Some(at));
        out.push(u8::from(value.is_some()));
        out.extend(value.iter().flat_map(|v| v.as_bytes()));
        let signed = vote::signed_bytes(chain, kind, height, at, value.as_ref());
        self.finish(out, &signed)
    }

    fn finish(&self, mut out: Vec<u8>, signed: &[u8]) -> Bytes {
        out.extend(self.key.public().as_bytes());
        out.extend(self.key.sign(signed).as_bytes());
        out.into()
    }

    /// The parts of a payload of at most one chunk; `number` tells streams apart.
    pub fn parts(
        &self,
        height: u64,
        at: u32,
        block: &Oid,
        payload: &[u8],
        number: u64,
    ) -> Vec<Bytes> {
        let mut init = vec![0];
        init.extend(height.to_le_bytes());
        init.extend(at.to_le_bytes());
        init.extend((-1i64).to_le_bytes());
        init.extend(self.key.public().as_bytes());
        let mut data = vec![1];
        data.extend((payload.len() as u32).to_le_bytes());
        data.extend(payload);
        let digest = Digest::of(payload);
        let signed = vote::parts_bytes(self.chain, height, at, block, &digest);
        let mut fin = vec![2];
        fin.extend(block.as_bytes());
        fin.extend(digest.as_bytes());
        fin.extend(self.key.sign(&signed).as_bytes());
        let message = |(sequence, part): (usize, Vec<u8>)| {
            let mut out = 20u32.to_le_bytes().to_vec();
            out.extend(height.to_be_bytes());
            out.extend(at.to_be_bytes());
            out.extend(number.to_be_bytes());
            out.extend((sequence as u64).to_le_bytes());
            out.push(0);
            out.extend(part);
            Bytes::from(out)
        };
        let parts = [init, data, fin].into_iter().enumerate();
        parts.map(message).collect()
    }
}
