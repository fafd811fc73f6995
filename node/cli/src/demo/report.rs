//! What the demo found out, in the shape that `--json` prints as its last line.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use instar_node::api::types::BlockAnswer;
use serde::Serialize;

use super::traffic::{Seen, quantile};
use crate::client::Client;

/// Blocks before and after an activation that are looked at for rounds and missing signatures.
const BLOCKS_AROUND: u64 = 5;
/// Time before and after an activation in which the longest gap between finals is looked for.
const TIME_AROUND: Duration = Duration::from_secs(3);

/// The transfers, as the client saw them.
#[derive(Debug, Default, Serialize)]
pub struct Transfers {
    pub sent: u64,
    #[serde(rename = "final")]
    pub applied: u64,
    pub rejected: u64,
    pub rejected_by_rule: BTreeMap<String, u64>,
    pub final_ms_p50: f64,
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

#[derive(Debug, Default, Serialize)]
pub struct Votes {
    pub yes: usize,
    pub no: usize,
}

/// One upgrade that went live.
#[derive(Debug, Default, Serialize)]
pub struct Upgrade {
    pub slot: String,
    pub from: String,
    pub to: String,
    pub builders_matched: usize,
    pub hermetic: bool,
    pub votes: Votes,
    pub activated_at: u64,
    pub completed_at: u64,
    pub rounds_over_0: u64,
    pub absent_signatures: u64,
    pub gap_ms: f64,
    pub gap_ms_before_p99: f64,
    pub seconds_from_commit: f64,
}

/// One release that was refused.
#[derive(Debug, Serialize)]
pub struct Refused {
    pub release: String,
    pub rule: String,
    pub entry: String,
    pub detail: String,
}

#[derive(Debug, Default, Serialize)]
pub struct Killed {
    pub validator: String,
    pub recovered: bool,
    pub seconds: f64,
}

#[derive(Debug, Default, Serialize)]
pub struct Audited {
    pub verified: bool,
    pub fsck: bool,
    pub lane_commits_verified: u64,
    pub steps: u64,
}

/// Everything.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub validators: usize,
    pub height: u64,
    pub seconds: f64,
    pub transfers: Transfers,
    pub upgrades: Vec<Upgrade>,
    pub refused: Vec<Refused>,
    pub killed: Killed,
    pub audit: Audited,
    pub sandbox: String,
    pub left_out: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
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
