//! The chain of custody of one release: from the source commit to the height at which it went live.
//!
//! Every step is derived again from signed entries and what certified receipts say of them, not from what a node's
//! state says.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::check::{Expected, Registered, check_attestation};
use instar_attest::policy::{Input, OtherKey, Policy, PolicyBuilder, PolicyFormat, verify};
use instar_attest::release::{FileReveal, Release, ReleaseHead, Target, commitment, target_digest};
use instar_attest::{ChainId, Digest, PublicKey, Purpose};
use instar_chain::ops::{Ballot, BuildOp, Open, Ready, Reveal, UpgradeOp};
use instar_chain::policy::SlotPolicy;
use instar_chain::record::HistoryEntry;
use instar_ledger::{Genesis, GenesisValidator};

use crate::log::{Applied, Log};
use crate::report::{Refused, Report};

/// What custody is derived from.
pub struct Sources<'a> {
    /// The chain.
    pub chain: ChainId,
    /// What it started with: who is registered, and the policy.
    pub genesis: &'a Genesis,
    /// What was said about builds and upgrades.
    pub log: &'a Log,
    /// The release's own description.
    pub release: &'a Release,
    /// Its bytes.
    pub release_bytes: &'a [u8],
    /// Where the slot's history has the release.
    pub history: &'a HistoryEntry,
}

/// What custody came to.
pub struct Custody {
    /// The height at which it went live: for the node, at which its rollout began.
    pub activated_at: u64,
    /// Each builder's bundle, as its reveal carries it.
    pub bundles: BTreeMap<PublicKey, Vec<u8>>,
}

/// A reveal that counts, with whose it is.
struct Counted<'a> {
    builder: &'a GenesisValidator,
    reveal: Reveal,
}

/// Follows a release that was voted on.
pub(crate) fn follow(report: &mut Report, from: &Sources<'_>) -> Result<Custody, Refused> {
    let policy = report.need(
        "policy",
        instar_chain::policy::Policy::from_value(&from.genesis.policy),
    )?;
    let policy = policy.of(&from.release.slot);
    let round = from
        .history
        .round
        .ok_or_else(|| report.refuse("build-open", "the slot's history names no build round"))?;
    let open = build_open(report, from, &round)?;
    let commits = commitments(report, from, policy, &round)?;
    let counted = reveals(report, from, policy, &round, &open, &commits)?;
    agreement(report, from, policy, &round, &counted)?;
    assembly(report, from, &open, policy, &counted)?;
    let proposal = proposal(report, from, &round)?;
    let accepted = votes(report, from, &proposal)?;
    let ready = readiness(report, from, &proposal, accepted)?;
    let activated_at = activation(report, from, policy, &proposal, ready)?;
    let bundles = counted
        .into_iter()
        .map(|c| (c.builder.keys.builder, c.reveal.bundle.into_bytes()))
        .collect();
    Ok(Custody {
        activated_at,
        bundles,
    })
}

fn build_open(
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
type Commitments = BTreeMap<PublicKey, (u64, BTreeMap<Target, Digest>)>;

fn commitments(
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

fn reveals<'a>(
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
fn agreement(
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
fn assembly(
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

fn proposal(report: &mut Report, from: &Sources<'_>, round: &Digest) -> Result<Digest, Refused> {
    let name = "proposal";
    let id: Digest = report.need(name, from.history.by.parse())?;
    let found = from.log.upgrades().find_map(|u| match u.op {
        UpgradeOp::Propose(op) if u.id == id => Some((u.height, u.author, op)),
        _ => None,
    });
    let Some((height, author, op)) = found else {
        return Err(report.refuse(name, format!("no applied entry {id} proposes a release")));
    };
    if op.release.as_str() != from.history.release || op.round != *round {
        let why = format!("entry {id} proposes {} of round {}", op.release, op.round);
        return Err(report.refuse(name, why));
    }
    report.hold(
        name,
        format!("entry {id} by {} in block {height}", who(from, &author)),
    );
    Ok(id)
}

/// Gives the height at which more than two thirds of the power had voted yes.
fn votes(report: &mut Report, from: &Sources<'_>, proposal: &Digest) -> Result<u64, Refused> {
    let mut tally = Tally::new(from.genesis);
    let (mut yes, mut no) = (Vec::new(), Vec::new());
    let agreed: BTreeSet<Digest> = from
        .release
        .targets()
        .into_iter()
        .map(|t| target_digest(&from.release.files_of(t)))
        .collect();
    let mut rebuilt = 0;
    for upgrade in from.log.upgrades() {
        let UpgradeOp::Vote(op) = upgrade.op else {
            continue;
        };
        if op.proposal != *proposal {
            continue;
        }
        match op.vote {
            Ballot::Yes => {
                tally.count((), &upgrade.author, upgrade.height);
                rebuilt += usize::from(op.rebuilt.is_some_and(|d| agreed.contains(&d)));
                yes.push(who(from, &upgrade.author));
            }
            Ballot::No => no.push(who(from, &upgrade.author)),
        }
    }
    let Some(height) = tally.reached(&()) else {
        let why = format!(
            "a power of {} of {} voted yes",
            tally.power(&()),
            tally.total
        );
        return Err(report.refuse("votes", why));
    };
    report.hold(
        "votes",
        format!(
            "yes by {} ({rebuilt} of them had built the same bytes; {} of {} power, over two thirds in block {height}); \
             no by {}",
            yes.join(", "),
            tally.power(&()),
            tally.total,
            if no.is_empty() { "nobody".into() } else { no.join(", ") },
        ),
    );
    Ok(height)
}

fn readiness(
    report: &mut Report,
    from: &Sources<'_>,
    proposal: &Digest,
    accepted: u64,
) -> Result<u64, Refused> {
    let name = "readiness";
    let mut tally = Tally::new(from.genesis);
    let mut ready: Vec<(u64, PublicKey, Ready)> = Vec::new();
    for upgrade in from.log.upgrades() {
        if let UpgradeOp::Ready(op) = upgrade.op
            && op.proposal == *proposal
        {
            if let Some(root) = op.root {
                tally.count((op.height, root), &upgrade.author, upgrade.height);
            }
            ready.push((upgrade.height, upgrade.author, op));
        }
    }
    // Another activation in between starts the rehearsal anew, so the last one counts.
    let Some(((height, root), reached)) = tally.last_reached() else {
        let why = "no root of a rehearsal was signed by more than two thirds of the power";
        return Err(report.refuse(name, why));
    };
    if height < accepted {
        let why = format!("the rehearsal began at {height}, before the vote of block {accepted}");
        return Err(report.refuse(name, why));
    }
    report.hold(
        name,
        format!(
            "{} of {} power rehearsed from height {height} to the same state root {root}, over two thirds in block {reached}",
            tally.power(&(height, root)),
            tally.total
        ),
    );
    Ok(reached)
}

/// Gives the height at which the release went live: for the node, at which its rollout began.
fn activation(
    report: &mut Report,
    from: &Sources<'_>,
    policy: &SlotPolicy,
    proposal: &Digest,
    ready: u64,
) -> Result<u64, Refused> {
    let name = "activation";
    let event = from
        .log
        .events
        .iter()
        .find(|(_, e)| e.event == "activated" && e.id == *proposal);
    let found =
        event.and_then(|(height, e)| Some((*height, e.body.get("activated_at")?.as_u64()?)));
    let Some((live, activated)) = found else {
        let why = format!("the ledger noted no activation of proposal {proposal}");
        return Err(report.refuse(name, why));
    };
    if live != from.history.height {
        let why = format!(
            "noted in block {live}, the slot's history says {}",
            from.history.height
        );
        return Err(report.refuse(name, why));
    }
    let earliest = ready + policy.activation_blocks.max(1);
    // A dapp switches at that very height; a node's rollout may have to wait for another one.
    let in_time = match from.release.slot.dapp_name() {
        Some(_) => activated == earliest && live == activated,
        None => activated >= earliest && live >= activated,
    };
    if !in_time {
        let why = format!("live at {activated}, though readiness asks for height {earliest}");
        return Err(report.refuse(name, why));
    }
    report.hold(
        name,
        format!(
            "live at height {activated}, {} blocks after readiness",
            activated - ready
        ),
    );
    if from.release.slot.dapp_name().is_none() {
        rollout(report, from, proposal, live);
    }
    Ok(activated)
}

/// Who reported what while the node's release was rolled out.
fn rollout(report: &mut Report, from: &Sources<'_>, proposal: &Digest, completed: u64) {
    let said: Vec<String> = from
        .log
        .upgrades()
        .filter_map(|u| match u.op {
            UpgradeOp::Report(op) if op.proposal == *proposal => Some(format!(
                "{} {:?} in block {}",
                who(from, &u.author),
                op.result,
                u.height
            )),
            _ => None,
        })
        .collect();
    report.hold(
        "rollout",
        format!("completed at height {completed}: {}", said.join(", ")),
    );
}

/// Counts power, each validator once.
struct Tally<K> {
    powers: BTreeMap<PublicKey, u64>,
    total: u64,
    seen: BTreeMap<K, BTreeSet<PublicKey>>,
    reached: Vec<(K, u64)>,
}

impl<K: Ord + Clone> Tally<K> {
    fn new(genesis: &Genesis) -> Self {
        let powers: BTreeMap<_, _> = genesis
            .validators
            .iter()
            .map(|v| (v.keys.account, v.power))
            .collect();
        Self {
            total: powers.values().sum(),
            powers,
            seen: BTreeMap::new(),
            reached: Vec::new(),
        }
    }

    fn count(&mut self, key: K, author: &PublicKey, height: u64) {
        if !self.powers.contains_key(author) {
            return;
        }
        self.seen.entry(key.clone()).or_default().insert(*author);
        let over = u128::from(self.power(&key)) * 3 > u128::from(self.total) * 2;
        if over && self.reached(&key).is_none() {
            self.reached.push((key, height));
        }
    }

    fn power(&self, key: &K) -> u64 {
        let voters = self.seen.get(key).into_iter().flatten();
        voters.map(|v| self.powers[v]).sum()
    }

    fn reached(&self, key: &K) -> Option<u64> {
        self.reached
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, height)| *height)
    }

    fn last_reached(&self) -> Option<(K, u64)> {
        self.reached.last().cloned()
    }
}

/// A name for an account, for people.
fn who(from: &Sources<'_>, account: &PublicKey) -> String {
    let validator = from
        .genesis
        .validators
        .iter()
        .find(|v| v.keys.account == *account)
        .map(|v| v.name.clone());
    let operator = || {
        let found = from
            .genesis
            .operators
            .iter()
            .find(|o| o.account == *account);
        found.map(|o| o.name.clone())
    };
    validator
        .or_else(operator)
        .unwrap_or_else(|| format!("account {}", account.short()))
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
