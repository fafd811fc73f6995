//! The decision: the proposal, the votes, the rehearsals, and the height at which the release went live.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::release::target_digest;
use instar_attest::{Digest, PublicKey};
use instar_chain::ops::{Ballot, Ready, UpgradeOp};
use instar_chain::query;
use instar_chain::upgrade::Proposal;

use super::Case;
use crate::report::{Refused, Report};

/// Finds the entry that proposed the release, and who decided on it.
pub(super) fn proposal(report: &mut Report, case: &Case<'_>) -> Result<Proposal, Refused> {
    let name = "proposal";
    let Case { from, round, .. } = case;
    let id: Digest = report.need(name, case.from.history.by.parse())?;
    let found = case.from.log.upgrades().find_map(|u| match u.op {
        UpgradeOp::Propose(op) if u.id == id => Some((u.height, u.author, op)),
        _ => None,
    });
    let Some((height, author, op)) = found else {
        return Err(report.refuse(name, format!("no applied entry {id} proposes a release")));
    };
    if op.release.as_str() != case.from.history.release || op.round != round.id {
        let why = format!("entry {id} proposes {} of round {}", op.release, op.round);
        return Err(report.refuse(name, why));
    }
    report.hold(
        name,
        format!("entry {id} by {} in block {height}", case.who(&author)),
    );
    report
        .need(name, query::proposal(from.state, &id))?
        .ok_or_else(|| report.refuse(name, format!("the ledger knows no proposal {id}")))
}

/// Gives the height at which more than two thirds of the power had voted yes.
pub(super) fn votes(
    report: &mut Report,
    case: &Case<'_>,
    proposal: &Proposal,
) -> Result<u64, Refused> {
    let mut tally = Tally::new(proposal);
    let (mut yes, mut no) = (Vec::new(), Vec::new());
    let agreed: BTreeSet<Digest> = case
        .from
        .release
        .targets()
        .into_iter()
        .map(|t| target_digest(&case.from.release.files_of(t)))
        .collect();
    let mut rebuilt = 0;
    for upgrade in case.from.log.upgrades() {
        let UpgradeOp::Vote(op) = upgrade.op else {
            continue;
        };
        if op.proposal != proposal.id {
            continue;
        }
        match op.vote {
            Ballot::Yes => {
                tally.count((), &upgrade.author, upgrade.height);
                rebuilt += usize::from(op.rebuilt.is_some_and(|d| agreed.contains(&d)));
                yes.push(case.who(&upgrade.author));
            }
            Ballot::No => no.push(case.who(&upgrade.author)),
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

pub(super) fn readiness(
    report: &mut Report,
    case: &Case<'_>,
    proposal: &Proposal,
    accepted: u64,
) -> Result<u64, Refused> {
    let name = "readiness";
    let mut tally = Tally::new(proposal);
    let mut ready: Vec<(u64, PublicKey, Ready)> = Vec::new();
    for upgrade in case.from.log.upgrades() {
        if let UpgradeOp::Ready(op) = upgrade.op
            && op.proposal == proposal.id
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
pub(super) fn activation(
    report: &mut Report,
    case: &Case<'_>,
    proposal: &Proposal,
    ready: u64,
) -> Result<u64, Refused> {
    let name = "activation";
    let event = case
        .from
        .log
        .events
        .iter()
        .find(|(_, e)| e.event == "activated" && e.id == proposal.id);
    let found =
        event.and_then(|(height, e)| Some((*height, e.body.get("activated_at")?.as_u64()?)));
    let Some((live, activated)) = found else {
        let why = format!("the ledger noted no activation of proposal {}", proposal.id);
        return Err(report.refuse(name, why));
    };
    if live != case.from.history.height {
        let why = format!(
            "noted in block {live}, the slot's history says {}",
            case.from.history.height
        );
        return Err(report.refuse(name, why));
    }
    let earliest = ready + proposal.policy.activation_blocks.max(1);
    // A dapp switches at that very height; a node's rollout may have to wait for another one.
    let in_time = match case.from.release.slot.dapp_name() {
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
    if case.from.release.slot.dapp_name().is_none() {
        rollout(report, case, proposal, live);
    }
    Ok(activated)
}

/// Who reported what while the node's release was rolled out.
fn rollout(report: &mut Report, case: &Case<'_>, proposal: &Proposal, completed: u64) {
    let said: Vec<String> = case
        .from
        .log
        .upgrades()
        .filter_map(|u| match u.op {
            UpgradeOp::Report(op) if op.proposal == proposal.id => Some(format!(
                "{} {:?} in block {}",
                case.who(&u.author),
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
    /// Over those who were validators when the proposal was made.
    fn new(proposal: &Proposal) -> Self {
        let members = proposal.validators.iter();
        let powers: BTreeMap<_, _> = members.map(|m| (m.account, m.power)).collect();
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
