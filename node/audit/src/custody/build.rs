//! The build round: who committed to what, who revealed it, and that the release is what enough of them built.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::check::{Expected, Registered, check_attestation};
use instar_attest::policy::{Input, OtherKey, Policy, PolicyFormat, verify};
use instar_attest::release::{FileReveal, Release, ReleaseHead, Target, commitment, target_digest};
use instar_attest::{Digest, PublicKey, Purpose};
use instar_chain::build::BuilderRecord;
use instar_chain::ops::{BuildOp, Open, Reveal};

use super::Case;
use crate::log::Applied;
use crate::report::{Refused, Report};

/// A reveal that counts, with whose it is.
pub(super) struct Counted<'a> {
    pub builder: &'a BuilderRecord,
    pub reveal: Reveal,
}

/// Finds the entry that opened the round, and compares it with the release.
pub(super) fn open(report: &mut Report, case: &Case<'_>) -> Result<Applied<Open>, Refused> {
    let Case { from, round, .. } = case;
    let round = &round.id;
    let found = from.log.builds().find_map(|b| match b.op {
        BuildOp::Open(op) if b.id == *round => Some(Applied {
            id: b.id,
            height: b.height,
            author: b.author,
            op,
        }),
        _ => None,
    });
    let name = "build-open";
    let open = found
        .ok_or_else(|| report.refuse(name, format!("no applied entry {round} opens a round")))?;
    let release = from.release;
    let same = open.op.slot == release.slot
        && open.op.number == release.number
        && open.op.name == release.name
        && open.op.activation == release.activation
        && open.op.protocol == release.protocol
        && open.op.source == release.source;
    if !same {
        let why = "the round was opened for another slot, number, name, protocol or source";
        return Err(report.refuse(name, why));
    }
    report.hold(
        name,
        format!(
            "entry {round} by {} in block {}: {} number {} from commit {}",
            case.who(&open.author),
            open.height,
            release.slot,
            release.number,
            release.source.commit
        ),
    );
    Ok(open)
}

/// Each builder's commitments, by target.
pub(super) type Commitments = BTreeMap<PublicKey, (u64, BTreeMap<Target, Digest>)>;

pub(super) fn commitments(report: &mut Report, case: &Case<'_>) -> Result<Commitments, Refused> {
    let mut commits = Commitments::new();
    for build in case.from.log.builds() {
        let BuildOp::Commit(op) = build.op else {
            continue;
        };
        if op.round != case.round.id {
            continue;
        }
        let Some(builder) = asked(case, &build.author) else {
            let why = format!("{} was not asked to build", build.author);
            return Err(report.refuse("commitments", why));
        };
        let by_target = op
            .commitments
            .into_iter()
            .map(|c| (c.target, c.digest))
            .collect();
        let before = commits.insert(builder.key, (build.height, by_target));
        if before.is_some() {
            let why = format!("{} committed twice", builder.name);
            return Err(report.refuse("commitments", why));
        }
    }
    let n = case.round.builders.len();
    report.hold(
        "commitments",
        format!("{} of {n} builders committed", commits.len()),
    );
    Ok(commits)
}

pub(super) fn reveals<'a>(
    report: &mut Report,
    case: &'a Case<'_>,
    open: &Applied<Open>,
    commits: &Commitments,
) -> Result<Vec<Counted<'a>>, Refused> {
    let name = "reveals";
    let last_commit = commits.values().map(|(height, _)| *height).max();
    let mut counted: Vec<Counted<'a>> = Vec::new();
    let Case { from, round, .. } = case;
    let registered = registered(case);
    let recipes = round.policy.recipe_list();
    for build in from.log.builds() {
        let BuildOp::Reveal(reveal) = build.op else {
            continue;
        };
        if reveal.round != round.id {
            continue;
        }
        let Some(builder) = asked(case, &build.author) else {
            let why = format!("{} was not asked to build", build.author);
            return Err(report.refuse(name, why));
        };
        let key = builder.key;
        let Some((_, committed)) = commits.get(&key) else {
            let why = format!("{} revealed without a commitment", builder.name);
            return Err(report.refuse(name, why));
        };
        if last_commit.is_some_and(|last| build.height < last) {
            let why = format!(
                "{} revealed in block {}, before the last commitment",
                builder.name, build.height
            );
            return Err(report.refuse(name, why));
        }
        for shown in &reveal.reveals {
            let digest = target_digest(&shown.files);
            let opens = commitment(
                &key,
                &from.chain,
                &digest,
                &shown.nonce,
                &round.id,
                &shown.target,
            );
            if committed.get(&shown.target) != Some(&opens) {
                let why = format!(
                    "{} revealed for {} what its commitment does not open to",
                    builder.name, shown.target
                );
                return Err(report.refuse(name, why));
            }
        }
        let files: Vec<FileReveal> = reveal
            .reveals
            .iter()
            .flat_map(|r| r.files.clone())
            .collect();
        let targets: Vec<Target> = reveal.reveals.iter().map(|r| r.target.clone()).collect();
        let expected = Expected {
            builder: &key,
            chain: &from.chain,
            round: &round.id,
            slot: &open.op.slot,
            number: open.op.number,
            name: &open.op.name,
            source: &open.op.source,
            targets: &targets,
            files: &files,
            sbom: &reveal.sbom,
            recipes: &recipes,
            registered: &registered,
        };
        if let Err(refusal) = check_attestation(reveal.bundle.as_bytes(), &expected) {
            let why = format!("{}: {}: {refusal}", builder.name, refusal.rule());
            return Err(report.refuse("attestations", why));
        }
        counted.push(Counted { builder, reveal });
    }
    report.hold(
        name,
        format!(
            "{} builders revealed, each what it had committed to, after all commitments",
            counted.len()
        ),
    );
    report.hold(
        "attestations",
        format!(
            "{} attestations verify: in-toto statement, SLSA provenance, DSSE by the builder's own key",
            counted.len()
        ),
    );
    Ok(counted)
}

/// The policy verifier's answer, over release.json and the bundles alone.
pub(super) fn agreement(
    report: &mut Report,
    case: &Case<'_>,
    counted: &[Counted<'_>],
) -> Result<(), Refused> {
    let Case { from, round, .. } = case;
    let bundles: Vec<Vec<u8>> = counted
        .iter()
        .map(|c| c.reveal.bundle.clone().into_bytes())
        .collect();
    let input = Input {
        release: from.release_bytes,
        bundles: &bundles,
    };
    let policy = Policy {
        builders: round.policy_builders(),
        chain: from.chain,
        format: PolicyFormat::V1,
        other_keys: registered(case)
            .into_iter()
            .filter(|r| r.purpose != Purpose::Builder)
            .map(|r| OtherKey {
                key: r.key,
                purpose: r.purpose,
            })
            .collect(),
        recipes: round.policy.recipe_list(),
        round: round.id,
        source: from.release.source.clone(),
        targets: round.policy.target_list(),
        threshold: round.policy.builders,
    };
    let verdict = verify(&input, &policy);
    if let Some(refused) = verdict.refused_by() {
        let why = format!("{}: {}", refused.rule, refused.detail);
        return Err(report.refuse("builders", why));
    }
    let said: Vec<&str> = verdict
        .checks
        .iter()
        .filter(|c| c.rule == "builders-threshold")
        .map(|c| c.detail.as_str())
        .collect();
    report.hold("builders", said.join("; "));
    Ok(())
}

/// Who revealed the same bytes.
struct Group<'a> {
    files: &'a [FileReveal],
    operators: BTreeSet<&'a str>,
}

/// Puts the release together again from what enough builders revealed, and compares the bytes.
pub(super) fn assembly(
    report: &mut Report,
    case: &Case<'_>,
    open: &Applied<Open>,
    counted: &[Counted<'_>],
) -> Result<(), Refused> {
    let name = "release-root";
    let Case { from, round, .. } = case;
    // Who revealed which bytes for a target, together with the release's own SBOM.
    let mut groups: BTreeMap<(&Target, Digest), Group<'_>> = BTreeMap::new();
    let with_sbom = |one: &&Counted<'_>| one.reveal.sbom == from.release.sbom;
    for one in counted.iter().filter(with_sbom) {
        for shown in &one.reveal.reveals {
            groups
                .entry((&shown.target, target_digest(&shown.files)))
                .or_insert_with(|| Group {
                    files: &shown.files,
                    operators: BTreeSet::new(),
                })
                .operators
                .insert(&one.builder.operator);
        }
    }
    let targets: BTreeMap<Target, Vec<FileReveal>> = groups
        .into_iter()
        .filter(|(_, group)| group.operators.len() >= round.policy.builders as usize)
        .map(|((target, _), group)| (target.clone(), group.files.to_vec()))
        .collect();
    let head = ReleaseHead {
        activation: open.op.activation,
        chain: from.chain,
        chunk_profile: from.release.chunk_profile.clone(),
        name: open.op.name.clone(),
        number: open.op.number,
        protocol: from.release.protocol,
        slot: open.op.slot.clone(),
        source: open.op.source.clone(),
    };
    let release = report.need(
        name,
        Release::assemble(head, &targets, from.release.sbom.clone()),
    )?;
    let bytes = report.need(name, release.to_bytes())?;
    if bytes != from.release_bytes {
        let why = "what the builders agreed on makes another release.json";
        return Err(report.refuse(name, why));
    }
    report.hold(
        name,
        format!(
            "release.json put together from the reveals is byte for byte that of {}",
            from.history.release
        ),
    );
    Ok(())
}

/// The builder that an account speaks for, if it was asked.
fn asked<'a>(case: &'a Case<'_>, account: &PublicKey) -> Option<&'a BuilderRecord> {
    case.round.builders.iter().find(|b| b.account == *account)
}

/// All keys of the chain, with their purposes: a key never gets another one, even when it is retired.
fn registered(case: &Case<'_>) -> Vec<Registered> {
    let all = case.keys.iter();
    all.map(|(key, known)| Registered {
        key: *key,
        purpose: known.purpose,
    })
    .collect()
}
