//! Build rounds: who counts is fixed, builders commit, builders reveal, and the ledger computes the release.

mod assemble;
mod close;
mod commit;
mod open;
mod reveal;
mod round;
mod tally;

use instar_attest::Digest;
use instar_ledger::Entry;
use serde_json::Value;

pub use assemble::{ReleaseRootError, release_root};
pub use round::{BuilderRecord, Revealed, Round, RoundPhase};

use crate::keys;
use crate::machine::{Machine, Op, OpError, refuse};
use crate::ops::BuildOp;
use crate::record;
use crate::view::{Overlay, StateError, StateView};

/// How many rounds may be open at once: each keeps what was revealed in the state until it closes.
pub const MAX_OPEN_ROUNDS: usize = 32;

/// How far a release number may lie above the slot's and all open rounds': nobody can use numbers up.
pub const MAX_NUMBER_STEP: u64 = 1000;

/// Does what an entry under the topic `build` says.
pub(crate) fn apply(m: &mut Machine<'_>, entry: &Entry, id: Digest) -> Op {
    let author = m.author(entry)?;
    let Ok(op) = BuildOp::from_value(&entry.body) else {
        return refuse(
            "malformed-body",
            "the body is no operation of the topic build",
        );
    };
    match op {
        BuildOp::Open(op) => open::apply(m, &author, id, op),
        BuildOp::Commit(op) => commit::apply(m, &author, id, op),
        BuildOp::Reveal(op) => reveal::apply(m, &author, id, op),
    }
}

/// Moves open rounds on whose deadlines have passed.
pub(crate) fn due(m: &mut Machine<'_>) -> Result<(), StateError> {
    for id in open_ids(&m.state)? {
        let mut round: Round = record::expect(&m.state, &keys::round(&id))?;
        close::advance(m, &mut round)?;
    }
    Ok(())
}

/// The ids of the rounds that are not closed, oldest first.
pub(crate) fn open_ids(view: &dyn StateView) -> Result<Vec<Digest>, StateError> {
    Ok(record::read(view, keys::OPEN_ROUNDS)?.unwrap_or_default())
}

fn load(state: &Overlay<'_>, id: &Digest) -> Op<Round> {
    match record::read(state, &keys::round(id))? {
        Some(round) => Ok(round),
        None => refuse("unknown-round", format!("there is no build round {id}")),
    }
}

/// What a receipt shows of a round.
fn shown(round: &Round) -> Option<Value> {
    Some(serde_json::json!({"phase": round.phase, "round": round.id}))
}

impl From<Round> for OpError {
    /// A closed round's own refusal, for those who go on as if it had agreed.
    fn from(round: Round) -> Self {
        let detail = round.detail.unwrap_or_default();
        let rule = round.rule.unwrap_or_default();
        Self::Refused(crate::machine::Refused { rule, detail })
    }
}
