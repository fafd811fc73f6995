//! What the codec overhears: how far the peers say they are, and certificates of prevotes.
//!
//! The engine keeps both to itself, so they are noted where they are decoded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use instar_ledger::Oid;
use malachite_app::types::PeerId;
use malachite_types::{PolkaCertificate, Validator as _, ValidatorSet as _};
use tokio::sync::Notify;

use crate::context::{Ctx, Members};
use crate::signing::Strict;

/// Peers whose height is remembered. A validator has far fewer.
const MAX_PEERS: usize = 1024;

/// The newest height that each peer named. A claim, not a proof: it is a reason to look, and nothing more.
#[derive(Debug, Default)]
pub(crate) struct Tips {
    heights: Mutex<BTreeMap<PeerId, u64>>,
    changed: Notify,
}

impl Tips {
    pub(crate) fn note(&self, peer: PeerId, height: u64) {
        let mut heights = self.heights.lock().unwrap_or_else(PoisonError::into_inner);
        if heights.len() >= MAX_PEERS && !heights.contains_key(&peer) {
            return;
        }
        // Never back: what is decoded is not yet known to come from the peer it names.
        let height = height.max(heights.get(&peer).copied().unwrap_or(0));
        if heights.insert(peer, height) != Some(height) {
            self.changed.notify_one();
        }
    }

    /// The highest claim.
    pub(crate) fn highest(&self) -> u64 {
        let heights = self.heights.lock().unwrap_or_else(PoisonError::into_inner);
        heights.values().copied().max().unwrap_or(0)
    }

    /// The claim of one peer, by the bytes of its id.
    pub(crate) fn of(&self, peer: &[u8]) -> Option<u64> {
        let peer = PeerId::from_bytes(peer).ok()?;
        let heights = self.heights.lock().unwrap_or_else(PoisonError::into_inner);
        heights.get(&peer).copied()
    }

    /// Waits for a claim that is new.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Certificates that are remembered: a few rounds of one height.
const MAX_POLKAS: usize = 16;

/// Certificates of prevotes, as they came; nothing about them is checked until somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Polkas(Mutex<VecDeque<PolkaCertificate<Ctx>>>);

impl Polkas {
    pub(crate) fn note(&self, certificate: &PolkaCertificate<Ctx>) {
        let mut polkas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if polkas.contains(certificate) {
            return;
        }
        if polkas.len() >= MAX_POLKAS {
            polkas.pop_front();
        }
        polkas.push_back(certificate.clone());
    }

    /// Whether more than two thirds of the power are known to have prevoted this block in this round.
    pub(crate) fn hold(
        &self,
        (height, round, block): (u64, u32, Oid),
        members: &Members,
        verifier: &Strict,
    ) -> bool {
        let polkas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |c: &&PolkaCertificate<Ctx>| {
            c.height.0 == height && c.round.as_u32() == Some(round) && c.value_id.0 == block
        };
        polkas.iter().filter(fits).any(|certificate| {
            let mut signers = BTreeSet::new();
            let mut power = 0;
            for vote in certificate.votes(&Ctx) {
                let Some(member) = members.get_by_address(&vote.message.validator) else {
                    return false;
                };
                if signers.insert(vote.message.validator) && verifier.vote_holds(&vote) {
                    power += member.voting_power();
                }
            }
            u128::from(power) * 3 > u128::from(members.total_voting_power()) * 2
        })
    }
}
