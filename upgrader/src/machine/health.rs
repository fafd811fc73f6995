//! The life of the program: starts, crashes, and whether a new one is kept.

use super::{Child, Machine};
use crate::history::Event;
use crate::state::{Outcome, Phase, Release, shortened};
use crate::wire::Health;

impl Machine {
    pub(super) fn started(&mut self, pid: u32, now: u64) {
        let release = self.state.target().release.clone();
        if matches!(self.state.phase, Phase::Probation { .. }) {
            // The time runs over all starts: a program does not get more of it by crashing.
            let until = now.saturating_add(self.timings.probation_ms);
            self.probation_until.get_or_insert(until);
        }
        self.base = None;
        self.health = None;
        self.heard_at = None;
        self.event(Event::Started {
            release: release.clone(),
            pid,
        });
        self.child = Child::Running {
            release,
            pid,
            since: now,
        };
    }

    pub(super) fn exited(&mut self, status: &str, now: u64) {
        let child = std::mem::replace(&mut self.child, Child::None);
        self.heard_at = None;
        self.counted = false;
        let expected = matches!(child, Child::Stopping { hung: false, .. });
        self.event(Event::Exited {
            status: status.to_owned(),
            expected,
        });
        match child {
            Child::Running { since, .. } => self.crashed(since, now, status),
            Child::Stopping { hung: true, .. } => self.crashed(now, now, "it hung"),
            Child::Stopping { .. } | Child::None => self.start_at = now,
        }
    }

    pub(super) fn crashed(&mut self, since: u64, now: u64, why: &str) {
        if now.saturating_sub(since) >= self.timings.stable_ms {
            self.crashes = 0;
        }
        self.crashes = self.crashes.saturating_add(1);
        self.counted = false;
        self.start_at = now.saturating_add(self.timings.backoff(self.crashes));
        if let Phase::Probation { starts, .. } = self.state.phase
            && starts >= self.timings.max_starts
        {
            self.fail_probation(&format!(
                "started {starts} times without getting healthy; last: {why}"
            ));
        }
    }

    /// Looks at the time.
    pub(super) fn watch(&mut self, now: u64) {
        if let (Phase::Probation { starts, .. }, Child::None) = (&self.state.phase, &self.child) {
            // After a restart of the supervisor the starts that are on disk count.
            if !self.counted && *starts >= self.timings.max_starts && self.probation_until.is_none()
            {
                let why = format!("started {starts} times without getting healthy");
                self.fail_probation(&why);
            }
        }
        let late = self.probation_until.is_some_and(|t| now >= t);
        if !late || !matches!(self.state.phase, Phase::Probation { .. }) {
            return;
        }
        let within = self.timings.probation_ms;
        let why = match (self.health, self.base) {
            (Some(health), Some(base)) => format!(
                "within {within} ms it committed {} of {} blocks, with {} of {} peers",
                health.height - base,
                self.timings.probation_blocks,
                health.peers,
                self.timings.min_peers
            ),
            _ => format!("it reported no health within {within} ms"),
        };
        self.fail_probation(&why);
    }

    /// The program reports how it is.
    pub(super) fn healthy(&mut self, health: Health, now: u64) {
        self.heard_at = Some(now);
        let base = *self.base.get_or_insert(health.height);
        // A program that reports a lower height than before is not making progress; the highest one counts.
        let height = self.health.map_or(0, |h| h.height).max(health.height);
        self.health = Some(Health { height, ..health });
        let Phase::Probation { target, .. } = &self.state.phase else {
            return;
        };
        let enough = height - base >= self.timings.probation_blocks;
        if !enough || health.peers < self.timings.min_peers || !self.runs(&target.release) {
            return;
        }
        let target = target.clone();
        self.event(Event::Kept {
            release: target.release.clone(),
            height,
            peers: health.peers,
        });
        self.state.outcome = Some(Outcome {
            generation: self.state.generation,
            kept: true,
            reason: String::new(),
            release: target.release.clone(),
        });
        let before = std::mem::replace(&mut self.state.good, target);
        if let Some(oldest) = self.state.previous.replace(before) {
            self.removals.push_back(oldest.release);
        }
        self.state.phase = Phase::Steady;
        self.changed();
    }

    fn runs(&self, release: &str) -> bool {
        matches!(&self.child, Child::Running { release: running, .. } if running == release)
    }

    /// The new program failed: back to the good one, unless that is below the floor.
    fn fail_probation(&mut self, why: &str) {
        let Phase::Probation { target, .. } = &self.state.phase else {
            return;
        };
        let target = target.clone();
        if self.state.good.protocol < self.state.floor {
            // Below the floor nobody goes back. All that is left is to try on.
            self.event(Event::NoWayBack {
                release: target.release.clone(),
                floor: self.state.floor,
                why: shortened(why),
            });
            self.state.phase = Phase::Probation { target, starts: 0 };
            self.counted = false;
            self.probation_until = None;
            self.changed();
            return;
        }
        self.revert_from(target, why, true);
    }

    /// Writes down that the program goes back to the good one.
    pub(super) fn revert_from(&mut self, failed: Release, why: &str, quarantine: bool) {
        let reason = shortened(why);
        self.event(Event::Reverting {
            release: failed.release.clone(),
            to: self.state.good.release.clone(),
            why: reason.clone(),
        });
        if quarantine {
            self.state.quarantine(&failed, &reason);
        }
        self.state.outcome = Some(Outcome {
            generation: self.state.generation,
            kept: false,
            reason: reason.clone(),
            release: failed.release.clone(),
        });
        self.state.phase = Phase::Reverting { failed, reason };
        self.changed();
    }

    /// A new decision: it is written before anything is done about it.
    pub(super) fn changed(&mut self) {
        self.state.plan += 1;
        self.durable = false;
        self.persist_at = 0;
    }
}
