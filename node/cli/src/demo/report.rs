//! What the demo found out, in the shape that `--json` prints as its last line.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use instar_node::api::types::BlockAnswer;
use serde::Serialize;
use serde_json::Value;

use super::traffic::{Seen, quantile};
use crate::client::Client;

/// Blocks before and after an activation that are looked at for rounds and missing signatures.
const BLOCKS_AROUND: u64 = 5;
/// Time before and after an activation in which the longest gap between finals is looked for.
const TIME_AROUND: Duration = Duration::from_secs(3);

/// The transfers, as the client saw them.
#[derive(Debug, Default, Serialize)]
pub struct Transfers {
    /// Signed and handed to a node.
    pub sent: u64,
    /// Final, and applied by the dapp.
    #[serde(rename = "final")]
    pub applied: u64,
    /// Final, and refused by the chain or the dapp.
    pub rejected: u64,
    /// The refused ones by the rule that refused them.
    pub rejected_by_rule: BTreeMap<String, u64>,
    /// Median of the milliseconds from sending to having seen the final block.
    pub final_ms_p50: f64,
    /// Their 99th percentile.
    pub final_ms_p99: f64,
}

impl From<&Seen> for Transfers {
    fn from(seen: &Seen) -> Self {
        Self {
            sent: seen.sent,
            applied: seen.applied,
            rejected: seen.rejected.values().sum(),
            rejected_by_rule: seen.rejected.clone(),
            final_ms_p50: round1(quantile(&seen.final_ms, 0.5)),
            final_ms_p99: round1(quantile(&seen.final_ms, 0.99)),
        }
    }
}

fn round1(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// How validators voted.
#[derive(Debug, Default, Serialize)]
pub struct Votes {
    /// Validators that voted yes.
    pub yes: usize,
    /// Validators that voted no.
    pub no: usize,
}

/// One upgrade that went live.
#[derive(Debug, Default, Serialize)]
pub struct Upgrade {
    /// What was upgraded.
    pub slot: String,
    /// Root CID of the release before.
    pub from: String,
    /// Root CID of the release that went live.
    pub to: String,
    /// Builders that got these bytes.
    pub builders_matched: usize,
    /// Whether they built it in sealed containers, twice each.
    pub hermetic: bool,
    /// The votes.
    pub votes: Votes,
    /// The height at which it went live, or its rollout began.
    pub activated_at: u64,
    /// The height at which it was live everywhere.
    pub completed_at: u64,
    /// Blocks around the activation that needed more than one round.
    pub rounds_over_0: u64,
    /// Precommits that are missing from the certificates around the activation.
    pub absent_signatures: u64,
    /// The longest time between two finals that the client saw around the activation.
    pub gap_ms: f64,
    /// The 99th percentile of those times before it.
    pub gap_ms_before_p99: f64,
    /// From the commit of the source to the activation everywhere.
    pub seconds_from_commit: f64,
}

/// One release that was refused.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Root CID of the release.
    pub release: String,
    /// The rule that refused it.
    pub rule: String,
    /// The entry, or the event, that says so on the ledger.
    pub entry: String,
    /// The same for people.
    pub detail: String,
}

/// A validator that was killed with SIGKILL.
#[derive(Debug, Default, Serialize)]
pub struct Killed {
    /// Its name.
    pub validator: String,
    /// Whether it signs blocks again.
    pub recovered: bool,
    /// From the kill until it signs again.
    pub seconds: f64,
}

/// What an auditor found.
#[derive(Debug, Default, Serialize)]
pub struct Audited {
    /// Whether every step of custody holds.
    pub verified: bool,
    /// Whether `git fsck --strict` found nothing.
    pub fsck: bool,
    /// Lane commits that pass `git verify-commit`.
    pub lane_commits_verified: u64,
    /// Steps from the source commit to the activation height.
    pub steps: u64,
}

/// Everything.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Validators of the chain.
    pub validators: usize,
    /// The last height.
    pub height: u64,
    /// How long all of it took.
    pub seconds: f64,
    /// The client's transfers.
    pub transfers: Transfers,
    /// What went live.
    pub upgrades: Vec<Upgrade>,
    /// What was refused.
    pub refused: Vec<Refused>,
    /// The validator that was killed.
    pub killed: Killed,
    /// What the auditor found.
    pub audit: Audited,
    /// How containers and builds were sealed.
    pub sandbox: String,
    /// What was not done, and why.
    pub left_out: Vec<String>,
    /// With `--keep`: what to clone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_url: Option<String>,
    /// With `--keep`: the folder of the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
}

/// Reads an upgrade's facts from what the ledger says of its proposal and round.
pub fn upgrade_facts(
    proposal: &Value,
    round: &Value,
    from: &str,
    activated: u64,
    completed: u64,
    hermetic: bool,
    took: Duration,
) -> Upgrade {
    let votes = |choice: &str| {
        proposal["votes"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, v)| v["vote"] == choice)
            .count()
    };
    Upgrade {
        slot: proposal["slot"].as_str().unwrap_or_default().to_owned(),
        from: from.to_owned(),
        to: proposal["release"].as_str().unwrap_or_default().to_owned(),
        builders_matched: round["matched"].as_array().map_or(0, Vec::len),
        hermetic,
        votes: Votes {
            yes: votes("yes"),
            no: votes("no"),
        },
        activated_at: activated,
        completed_at: completed,
        seconds_from_commit: (took.as_secs_f64() * 10.0).round() / 10.0,
        ..Upgrade::default()
    }
}

/// Fills in what the client and the certificates say about the time around an activation.
pub fn measure(
    upgrade: &mut Upgrade,
    seen: &Seen,
    client: &Client,
    validators: usize,
) -> Result<()> {
    let last = upgrade.completed_at.max(upgrade.activated_at) + BLOCKS_AROUND;
    for height in upgrade.activated_at.saturating_sub(BLOCKS_AROUND).max(1)..=last {
        let Some(block) = client.find::<BlockAnswer>(&format!("/v1/blocks/{height}"))? else {
            break;
        };
        upgrade.rounds_over_0 += u64::from(block.certificate.round > 0);
        upgrade.absent_signatures +=
            validators.saturating_sub(block.certificate.signatures.len()) as u64;
    }
    let at = |height: u64| {
        seen.finals
            .iter()
            .find(|(_, h)| *h >= height)
            .map(|(t, _)| *t)
    };
    let (Some(start), Some(end)) = (
        at(upgrade.activated_at),
        at(upgrade.completed_at.max(upgrade.activated_at)),
    ) else {
        return Ok(());
    };
    let mut around = 0.0f64;
    let mut before = Vec::new();
    for pair in seen.finals.windows(2) {
        let gap = pair[1].0.duration_since(pair[0].0).as_secs_f64() * 1e3;
        if pair[1].0 + TIME_AROUND >= start && pair[0].0 <= end + TIME_AROUND {
            around = around.max(gap);
        }
        if pair[1].0 < start {
            before.push(gap);
        }
    }
    upgrade.gap_ms = round1(around);
    upgrade.gap_ms_before_p99 = round1(quantile(&before, 0.99));
    Ok(())
}
