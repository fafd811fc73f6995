//! `build.commit`: a builder fixes what it built before it can see what others built.

use std::collections::BTreeMap;

use instar_attest::Digest;
use instar_attest::release::Target;

use super::{RoundPhase, close, load, shown};
use crate::machine::{Author, Machine, Op, ensure, refuse};
use crate::ops::Commit;

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, entry: Digest, op: Commit) -> Op {
    let mut round = load(&m.state, &op.round)?;
    ensure(round.phase == RoundPhase::Commit, "late-commitment", || {
        format!("round {} takes no commitments any more", round.id)
    })?;
    let mut commitments: BTreeMap<Target, Digest> = BTreeMap::new();
    for given in &op.commitments {
        ensure(
            round.targets.contains(&given.target),
            "unknown-target",
            || format!("the round does not build {}", given.target),
        )?;
        let before = commitments.insert(given.target.clone(), given.digest);
        ensure(before.is_none(), "target-twice", || {
            format!("{} is given twice", given.target)
        })?;
    }
    ensure(!commitments.is_empty(), "nothing-committed", || {
        "a commitment is for one target at least".into()
    })?;
    let Some(builder) = round.builder_by_mut(author) else {
        return not_a_builder(author);
    };
    ensure(builder.committed.is_none(), "already-committed", || {
        format!("builder {} has committed", builder.name)
    })?;
    builder.commitments = commitments;
    builder.committed = Some(entry);
    close::advance(m, &mut round)?;
    Ok(shown(&round))
}

pub(super) fn not_a_builder<T>(author: &Author) -> Op<T> {
    let detail = format!("the round does not ask a builder of {}", author.account);
    refuse("not-a-builder", detail)
}
