//! What consensus asks of the node, and nothing else of Malachite shows here.

use std::future::Future;

use bytes::Bytes;
use instar_attest::PublicKey;
use instar_ledger::{Certificate, Oid, ValidatorSet};

/// The largest payload of a proposal, in bytes: a block's pack and everything it merges. Value sync sends it in one
/// message, and Malachite's messages end at 10 MiB.
pub const MAX_PAYLOAD_BYTES: usize = 8 * 1024 * 1024;

/// Where this node stands when consensus starts.
#[derive(Debug, Clone)]
pub struct Start {
    /// The first height that is not final here.
    pub height: u64,
    /// Who decides it.
    pub validators: ValidatorSet,
}

/// What comes after a decision.
#[derive(Debug, Clone)]
pub struct Next {
    /// The next height.
    pub height: u64,
    /// Who decides it.
    pub validators: ValidatorSet,
}

/// A block to propose.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// The block's commit id: what is voted on.
    pub block: Oid,
    /// What another node needs to test it, at most [`MAX_PAYLOAD_BYTES`].
    pub payload: Bytes,
}

/// Where a candidate comes from. A fresh value's time is compared with the clock only when it comes live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A value seen for the first time in a running round.
    Live,
    /// Proposed again by a later round, because it was already prevoted by a quorum.
    Again,
    /// Already decided by others, and fetched from a peer. The engine checks the certificate after the merge test.
    Sync,
}

/// A block that asks for a prevote.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its height: always the one after the newest final block here.
    pub height: u64,
    /// The round of this proposal.
    pub round: u32,
    /// Who proposes it in this round (not always who made the block).
    pub proposer: PublicKey,
    /// The block's commit id. Nothing has yet been checked about it.
    pub block: Oid,
    /// The bytes that came with it; never more than [`MAX_PAYLOAD_BYTES`].
    pub payload: Bytes,
    /// Where it comes from.
    pub origin: Origin,
}

/// The outcome of the merge test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The block and its payload are durable, and the test passed.
    Valid,
    /// The test failed; this validator prevotes nil.
    Invalid(String),
}

impl Verdict {
    /// Whether the block may be voted for.
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid)
    }
}

/// The node behind consensus.
///
/// Calls come one at a time. A restart may repeat any of them, with the same arguments.
pub trait Host: Send + 'static {
    /// Where to begin. Asked once.
    fn start(&mut self) -> impl Future<Output = Start> + Send;

    /// A block for `height`, whose parent is the newest final block. Asked again in later rounds, and every time the
    /// host may answer with the same block or with a better one. What it answers must already be durable and tested
    /// here. An error makes this round pass without a proposal.
    fn propose(
        &mut self,
        height: u64,
        round: u32,
    ) -> impl Future<Output = Result<Proposed, String>> + Send;

    /// The merge test. What is [`Verdict::Valid`] must be durable before this returns, since a prevote follows.
    fn check(&mut self, candidate: Candidate) -> impl Future<Output = Verdict> + Send;

    /// `certificate.block` is final. The payload is given if this process still knows it; a host that answered
    /// `Valid` for the block has it anyway. Returns once the block is durably final. Earlier notifications of the
    /// [`WorkSignal`](crate::WorkSignal) are forgotten when this is called: the host notifies again if there is still
    /// work after this block.
    fn decided(
        &mut self,
        certificate: Certificate,
        payload: Option<Bytes>,
    ) -> impl Future<Output = Next> + Send;

    /// A final block, for a peer that is behind.
    fn decided_payload(
        &mut self,
        height: u64,
    ) -> impl Future<Output = Option<(Certificate, Bytes)>> + Send;

    /// More precommits for the newest final block arrived after it was decided. Called before [`Host::propose`], so that
    /// the next block can carry them.
    fn grown(&mut self, certificate: Certificate) -> impl Future<Output = ()> + Send {
        let _ = certificate;
        async {}
    }

    /// The lowest height that [`Host::decided_payload`] can answer.
    fn min_height(&mut self) -> impl Future<Output = u64> + Send {
        async { 1 }
    }
}
