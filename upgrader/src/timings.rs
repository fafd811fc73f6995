//! How long things may take.

/// The times and counts that the supervisor decides by. All times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timings {
    /// How long the program may take to stop after SIGTERM, before SIGKILL.
    pub grace_ms: u64,
    /// How long a new program has to become healthy, over all its starts.
    pub probation_ms: u64,
    /// How many heights it must have committed by then.
    pub probation_blocks: u64,
    /// How many peers it must have when it is judged. 0 for a chain of one.
    pub min_peers: u32,
    /// How often a new program may be started in its probation.
    pub max_starts: u32,
    /// The pause before the second restart in a row; the first comes at once, each later one doubles the pause.
    pub backoff_ms: u64,
    /// The longest pause between restarts.
    pub backoff_max_ms: u64,
    /// How long a program must run so that its next crash counts as the first again.
    pub stable_ms: u64,
    /// A program that reported its health before and then says nothing for so long hangs, and is restarted. 0: never.
    pub silence_ms: u64,
    /// The pause before something that failed on disk is tried again.
    pub retry_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            grace_ms: 10_000,
            probation_ms: 120_000,
            probation_blocks: 3,
            min_peers: 1,
            max_starts: 3,
            backoff_ms: 250,
            backoff_max_ms: 30_000,
            stable_ms: 60_000,
            silence_ms: 60_000,
            retry_ms: 1_000,
        }
    }
}

impl Timings {
    /// The pause before the next start, after so many crashes in a row.
    pub fn backoff(&self, crashes: u32) -> u64 {
        match crashes {
            0 | 1 => 0,
            n => {
                let doublings = (n - 2).min(20);
                self.backoff_ms
                    .saturating_mul(1 << doublings)
                    .min(self.backoff_max_ms)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_pauses_are_bounded() {
        let t = Timings::default();
        assert_eq!(
            [0, 1, 2, 3, 4].map(|n| t.backoff(n)),
            [0, 0, 250, 500, 1000]
        );
        assert_eq!(t.backoff(u32::MAX), t.backoff_max_ms);
    }
}
