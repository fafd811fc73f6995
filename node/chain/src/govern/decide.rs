//! What votes come to, and what happens at a motion's height.

use serde_json::json;

use super::motion::{Motion, MotionPhase};
use super::registry::Registry;
use super::save;
use crate::machine::{Machine, OpError, Refused};
use crate::ops::Ballot;
use crate::view::StateError;

/// Counts the votes. The denominator is the power of all who were asked, whoever is silent.
pub(super) fn tally(m: &mut Machine<'_>, motion: &mut Motion) -> Result<(), StateError> {
    let (yes, no) = (motion.power_of(Ballot::Yes), motion.power_of(Ballot::No));
    let total = motion.total_power();
    if u128::from(yes) * 3 > u128::from(total) * 2 {
        let effective_at = m.height + motion.delay;
        motion.phase = MotionPhase::Passed;
        motion.passed_at = Some(m.height);
        motion.effective_at = Some(effective_at);
        let body = json!({
            "effective_at": effective_at, "kind": motion.change.kind(), "no": no, "of": total, "yes": yes,
        });
        m.event("motion-passed", motion.id, body);
    } else if u128::from(no) * 3 >= u128::from(total) {
        let detail = format!("a power of {no} of {total} voted no");
        refuse(m, motion, "voted-down", detail);
    }
    save(m, motion)
}

/// At the start of a block.
pub(super) fn at_start(m: &mut Machine<'_>, motion: &mut Motion) -> Result<(), StateError> {
    match motion.phase {
        MotionPhase::Voting if motion.deadline.has_passed(m.height, m.time_ms) => {
            let (yes, total) = (motion.power_of(Ballot::Yes), motion.total_power());
            let detail =
                format!("a power of {yes} of {total} had voted yes when the time was over");
            refuse(m, motion, "vote-deadline", detail);
            save(m, motion)
        }
        MotionPhase::Passed if motion.effective_at.is_none_or(|h| m.height >= h) => {
            take_effect(m, motion)
        }
        _ => Ok(()),
    }
}

fn refuse(m: &mut Machine<'_>, motion: &mut Motion, rule: &str, detail: String) {
    let body = json!({"detail": detail, "kind": motion.change.kind(), "rule": rule});
    motion.phase = MotionPhase::Refused;
    motion.rule = Some(rule.to_owned());
    motion.detail = Some(detail);
    m.event("motion-refused", motion.id, body);
}

fn take_effect(m: &mut Machine<'_>, motion: &mut Motion) -> Result<(), StateError> {
    let mut registry = Registry::over(m);
    let made = match registry.change(&motion.change, &motion.id) {
        Ok(()) => Ok(registry.into_writes()?),
        Err(OpError::Refused(refused)) => Err(refused),
        Err(OpError::State(error)) => return Err(error),
    };
    match made {
        Ok(writes) => {
            m.state.extend(writes);
            motion.phase = MotionPhase::Done;
            m.event(
                "motion-effective",
                motion.id,
                json!({"change": motion.change}),
            );
        }
        // Others took effect since it was made, so that it no longer can.
        Err(Refused { rule, detail }) => {
            let body = json!({"detail": detail, "kind": motion.change.kind(), "rule": rule});
            motion.phase = MotionPhase::Void;
            motion.rule = Some(rule);
            motion.detail = Some(detail);
            m.event("motion-void", motion.id, body);
        }
    }
    save(m, motion)
}
