//! Upgrades: proposals, votes, readiness, activation, rollouts and reports.

mod activate;
mod cancel;
mod decide;
mod proposal;
mod propose;
mod ready;
mod report;
mod rollout;
mod slot;
mod vote;

use instar_attest::Digest;
use instar_attest::PublicKey;
use instar_ledger::{Certificate, Entry};
use serde_json::Value;

pub use proposal::{
    Member, Phase, Proposal, ReadyRecord, Rehearsal, ReportRecord, Rollout, VoteRecord,
};
pub(crate) use rollout::HEALTH_BLOCKS;
pub(crate) use slot::migrate;

use crate::block::BlockError;
use crate::keys;
use crate::machine::{Author, Machine, Op, refuse};
use crate::ops::{MAX_REASON_BYTES, UpgradeOp, is_reason};
use crate::record;
use crate::view::{Overlay, StateError, StateView};

/// How many proposals may be undecided at once.
pub const MAX_OPEN_PROPOSALS: usize = 32;

/// Does what an entry under the topic `upgrade` says.
pub(crate) fn apply(m: &mut Machine<'_>, entry: &Entry, id: Digest) -> Op {
    let author = m.author(entry)?;
    let Ok(op) = UpgradeOp::from_value(&entry.body) else {
        return refuse(
            "malformed-body",
            "the body is no operation of the topic upgrade",
        );
    };
    match op {
        UpgradeOp::Propose(op) => propose::apply(m, &author, id, &op),
        UpgradeOp::Vote(op) => vote::apply(m, &author, id, op),
        UpgradeOp::Ready(op) => ready::apply(m, &author, id, op),
        UpgradeOp::Report(op) => report::apply(m, &author, id, op),
        UpgradeOp::Cancel(op) => cancel::apply(m, &author, &op),
    }
}

/// What is due at the start of a block: health that the certificate shows, deadlines, activations, waves.
pub(crate) fn due(m: &mut Machine<'_>, previous: Option<&Certificate>) -> Result<(), BlockError> {
    for id in open_ids(&m.state)? {
        let mut proposal: Proposal = record::expect(&m.state, &keys::proposal(&id))?;
        match proposal.phase {
            Phase::Voting | Phase::Rehearsing => decide::advance(m, &mut proposal)?,
            Phase::Scheduled => activate::at_height(m, &mut proposal)?,
            Phase::Rolling => rollout::at_start(m, &mut proposal, previous)?,
            _ => {}
        }
    }
    Ok(())
}

/// The ids of the proposals that are not decided, oldest first.
pub(crate) fn open_ids(view: &dyn StateView) -> Result<Vec<Digest>, StateError> {
    Ok(record::read(view, keys::OPEN_PROPOSALS)?.unwrap_or_default())
}

fn load(state: &Overlay<'_>, id: &Digest) -> Op<Proposal> {
    match record::read(state, &keys::proposal(id))? {
        Some(proposal) => Ok(proposal),
        None => refuse("unknown-proposal", format!("there is no proposal {id}")),
    }
}

fn save(m: &mut Machine<'_>, proposal: &Proposal) -> Result<(), StateError> {
    if proposal.is_closed() {
        let open: Vec<Digest> = open_ids(&m.state)?
            .into_iter()
            .filter(|id| *id != proposal.id)
            .collect();
        record::write(&mut m.state, keys::OPEN_PROPOSALS, &open)?;
    }
    record::write(&mut m.state, &keys::proposal(&proposal.id), proposal)
}

/// The member of the proposal's own validator set that an account speaks for. Its name decides, since names are never
/// used again: a validator whose account key was replaced in between is still the same, and one that was removed is
/// asked no more, so that its silence counts.
fn member(proposal: &Proposal, author: &Author) -> Op<Member> {
    let account: &PublicKey = &author.account;
    let own = |v: &&Member| author.validator.as_ref() == Some(&v.name);
    match proposal.validators.iter().find(own) {
        Some(member) => Ok(member.clone()),
        None => refuse(
            "not-a-validator",
            format!("{account} is no validator's account in this proposal"),
        ),
    }
}

pub(crate) fn check_reason(reason: Option<&String>) -> Op<()> {
    if reason.is_some_and(|r| !is_reason(r)) {
        return refuse(
            "reason-too-long",
            format!("a reason has at most {MAX_REASON_BYTES} bytes"),
        );
    }
    Ok(())
}

/// What a receipt shows of a proposal.
fn shown(proposal: &Proposal) -> Option<Value> {
    Some(serde_json::json!({"phase": proposal.phase, "proposal": proposal.id}))
}
