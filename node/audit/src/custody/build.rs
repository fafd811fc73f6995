//! The build round: who committed to what, who revealed it, and that the release is what enough of them built.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::check::{Expected, Registered, check_attestation};
use instar_attest::policy::{Input, OtherKey, Policy, PolicyBuilder, PolicyFormat, verify};
use instar_attest::release::{FileReveal, Release, ReleaseHead, Target, commitment, target_digest};
use instar_attest::{Digest, PublicKey, Purpose};
use instar_chain::ops::{BuildOp, Open, Reveal};
use instar_chain::policy::SlotPolicy;
use instar_ledger::GenesisValidator;

use super::{Sources, who};
use crate::log::Applied;
use crate::report::{Refused, Report};

/// A reveal that counts, with whose it is.
pub(super) struct Counted<'a> {
    pub builder: &'a GenesisValidator,
    pub reveal: Reveal,
}

/// Finds the entry that opened the round, and compares it with the release.
pub(super) fn open(
    report: &mut Report,
    from: &Sources<'_>,
    round: &Digest,
) -> Result<Applied<Open>, Refused> {
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
            who(from, &open.author),
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

pub(super) fn commitments(
    report: &mut Report,
    from: &Sources<'_>,
    policy: &SlotPolicy,
    round: &Digest,
) -> Result<Commitments, Refused> {
    let mut commits = Commitments::new();
    for build in from.log.builds() {
        let BuildOp::Commit(op) = build.op else {
            continue;
        };
        if op.round != *round {
            continue;
        }
        let Some(builder) = asked(from, policy, &build.author) else {
            let why = format!("{} was not asked to build", build.author);
            return Err(report.refuse("commitments", why));
        };
        let by_target = op
            .commitments
            .into_iter()
            .map(|c| (c.target, c.digest))
            .collect();
        let before = commits.insert(builder.keys.builder, (build.height, by_target));
        if before.is_some() {
            let why = format!("{} committed twice", builder.name);
            return Err(report.refuse("commitments", why));
        }
    }
    let n = asked_all(from, policy).count();
    report.hold(
        "commitments",
        format!("{} of {n} builders committed", commits.len()),
    );
    Ok(commits)
}

pub(super) fn reveals<'a>(
    report: &mut Report,
    from: &Sources<'a>,
    policy: &SlotPolicy,
    round: &Digest,
    open: &Applied<Open>,
    commits: &Commitments,
) -> Result<Vec<Counted<'a>>, Refused> {
    let name = "reveals";
    let last_commit = commits.values().map(|(height, _)| *height).max();
    let mut counted: Vec<Counted<'a>> = Vec::new();
    let registered = registered(from);
    let recipes = policy.recipe_list();
    for build in from.log.builds() {
        let BuildOp::Reveal(reveal) = build.op else {
            continue;
        };
        if reveal.round != *round {
            continue;
        }
        let Some(builder) = asked(from, policy, &build.author) else {
            let why = format!("{} was not asked to build", build.author);
            return Err(report.refuse(name, why));
        };
        let key = builder.keys.builder;
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
                round,
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
            round,
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
    from: &Sources<'_>,
    policy: &SlotPolicy,
    round: &Digest,
    counted: &[Counted<'_>],
) -> Result<(), Refused> {
    let bundles: Vec<Vec<u8>> = counted
        .iter()
        .map(|c| c.reveal.bundle.clone().into_bytes())
        .collect();
    let input = Input {
        release: from.release_bytes,
        bundles: &bundles,
    };
    let policy = Policy {
        builders: asked_all(from, policy)
            .map(|v| PolicyBuilder {
                key: v.keys.builder,
                name: v.name.clone(),
                operator: v.operator.clone(),
            })
            .collect(),
        chain: from.chain,
        format: PolicyFormat::V1,
        other_keys: registered(from)
            .into_iter()
            .filter(|r| r.purpose != Purpose::Builder)
            .map(|r| OtherKey {
                key: r.key,
                purpose: r.purpose,
            })
            .collect(),
        recipes: policy.recipe_list(),
        round: *round,
        source: from.release.source.clone(),
        targets: policy.target_list(),
        threshold: policy.builders,
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
    from: &Sources<'_>,
    open: &Applied<Open>,
    policy: &SlotPolicy,
    counted: &[Counted<'_>],
) -> Result<(), Refused> {
    let name = "release-root";
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
        .filter(|(_, group)| group.operators.len() >= policy.builders as usize)
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

fn asked_all<'a>(
    from: &Sources<'a>,
    policy: &SlotPolicy,
) -> impl Iterator<Item = &'a GenesisValidator> {
    let validators: &'a [GenesisValidator] = &from.genesis.validators;
    validators.iter().filter(move |v| policy.asks(&v.name))
}

fn asked<'a>(
    from: &Sources<'a>,
    policy: &SlotPolicy,
    account: &PublicKey,
) -> Option<&'a GenesisValidator> {
    asked_all(from, policy).find(|v| v.keys.account == *account)
}

/// All keys of the genesis, with their purposes.
fn registered(from: &Sources<'_>) -> Vec<Registered> {
    let mut out = Vec::new();
    for v in &from.genesis.validators {
        for (key, purpose) in [
            (v.keys.account, Purpose::Account),
            (v.keys.builder, Purpose::Builder),
            (v.keys.consensus, Purpose::Consensus),
            (v.keys.lane, Purpose::Lane),
        ] {
            out.push(Registered { key, purpose });
        }
    }
    for operator in &from.genesis.operators {
        out.push(Registered {
            key: operator.account,
            purpose: Purpose::Account,
        });
    }
    out
}
