//! Timers that were asked for and not taken back.

use malachite_types::Timeout;

use super::Timer;

/// At most one of each kind and round, as in the engine.
#[derive(Debug, Default)]
pub(super) struct Timers {
    running: Vec<(Timeout, Timer)>,
    started: u64,
}

impl Timers {
    /// None is running; numbers go on after `started`, so that a timer of an earlier session is none of this one.
    pub fn after(started: u64) -> Self {
        Self {
            running: Vec::new(),
            started,
        }
    }

    /// How many were started.
    pub fn started(&self) -> u64 {
        self.started
    }

    pub fn start(&mut self, timeout: Timeout) -> Timer {
        self.cancel(&timeout);
        self.started += 1;
        let timer = Timer(self.started);
        self.running.push((timeout, timer));
        timer
    }

    pub fn cancel(&mut self, timeout: &Timeout) {
        self.running.retain(|(t, _)| t != timeout);
    }

    pub fn cancel_all(&mut self) {
        self.running.clear();
    }

    /// What a timer was for, if it still counts.
    pub fn take(&mut self, timer: Timer) -> Option<Timeout> {
        let at = self.running.iter().position(|(_, t)| *t == timer)?;
        Some(self.running.remove(at).0)
    }
}
