//! Whether the ledger itself has something to do, so that a block is made without entries.

use crate::build::{self, Round};
use crate::govern::{self, Motion, MotionPhase};
use crate::keys;
use crate::ops::Health;
use crate::record::{self, Head};
use crate::upgrade::{self, HEALTH_BLOCKS, Phase, Proposal};
use crate::view::{StateError, StateView};

/// During a wave a block is made every so many milliseconds of block time, at the latest: a node that has just swapped
/// shows by following them that it lives, also on an idle chain.
pub const WAVE_PULSE_MS: u64 = 1000;

/// Whether a block at this height and time would make a transition, or brings one nearer that is waited for.
///
/// What waits for time alone is not due: whoever asks has to ask again when time has passed.
pub fn due(view: &dyn StateView, height: u64, time_ms: u64) -> Result<bool, StateError> {
    for id in build::open_ids(view)? {
        let round: Round = record::expect(view, &keys::round(&id))?;
        // The time is over; where blocks are missing still, they are what is waited for.
        if time_ms >= round.deadline.time_ms {
            return Ok(true);
        }
    }
    for id in govern::open_ids(view)? {
        let motion: Motion = record::expect(view, &keys::motion(&id))?;
        // A motion that has passed waits for blocks alone.
        if motion.phase == MotionPhase::Passed || time_ms >= motion.deadline.time_ms {
            return Ok(true);
        }
    }
    // Whoever has the next slice of a fork brings it, once the others make blocks too.
    if crate::forks::waited_for(view, height)? {
        return Ok(true);
    }
    let rolling = crate::query::rollout(view)?.is_some_and(|p| p.phase == Phase::Rolling);
    let head: Head = record::expect(view, keys::HEAD)?;
    let pulse = time_ms >= head.time_ms.saturating_add(WAVE_PULSE_MS);
    for id in upgrade::open_ids(view)? {
        let proposal: Proposal = record::expect(view, &keys::proposal(&id))?;
        if proposal.phase == Phase::Rolling && pulse {
            return Ok(true);
        }
        if waits_for_block(&proposal, height, time_ms, rolling) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn waits_for_block(proposal: &Proposal, height: u64, time_ms: u64, rolling: bool) -> bool {
    let over = proposal.deadline.is_some_and(|d| time_ms >= d.time_ms);
    match proposal.phase {
        Phase::Voting => over,
        // The blocks that are to be replayed; an idle chain has to make them.
        Phase::Rehearsing => over || proposal.rehearsal.is_some_and(|r| height <= r.last()),
        // A node's activation waits while another rollout goes on.
        Phase::Scheduled => {
            proposal.slot.dapp_name().is_some() || !rolling || height <= activation(proposal)
        }
        Phase::Rolling => rollout_waits(proposal, height, time_ms),
        _ => false,
    }
}

fn activation(proposal: &Proposal) -> u64 {
    proposal.activation_height.unwrap_or(0)
}

fn rollout_waits(proposal: &Proposal, height: u64, time_ms: u64) -> bool {
    let Some(rollout) = &proposal.rollout else {
        return false;
    };
    if let Some(until) = rollout.paused_until {
        return time_ms >= until.time_ms;
    }
    if time_ms >= rollout.deadline.time_ms {
        return true;
    }
    let wave = rollout.waves.get(rollout.index).into_iter().flatten();
    let mut reports = wave.map(|name| rollout.reports.get(name));
    // While somebody has not reported, no block helps. Once all have, blocks show their health; but only so many: the
    // reporter may be gone, and an idle chain must not wear out its disks for it.
    let newest = reports.try_fold(0, |newest, report| {
        report.map(|r| {
            newest.max(
                r.height
                    + match r.result {
                        Health::Healthy => proposal.policy.probation_blocks,
                        Health::Reverted => 0,
                    },
            )
        })
    });
    newest.is_some_and(|h| height <= h + HEALTH_BLOCKS)
}
