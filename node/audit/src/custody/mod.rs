//! The chain of custody of one release: from the source commit to the height at which it went live.
//!
//! Every step is derived again from signed entries and what certified receipts say of them, not from what a node's
//! state says. Who counts, and by which policy, was fixed when the round opened and when the proposal was made: that is
//! read from the state that the audit has computed again, since governance may have changed it since.

mod build;
mod decision;

use std::collections::BTreeMap;

use instar_attest::release::Release;
use instar_attest::{ChainId, PublicKey};
use instar_chain::StateView;
use instar_chain::build::Round;
use instar_chain::query;
use instar_chain::record::{HistoryEntry, KeyRecord};

use crate::log::Log;
use crate::report::{Refused, Report};

/// What custody is derived from.
pub struct Sources<'a> {
    /// The chain.
    pub chain: ChainId,
    /// The state of the native rules, computed again.
    pub state: &'a dyn StateView,
    /// What was said about builds and upgrades.
    pub log: &'a Log,
    /// The release's own description.
    pub release: &'a Release,
    /// Its bytes.
    pub release_bytes: &'a [u8],
    /// Where the slot's history has the release.
    pub history: &'a HistoryEntry,
}

/// A release on its way: what it is derived from, and who counted.
struct Case<'a> {
    from: &'a Sources<'a>,
    /// The round that it was built in, with its builders and policy as they were when it opened.
    round: Round,
    /// Every key that the chain knows or knew.
    keys: BTreeMap<PublicKey, KeyRecord>,
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
    let name = "build-open";
    let round = from
        .history
        .round
        .ok_or_else(|| report.refuse(name, "the slot's history names no build round"))?;
    let round = report
        .need(name, query::round(from.state, &round))?
        .ok_or_else(|| report.refuse(name, format!("the ledger knows no round {round}")))?;
    let case = &Case {
        from,
        round,
        keys: report.need("keys", query::keys(from.state))?,
    };
    let open = build::open(report, case)?;
    let commits = build::commitments(report, case)?;
    let counted = build::reveals(report, case, &open, &commits)?;
    build::agreement(report, case, &counted)?;
    build::assembly(report, case, &open, &counted)?;
    let proposal = decision::proposal(report, case)?;
    let accepted = decision::votes(report, case, &proposal)?;
    let ready = decision::readiness(report, case, &proposal, accepted)?;
    let activated_at = decision::activation(report, case, &proposal, ready)?;
    let bundles = counted
        .into_iter()
        .map(|c| (c.builder.key, c.reveal.bundle.into_bytes()))
        .collect();
    Ok(Custody {
        activated_at,
        bundles,
    })
}

impl Case<'_> {
    /// A name for an account, for people.
    fn who(&self, account: &PublicKey) -> String {
        match self.keys.get(account) {
            Some(known) => known.validator.as_ref().unwrap_or(&known.operator).clone(),
            None => format!("account {}", account.short()),
        }
    }
}
