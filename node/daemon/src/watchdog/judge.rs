//! Whether a node is stuck: pure, from what was seen of it, moment by moment.

use std::fmt;

/// What is to be seen of a node at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// When, in milliseconds of a clock that only goes on.
    pub at_ms: u64,
    /// Turns of the loops' runtime so far.
    pub runtime: u64,
    /// Whether somebody holds the core.
    pub core_held: bool,
    /// How often the core was taken so far.
    pub core: u64,
    /// Whether a consensus engine runs.
    pub engine_runs: bool,
    /// The engine's answers so far.
    pub engine: u64,
    /// The newest final height.
    pub height: u64,
    /// Whether there is something for a block to do.
    pub work: bool,
    /// Whether validators with more than two thirds of the power are connected.
    pub quorum: bool,
}

/// What stands still. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// The loops don't turn.
    Loops {
        /// For how long.
        for_ms: u64,
    },
    /// One thread has held the node's ledger and state all the time: a merge test that doesn't come back, a disk that
    /// doesn't answer.
    Core {
        /// For how long.
        for_ms: u64,
    },
    /// The consensus engine doesn't answer.
    Engine {
        /// For how long.
        for_ms: u64,
    },
    /// No block becomes final, although there is work and a quorum is connected.
    Head {
        /// The height that it stays at.
        height: u64,
        /// For how long.
        for_ms: u64,
    },
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loops { for_ms } => write!(f, "its loops have not turned for {for_ms} ms"),
            Self::Core { for_ms } => write!(
                f,
                "one thread has held its ledger and state for {for_ms} ms: a merge test or a disk does not come back"
            ),
            Self::Engine { for_ms } => {
                write!(f, "the consensus engine has not answered for {for_ms} ms")
            }
            Self::Head { height, for_ms } => write!(
                f,
                "the head stays at height {height} for {for_ms} ms, with work to do and a quorum connected"
            ),
        }
    }
}

/// A value, and since when it has been the same.
#[derive(Debug, Clone, Copy)]
struct Since<T> {
    value: T,
    at_ms: u64,
}

impl<T: PartialEq> Since<T> {
    /// For how long `value` has been seen; 0 where it is new.
    fn same(&mut self, value: T, at_ms: u64) -> u64 {
        if self.value != value {
            *self = Self { value, at_ms };
        }
        at_ms.saturating_sub(self.at_ms)
    }
}

/// How many times longer than anything else the head may stand still: rounds grow, and peers may be what is slow.
const HEAD_FACTOR: u64 = 2;

/// Remembers since when what has been the same.
#[derive(Debug)]
pub struct Judge {
    limit_ms: u64,
    last_ms: Option<u64>,
    loops: Since<u64>,
    core: Since<(bool, u64)>,
    engine: Since<(bool, u64)>,
    head: Since<(bool, u64)>,
}

impl Judge {
    /// Nothing may stand still for longer than `limit_ms`, and the head not for longer than twice that.
    pub fn new(limit_ms: u64) -> Self {
        fn since<T>(value: T) -> Since<T> {
            Since { value, at_ms: 0 }
        }
        Self {
            limit_ms,
            last_ms: None,
            loops: since(0),
            core: since((false, 0)),
            engine: since((false, 0)),
            head: since((false, 0)),
        }
    }

    /// Looks once more. What is named first explains what comes after it.
    pub fn look(&mut self, seen: &Seen) -> Option<Stuck> {
        // A machine that slept, or a process that was stopped, did not get stuck in that time.
        let gap = seen.at_ms - self.last_ms.replace(seen.at_ms).unwrap_or(seen.at_ms);
        if gap > self.limit_ms / 2 {
            for at in [
                &mut self.loops.at_ms,
                &mut self.core.at_ms,
                &mut self.engine.at_ms,
                &mut self.head.at_ms,
            ] {
                *at += gap;
            }
        }
        let limit = self.limit_ms;
        let for_ms = self.core.same((seen.core_held, seen.core), seen.at_ms);
        let core = seen.core_held && for_ms > limit;
        let core = core.then_some(Stuck::Core { for_ms });
        let for_ms = self.loops.same(seen.runtime, seen.at_ms);
        let loops = (for_ms > limit).then_some(Stuck::Loops { for_ms });
        let for_ms = self
            .engine
            .same((seen.engine_runs, seen.engine), seen.at_ms);
        let engine = seen.engine_runs && for_ms > limit;
        let engine = engine.then_some(Stuck::Engine { for_ms });
        let waits = seen.engine_runs && seen.work && seen.quorum;
        let for_ms = self.head.same((waits, seen.height), seen.at_ms);
        let head = waits && for_ms > HEAD_FACTOR * limit;
        let head = head.then_some(Stuck::Head {
            height: seen.height,
            for_ms,
        });
        core.or(loops).or(engine).or(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 10_000;

    /// Looks once a second for `seconds`, at what `at` makes of the second.
    fn judged(seconds: u64, at: impl Fn(u64) -> Seen) -> Option<(u64, Stuck)> {
        let mut judge = Judge::new(LIMIT);
        (0..seconds).find_map(|s| {
            let seen = Seen {
                at_ms: s * 1000,
                ..at(s)
            };
            judge.look(&seen).map(|stuck| (s, stuck))
        })
    }

    /// A node that does everything it should.
    fn well(s: u64) -> Seen {
        Seen {
            runtime: 2 * s,
            core_held: s.is_multiple_of(3),
            core: 10 * s,
            engine_runs: true,
            engine: s / 2,
            height: s / 4,
            work: true,
            quorum: true,
            ..Seen::default()
        }
    }

    #[test]
    fn a_node_that_works_or_has_nothing_to_do_goes_on() {
        assert_eq!(judged(1_000, well), None);
        let idle = |s| Seen {
            height: 7,
            work: false,
            ..well(s)
        };
        assert_eq!(judged(1_000, idle), None);
        let follower = |s| Seen {
            engine_runs: false,
            engine: 0,
            height: 7,
            ..well(s)
        };
        assert_eq!(judged(1_000, follower), None);
    }

    #[test]
    fn a_node_that_lacks_a_quorum_goes_on() {
        let alone = |s| Seen {
            height: 7,
            quorum: false,
            ..well(s)
        };
        assert_eq!(judged(1_000, alone), None);
        // Peers come and go; the time begins anew with each quorum.
        let flapping = |s| Seen {
            height: 7,
            quorum: s % 15 != 0,
            ..well(s)
        };
        assert_eq!(judged(1_000, flapping), None);
    }

    #[test]
    fn a_head_that_stays_with_work_and_a_quorum_is_stuck() {
        let still = |s| Seen {
            height: 7,
            ..well(s)
        };
        let (s, stuck) = judged(100, still).unwrap();
        let for_ms = 21_000;
        assert_eq!((s, stuck), (21, Stuck::Head { height: 7, for_ms }));
    }

    #[test]
    fn an_engine_that_does_not_answer_is_stuck() {
        let dumb = |s| Seen {
            engine: 3,
            height: 7,
            ..well(s)
        };
        let (s, stuck) = judged(100, dumb).unwrap();
        assert_eq!((s, stuck), (11, Stuck::Engine { for_ms: 11_000 }));
    }

    #[test]
    fn one_holder_of_the_core_is_stuck_and_many_are_not() {
        let busy = |s| Seen {
            core_held: true,
            ..well(s)
        };
        assert_eq!(judged(1_000, busy), None);
        // The loops stand still too, because they wait for the core: the cause is named.
        let hung = |s| Seen {
            core_held: true,
            core: 5,
            runtime: 1,
            engine: 1,
            ..well(s)
        };
        assert_eq!(
            judged(100, hung),
            Some((11, Stuck::Core { for_ms: 11_000 }))
        );
    }

    #[test]
    fn loops_that_do_not_turn_are_stuck() {
        let still = |s| Seen {
            runtime: 9,
            ..well(s)
        };
        assert_eq!(
            judged(100, still),
            Some((11, Stuck::Loops { for_ms: 11_000 }))
        );
    }

    #[test]
    fn a_process_that_was_stopped_for_an_hour_was_not_stuck() {
        let mut judge = Judge::new(LIMIT);
        for s in (0..9).chain(3_600..3_602) {
            let seen = Seen {
                at_ms: s * 1000,
                runtime: 1,
                engine: 1,
                height: 7,
                core_held: true,
                core: 1,
                ..well(s)
            };
            assert_eq!(judge.look(&seen), None, "second {s}");
        }
    }
}
