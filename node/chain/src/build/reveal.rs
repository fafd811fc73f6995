//! `build.reveal`: a builder shows what it committed to, and attests it.

use std::collections::BTreeMap;

use instar_attest::check::{Expected, Refusal, Registered, check_attestation};
use instar_attest::release::{
    FileReveal, SbomReveal, Target, check_files, check_sbom, commitment, target_digest,
};
use instar_attest::{Digest, Purpose};
use serde::{Deserialize, Serialize};

use super::commit::not_a_builder;
use super::round::{Revealed, Round, RoundPhase};
use super::{close, load, shown};
use crate::gates::Gate;
use crate::keys;
use crate::machine::{Author, Machine, Op, ensure, refuse};
use crate::ops::{Reveal, TargetReveal};
use crate::record;

/// What stands in the state until the round closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredReveal {
    pub sbom: SbomReveal,
    pub targets: BTreeMap<Target, Vec<FileReveal>>,
}

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, entry: Digest, op: Reveal) -> Op {
    let mut round = load(&m.state, &op.round)?;
    let digests = digests_of(&op.reveals)?;
    if round.is_closed() {
        return late(&round, author, &digests);
    }
    ensure(round.phase == RoundPhase::Reveal, "early-reveal", || {
        "builders still commit: nothing may be shown before all have, or their time is over".into()
    })?;
    check_opens(m, &round, author, &op.reveals, &digests)?;
    check_attested(m, &round, author, &op)?;
    let bundle = Digest::of(op.bundle.as_bytes());
    let stored = StoredReveal {
        sbom: op.sbom,
        targets: op
            .reveals
            .into_iter()
            .map(|r| (r.target, r.files))
            .collect(),
    };
    let Some(builder) = round.builder_by_mut(author) else {
        return not_a_builder(author);
    };
    builder.revealed = Some(Revealed {
        bundle,
        entry,
        sbom: stored.sbom.sha256,
        targets: digests,
    });
    let key = keys::reveal(&op.round, &builder.key);
    record::write(&mut m.state, &key, &stored)?;
    let source = keys::source(round.slot.as_str(), &round.source.commit);
    record::write(&mut m.state, &source, &round.id)?;
    close::advance(m, &mut round)?;
    Ok(shown(&round))
}

/// A reveal after the end tells people something, but it can't count: it could be a copy.
fn late(round: &Round, author: &Author, digests: &BTreeMap<Target, Digest>) -> Op {
    if round.builder_by(author).is_none() {
        return not_a_builder(author);
    }
    let confirms = !round.agreed.is_empty()
        && round
            .agreed
            .iter()
            .all(|(target, digest)| digests.get(target) == Some(digest));
    let says = if confirms {
        "confirms"
    } else {
        "does not confirm"
    };
    let detail = format!("the round is closed; this {says} its release and does not count");
    refuse("late-reveal", detail)
}

fn digests_of(reveals: &[TargetReveal]) -> Op<BTreeMap<Target, Digest>> {
    let mut digests = BTreeMap::new();
    for reveal in reveals {
        if let Err(error) = check_files(&reveal.target, &reveal.files) {
            return refuse("bad-reveal", error.to_string());
        }
        let before = digests.insert(reveal.target.clone(), target_digest(&reveal.files));
        ensure(before.is_none(), "target-twice", || {
            format!("{} is given twice", reveal.target)
        })?;
    }
    Ok(digests)
}

fn check_opens(
    m: &Machine<'_>,
    round: &Round,
    author: &Author,
    reveals: &[TargetReveal],
    digests: &BTreeMap<Target, Digest>,
) -> Op<()> {
    let Some(builder) = round.builder_by(author) else {
        return not_a_builder(author);
    };
    ensure(builder.committed.is_some(), "not-committed", || {
        format!("builder {} has not committed", builder.name)
    })?;
    ensure(builder.revealed.is_none(), "already-revealed", || {
        format!("builder {} has revealed", builder.name)
    })?;
    if !m.gates.hold(Gate::Commitment) {
        return Ok(());
    }
    ensure(
        builder.commitments.keys().eq(digests.keys()),
        "commitment-mismatch",
        || "other targets are revealed than were committed to".into(),
    )?;
    for reveal in reveals {
        let opened = commitment(
            &builder.key,
            &m.chain,
            &digests[&reveal.target],
            &reveal.nonce,
            &round.id,
            &reveal.target,
        );
        ensure(
            builder.commitments.get(&reveal.target) == Some(&opened),
            "commitment-mismatch",
            || {
                format!(
                    "the reveal of {} does not open the commitment",
                    reveal.target
                )
            },
        )?;
    }
    Ok(())
}

fn check_attested(m: &Machine<'_>, round: &Round, author: &Author, op: &Reveal) -> Op<()> {
    let Some(builder) = round.builder_by(author) else {
        return not_a_builder(author);
    };
    if let Err(error) = check_sbom(&op.sbom) {
        return refuse("bad-reveal", error.to_string());
    }
    if !m.gates.hold(Gate::Attestation) {
        return Ok(());
    }
    let targets: Vec<Target> = op.reveals.iter().map(|r| r.target.clone()).collect();
    let files: Vec<FileReveal> = op.reveals.iter().flat_map(|r| r.files.clone()).collect();
    let registered = registered(m)?;
    let expected = Expected {
        builder: &builder.key,
        chain: &m.chain,
        round: &round.id,
        slot: &round.slot,
        number: round.number,
        name: &round.name,
        source: &round.source,
        targets: &targets,
        files: &files,
        sbom: &op.sbom,
        recipes: &round.policy.recipe_list(),
        registered: &registered,
    };
    match check_attestation(op.bundle.as_bytes(), &expected) {
        Ok(_) => Ok(()),
        // What a parser says of malformed bytes is not ours to fix for ever.
        Err(refusal @ Refusal::Malformed(_)) => {
            refuse(refusal.rule(), "the bundle or its statement is malformed")
        }
        Err(refusal) => refuse(refusal.rule(), refusal.to_string()),
    }
}

/// All keys of validators, so that the misuse of one is named.
fn registered(m: &Machine<'_>) -> Op<Vec<Registered>> {
    let all = m.validators()?.into_iter().flat_map(|v| {
        [
            (v.keys.account, Purpose::Account),
            (v.keys.builder, Purpose::Builder),
            (v.keys.consensus, Purpose::Consensus),
            (v.keys.lane, Purpose::Lane),
        ]
    });
    Ok(all
        .map(|(key, purpose)| Registered { key, purpose })
        .collect())
}
