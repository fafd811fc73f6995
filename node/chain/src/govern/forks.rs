//! `fork-merge`: what of a fork is merged, in which slices. The motion proves by itself that the fork is one of this chain,
//! and that its validators certified the last block that is merged.

use instar_ledger::fork::MAX_SLICE_BLOCKS;
use instar_ledger::light::Light;
use instar_ledger::{ForkPart, Genesis, Oid};

use super::ops::ForkMerge;
use super::registry::Registry;
use crate::forks;
use crate::keys;
use crate::machine::{Op, OpError, Refused, ensure, refuse};
use crate::record::{self, ForkRecord};

/// How many slices one motion may make due. They have to fit an entry, with the genesis and the proof.
pub const MAX_PARTS: usize = 256;
/// How many forks may be under way at once: a proposer looks at each of them for every block.
pub const MAX_OPEN_FORKS: usize = 8;

pub(super) fn merge(
    r: &mut Registry<'_>,
    op: &ForkMerge,
    motion: &instar_attest::Digest,
) -> Op<()> {
    check_mother(r, &op.genesis)?;
    check_head(op)?;
    let known: Option<ForkRecord> = record::read(&r.state, &keys::fork(&op.chain))?;
    let mut fork = known.unwrap_or_else(|| ForkRecord {
        head: Oid::from(op.chain),
        height: 0,
        motion: *motion,
        parts: Vec::new(),
        since: r.height,
    });
    let to = op.header.header.height;
    ensure(to > fork.height, "fork-merged-already", || {
        format!(
            "the fork is merged up to height {}, the motion goes up to {to}",
            fork.height
        )
    })?;
    check_parts(op)?;
    // An earlier motion may have got into the middle of a slice; ids still say what the rest of it is.
    let rest = op.parts.iter().filter(|p| p.height > fork.height);
    fork.parts = rest.copied().collect();
    let first = fork.parts.first().map_or(to, |part| part.height);
    check_step(fork.height, first)?;
    fork.motion = *motion;
    fork.since = r.height;
    let open = forks::open(&r.state)?;
    ensure(
        open.contains(&op.chain) || open.len() < MAX_OPEN_FORKS,
        "too-many-forks",
        || format!("{MAX_OPEN_FORKS} forks are being merged"),
    )?;
    Ok(forks::save(&mut r.state, &op.chain, &fork)?)
}

/// Whether the block is one of this chain's trunk is for whoever has the trunk: a slice that stands on another is refused.
fn check_mother(r: &Registry<'_>, genesis: &Genesis) -> Op<()> {
    let Some(fork) = &genesis.fork else {
        return refuse("fork-of-another", "the chain is no fork");
    };
    ensure(*fork.mother() == r.chain, "fork-of-another", || {
        format!(
            "it is a fork of chain {}, this is {}",
            fork.mother(),
            r.chain
        )
    })?;
    ensure(fork.height() < r.height, "fork-of-another", || {
        format!(
            "it stands on height {}, which this chain has not reached",
            fork.height()
        )
    })
}

fn check_head(op: &ForkMerge) -> Op<()> {
    let refused = |rule: &str, detail: String| {
        OpError::Refused(Refused {
            rule: rule.to_owned(),
            detail,
        })
    };
    let mut light = Light::from_genesis(&op.chain, &op.genesis)
        .map_err(|e| refused("fork-genesis", e.to_string()))?;
    for change in &op.changes {
        light
            .advance(change)
            .map_err(|e| refused("fork-not-certified", e.to_string()))?;
    }
    light
        .verify(&op.header)
        .map_err(|e| refused("fork-not-certified", e.to_string()))?;
    Ok(())
}

fn check_parts(op: &ForkMerge) -> Op<()> {
    let bad = |detail: String| refuse("fork-parts", detail);
    if op.parts.len() > MAX_PARTS {
        return bad(format!(
            "{} slices, at most {MAX_PARTS} are allowed; merge a part of the fork first",
            op.parts.len()
        ));
    }
    let head = ForkPart {
        height: op.header.header.height,
        id: op.header.certificate.block,
    };
    if op.parts.last() != Some(&head) {
        return bad("the last slice does not end at the block that the proof is of".into());
    }
    for pair in op.parts.windows(2) {
        check_step(pair[0].height, pair[1].height)?;
    }
    Ok(())
}

fn check_step(before: u64, next: u64) -> Op<()> {
    let step = next.saturating_sub(before);
    ensure((1..=MAX_SLICE_BLOCKS).contains(&step), "fork-parts", || {
        format!(
            "slices have 1 to {MAX_SLICE_BLOCKS} blocks and ascend; {next} does not follow on {before}"
        )
    })
}
