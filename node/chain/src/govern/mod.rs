//! Governance: who is a validator, an operator or a device, and which keys they have, decided by motions; and evidence,
//! which needs no vote.
//!
//! A motion is an entry; validators vote with the power that they had when it was made; more than two thirds of all
//! pass it, and it takes effect at the start of the block that its delay names. It is tried when it is made and again
//! when it takes effect, since others may have taken effect in between.

mod balance;
mod decide;
mod devices;
mod evidence;
mod forks;
mod motion;
mod names;
mod operators;
pub mod ops;
mod proof;
mod propose;
mod registry;
mod replace;
mod validators;
mod vote;

use instar_attest::Digest;
use instar_ledger::Entry;
use serde_json::{Value, json};

pub use forks::{MAX_OPEN_FORKS, MAX_PARTS};
pub use motion::{Motion, MotionBallot, MotionPhase};
pub use names::{MAX_NAME_BYTES, is_name};
pub use ops::{Change, GovernOp};
pub use proof::{KEY_PROOF_DOMAIN, key_proof_bytes};

use crate::keys;
use crate::machine::{Machine, Op, refuse};
use crate::record;
use crate::view::{Overlay, StateError, StateView};

/// How many motions may be undecided at once.
pub const MAX_OPEN_MOTIONS: usize = 32;
/// How many of them one operator may have made, so that no single one keeps all others from moving anything.
pub const MAX_OPEN_MOTIONS_AN_OPERATOR: usize = 4;
/// How many blocks a motion may wait after it has passed: an idle chain makes these blocks for it alone.
pub const MAX_DELAY_BLOCKS: u64 = 1000;
/// For how long validators vote, in milliseconds of block time: people decide, and a week has everybody's working days.
pub const VOTE_MS: u64 = 7 * 24 * 3_600_000;
/// For how many blocks they vote at least.
pub const VOTE_BLOCKS: u64 = 10;

/// Does what an entry under the topic `govern` says.
pub(crate) fn apply(m: &mut Machine<'_>, entry: &Entry, id: Digest) -> Op {
    let Ok(op) = GovernOp::from_value(&entry.body) else {
        return refuse(
            "malformed-body",
            "the body is no operation of the topic govern",
        );
    };
    if let GovernOp::Evidence(evidence) = &op {
        // Anybody may bring it: it proves itself.
        return evidence::apply(m, entry, id, evidence);
    }
    let author = m.author(entry)?;
    match op {
        GovernOp::Propose(op) => propose::apply(m, &author, id, op),
        GovernOp::Vote(op) => vote::apply(m, &author, id, op),
        GovernOp::Withdraw(op) => vote::withdraw(m, &author, &op),
        GovernOp::Evidence(evidence) => evidence::apply(m, entry, id, &evidence),
    }
}

/// What is due at the start of a block: votes whose time is over, and motions whose height has come, oldest first.
pub(crate) fn due(m: &mut Machine<'_>) -> Result<(), StateError> {
    for id in open_ids(&m.state)? {
        let mut motion: Motion = record::expect(&m.state, &keys::motion(&id))?;
        decide::at_start(m, &mut motion)?;
    }
    Ok(())
}

/// The ids of the motions that are not decided, or wait for their height, oldest first.
pub(crate) fn open_ids(view: &dyn StateView) -> Result<Vec<Digest>, StateError> {
    Ok(record::read(view, keys::OPEN_MOTIONS)?.unwrap_or_default())
}

fn load(state: &Overlay<'_>, id: &Digest) -> Op<Motion> {
    match record::read(state, &keys::motion(id))? {
        Some(motion) => Ok(motion),
        None => refuse("unknown-motion", format!("there is no motion {id}")),
    }
}

fn save(m: &mut Machine<'_>, motion: &Motion) -> Result<(), StateError> {
    if motion.is_closed() {
        let open: Vec<Digest> = open_ids(&m.state)?
            .into_iter()
            .filter(|id| *id != motion.id)
            .collect();
        record::write(&mut m.state, keys::OPEN_MOTIONS, &open)?;
    }
    record::write(&mut m.state, &keys::motion(&motion.id), motion)
}

/// What a receipt shows of a motion.
fn shown(motion: &Motion) -> Option<Value> {
    Some(json!({"motion": motion.id, "phase": motion.phase}))
}
