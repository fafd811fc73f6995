//! The chain of custody of one release: from the source commit to the height at which it went live.
//!
//! Every step is derived again from signed entries and what certified receipts say of them, not from what a node's
//! state says.

mod build;
mod decision;

use std::collections::BTreeMap;

use instar_attest::release::Release;
use instar_attest::{ChainId, PublicKey};
use instar_chain::record::HistoryEntry;
use instar_ledger::Genesis;

use crate::log::Log;
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
    let open = build::open(report, from, &round)?;
    let commits = build::commitments(report, from, policy, &round)?;
    let counted = build::reveals(report, from, policy, &round, &open, &commits)?;
    build::agreement(report, from, policy, &round, &counted)?;
    build::assembly(report, from, &open, policy, &counted)?;
    let proposal = decision::proposal(report, from, &round)?;
    let accepted = decision::votes(report, from, &proposal)?;
    let ready = decision::readiness(report, from, &proposal, accepted)?;
    let activated_at = decision::activation(report, from, policy, &proposal, ready)?;
    let bundles = counted
        .into_iter()
        .map(|c| (c.builder.keys.builder, c.reveal.bundle.into_bytes()))
        .collect();
    Ok(Custody {
        activated_at,
        bundles,
    })
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
