//! `build.open`: fixes what is built, who counts, and by which policy.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::release::{Activation, Target};
use instar_attest::{Digest, json};

use super::{BuilderRecord, MAX_NUMBER_STEP, MAX_OPEN_ROUNDS, Round, RoundPhase, open_ids, shown};
use crate::keys;
use crate::machine::{Author, Machine, Op, ensure, refuse};
use crate::ops::Open;
use crate::policy::{MAX_TARGETS, SlotPolicy};
use crate::record::{self, Deadline, SlotRecord};

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, id: Digest, op: Open) -> Op {
    let slot: Option<SlotRecord> = record::read(&m.state, &keys::slot(op.slot.as_str()))?;
    let Some(slot) = slot else {
        return refuse("unknown-slot", format!("there is no slot {}", op.slot));
    };
    let policy = m.policy.of(&op.slot).clone();
    check_kind(m, &op)?;
    check_targets(&op.targets, &policy)?;
    check_number(m, &op, slot.number)?;
    let source: Option<Digest> =
        record::read(&m.state, &keys::source(op.slot.as_str(), &op.source.commit))?;
    if let Some(before) = source {
        // Whoever saw the bytes of another round could reveal them without building.
        let detail = format!("round {before} made the bytes of this commit public; make a new one");
        return refuse("source-already-revealed", detail);
    }
    let builders = snapshot(m, &policy)?;
    let deadline = Deadline {
        height: m.height + policy.commit_blocks,
        time_ms: m.time_ms + policy.commit_ms,
    };
    let mut targets = op.targets;
    targets.sort();
    let round = Round {
        activation: op.activation,
        agreed: BTreeMap::new(),
        builders,
        closed_at: None,
        deadline,
        detail: None,
        id,
        matched: Vec::new(),
        name: op.name,
        number: op.number,
        opened_at: m.height,
        opened_by: author.account,
        phase: RoundPhase::Commit,
        policy,
        protocol: op.protocol,
        release: None,
        rule: None,
        slot: op.slot,
        source: op.source,
        targets,
        would_be: None,
    };
    let mut open = open_ids(&m.state)?;
    ensure(open.len() < MAX_OPEN_ROUNDS, "too-many-rounds", || {
        format!("{MAX_OPEN_ROUNDS} build rounds are open")
    })?;
    open.push(id);
    record::write(&mut m.state, keys::OPEN_ROUNDS, &open)?;
    record::write(&mut m.state, &keys::round(&id), &round)?;
    Ok(shown(&round))
}

fn check_kind(m: &Machine<'_>, op: &Open) -> Op<()> {
    ensure(op.activation.fits(&op.slot), "activation-mismatch", || {
        format!("slot {} can't be activated in this way", op.slot)
    })?;
    ensure(
        op.activation != Activation::Coordinated,
        "activation-not-supported",
        || "this protocol knows the activations dapp and rolling".into(),
    )?;
    let named = op.slot.dapp_name().is_none_or(|d| d == op.name.as_str());
    ensure(named, "name-mismatch", || {
        format!(
            "slot {} does not hold a program called {}",
            op.slot, op.name
        )
    })?;
    ensure(op.protocol == m.protocol, "protocol-mismatch", || {
        format!("the chain's protocol is {}", m.protocol)
    })?;
    ensure(op.source.check().is_ok(), "bad-source", || {
        "commit and tree are no object ids of the source's format".into()
    })
}

fn check_targets(targets: &[Target], policy: &SlotPolicy) -> Op<()> {
    let distinct: BTreeSet<&Target> = targets.iter().collect();
    ensure(
        distinct.len() == targets.len() && targets.len() <= MAX_TARGETS,
        "bad-targets",
        || format!("at most {MAX_TARGETS} targets, each once"),
    )?;
    let missing = policy
        .target_list()
        .into_iter()
        .find(|t| !distinct.contains(t));
    match missing {
        None => Ok(()),
        Some(target) => refuse("targets-missing", format!("the policy asks for {target}")),
    }
}

fn check_number(m: &Machine<'_>, op: &Open, current: u64) -> Op<()> {
    ensure(op.number > current, "number-not-higher", || {
        format!("slot {} holds release {current}", op.slot)
    })?;
    let mut highest = current;
    for id in open_ids(&m.state)? {
        let other: Round = record::expect(&m.state, &keys::round(&id))?;
        if other.slot == op.slot {
            highest = highest.max(other.number);
            ensure(op.number > other.number, "number-not-higher", || {
                format!(
                    "round {id} of the same slot is for release {}",
                    other.number
                )
            })?;
        }
    }
    let bound = highest
        .saturating_add(MAX_NUMBER_STEP)
        .min(json::MAX_INTEGER);
    ensure(op.number <= bound, "number-too-high", || {
        format!(
            "the next release of slot {} has a number up to {bound}",
            op.slot
        )
    })
}

fn snapshot(m: &Machine<'_>, policy: &SlotPolicy) -> Op<Vec<BuilderRecord>> {
    let asked = m.validators()?.into_iter().filter(|v| policy.asks(&v.name));
    let mut builders: Vec<BuilderRecord> = asked
        .map(|v| BuilderRecord {
            account: v.keys.account,
            commitments: BTreeMap::new(),
            committed: None,
            key: v.keys.builder,
            name: v.name,
            operator: v.operator,
            revealed: None,
        })
        .collect();
    builders.sort_by_key(|b| b.key);
    Ok(builders)
}
