//! The deciding half: what happened goes in with the time, the next step comes out. Nothing here reads a clock, a file
//! or a process.
//!
//! It works by comparing what should be with what is: [`Machine::next`] names the one step that is missing most, the
//! caller carries it out and tells the outcome by [`Machine::input`], until nothing is missing. So it does not matter at
//! which step a supervisor was killed: the next one starts from what is on disk and comes to the same steps.
//!
//! Three rules hold everywhere:
//! - a changed state is on disk before anything is done because of it;
//! - a program is stopped before another one is started;
//! - the link is only moved while no program runs.

mod health;
mod requests;

use std::collections::VecDeque;

use crate::history::Event;
use crate::state::{Phase, Release, State};
use crate::timings::Timings;
use crate::wire::{Answer, Health, Refusal, Request, Status};

/// How many events may wait to be recorded.
const MAX_WAITING_EVENTS: usize = 256;

/// Tells an answer which request it belongs to.
pub type RequestId = u64;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time may have passed.
    Tick,
    /// The state was written, or why not.
    Persisted(Result<(), String>),
    /// The link was moved to this release, or why not.
    Linked(Result<String, String>),
    /// The program was started, or why not.
    Started(Result<u32, String>),
    /// The program ended.
    Exited {
        /// Its exit status, in words.
        status: String,
    },
    /// The staged bytes of a release were checked.
    Verified {
        /// Which.
        release: Release,
        /// Whether they are right.
        result: Result<(), String>,
    },
    /// Somebody asks for something.
    Request(RequestId, Request),
    /// The supervisor has to end.
    Stop,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the state, durably. Answered by [`Input::Persisted`].
    Persist(Box<State>),
    /// Check the staged bytes of a release. Answered by [`Input::Verified`], later.
    Verify(Release),
    /// Move the link, durably. Answered by [`Input::Linked`].
    Link(Release),
    /// Start the program. Answered by [`Input::Started`], and by [`Input::Exited`] one day.
    Start(Release),
    /// Ask the program to end.
    Terminate,
    /// End the program.
    Kill,
    /// Remove a release's folder.
    Remove(String),
    /// Append to the history.
    Record(Event),
    /// Answer a request.
    Reply(RequestId, Answer),
}

/// A step, and the decision that it belongs to. Whoever carries out steps refuses one of an older decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// [`State::plan`] when the step was decided.
    pub plan: u64,
    /// What to do.
    pub step: Step,
}

/// What is known of the program's process.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Child {
    None,
    Running {
        release: String,
        pid: u32,
        since: u64,
    },
    Stopping {
        kill_at: u64,
        killed: bool,
        /// It is stopped because it hung, which counts as a crash.
        hung: bool,
    },
}

/// A swap whose bytes are being checked.
#[derive(Debug, Clone)]
struct Pending {
    request: RequestId,
    generation: u64,
    target: Release,
}

/// The deciding half of the supervisor.
#[derive(Debug, Clone)]
pub struct Machine {
    state: State,
    timings: Timings,
    /// Whether `state` is on disk.
    durable: bool,
    /// The good release of the state that was written last, if that was steady.
    written_good: Option<String>,
    /// The state to go back to if a new intent can't be written.
    undo: Option<Box<State>>,
    /// Whether the last write failed; it is tried again at `persist_at`.
    disk_failing: bool,
    persist_at: u64,
    /// A link that could not be moved is tried again then.
    link_at: u64,
    /// The release that the link points to.
    linked: Option<String>,
    child: Child,
    /// Crashes in a row.
    crashes: u32,
    /// The program is not started before.
    start_at: u64,
    /// Whether the start that comes next in a probation is counted on disk.
    counted: bool,
    probation_until: Option<u64>,
    /// The height that this start of the program began with.
    base: Option<u64>,
    health: Option<Health>,
    heard_at: Option<u64>,
    pending: Option<Pending>,
    /// Whether the bytes of a swap that was begun were checked in this life of the supervisor.
    verified: bool,
    verifying: bool,
    stopping: bool,
    /// Answers that can be given at once.
    answers: VecDeque<(RequestId, Answer)>,
    /// Answers that wait until the state is on disk.
    replies: VecDeque<(RequestId, Answer)>,
    events: VecDeque<Event>,
    removals: VecDeque<String>,
}

impl Machine {
    /// Starts from what is on disk: the state, and the release that the link points to.
    pub fn new(state: State, linked: Option<String>, timings: Timings) -> Self {
        let mut events = VecDeque::new();
        if state.phase != Phase::Steady {
            events.push_back(Event::Resumed {
                phase: state.phase.name().to_owned(),
            });
        }
        let mut machine = Self {
            state,
            timings,
            durable: true,
            written_good: None,
            undo: None,
            disk_failing: false,
            persist_at: 0,
            link_at: 0,
            linked,
            child: Child::None,
            crashes: 0,
            start_at: 0,
            counted: false,
            probation_until: None,
            base: None,
            health: None,
            heard_at: None,
            pending: None,
            verified: false,
            verifying: false,
            stopping: false,
            answers: VecDeque::new(),
            replies: VecDeque::new(),
            events,
            removals: VecDeque::new(),
        };
        machine.written();
        machine
    }

    /// The state is on disk.
    fn written(&mut self) {
        self.durable = true;
        self.disk_failing = false;
        self.undo = None;
        let steady = self.state.phase == Phase::Steady;
        self.written_good = steady.then(|| self.state.good.release.clone());
    }

    /// What should be on disk.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether the supervisor was told to end and nothing is left to do.
    pub fn finished(&self) -> bool {
        let written = self.durable || self.disk_failing;
        let answered = self.answers.is_empty() && (self.replies.is_empty() || self.disk_failing);
        self.stopping && self.child == Child::None && written && answered && self.events.is_empty()
    }

    /// The next step, or none until something happens or [`Machine::deadline`] is reached.
    pub fn next(&mut self, now: u64) -> Option<Action> {
        self.watch(now);
        let step = self.next_step(now)?;
        Some(Action {
            plan: self.state.plan,
            step,
        })
    }

    fn next_step(&mut self, now: u64) -> Option<Step> {
        if let Some((request, answer)) = self.answers.pop_front() {
            return Some(Step::Reply(request, answer));
        }
        if !self.durable {
            if now >= self.persist_at {
                return Some(Step::Persist(Box::new(self.state.clone())));
            }
            // A full disk must not keep the good program from being restarted: that changes nothing on disk.
            let written = self.written_good.as_ref() == Some(&self.state.good.release);
            let harmless =
                written && self.state.phase == Phase::Steady && self.child == Child::None;
            return if harmless {
                self.start_step(now)
            } else {
                self.stop_step(now)
            };
        }
        if let Some((request, answer)) = self.replies.pop_front() {
            return Some(Step::Reply(request, answer));
        }
        if let Some(event) = self.events.pop_front() {
            return Some(Step::Record(event));
        }
        if let Some(release) = self.removals.pop_front() {
            if self.state.needs(&release) {
                return self.next_step(now);
            }
            return Some(Step::Remove(release));
        }
        if let (Some(pending), false) = (&self.pending, self.verifying) {
            let target = pending.target.clone();
            self.verifying = true;
            return Some(Step::Verify(target));
        }
        match self.child {
            Child::None => self.start_step(now),
            _ => self.stop_step(now),
        }
    }

    /// With no program running: what comes before the next start, and the start.
    fn start_step(&mut self, now: u64) -> Option<Step> {
        if self.stopping || now < self.link_at {
            return None;
        }
        let target = self.state.target().clone();
        if matches!(self.state.phase, Phase::Swapping { .. }) && !self.verified {
            if self.verifying {
                return None;
            }
            self.verifying = true;
            return Some(Step::Verify(target));
        }
        let moving = matches!(
            self.state.phase,
            Phase::Swapping { .. } | Phase::Reverting { .. }
        );
        if moving || self.linked.as_ref() != Some(&target.release) {
            return Some(Step::Link(target));
        }
        if now < self.start_at {
            return None;
        }
        if let Phase::Probation { starts, .. } = &mut self.state.phase
            && !self.counted
        {
            // Counted on disk before it is started: a supervisor that dies with the program knows it next time.
            *starts = starts.saturating_add(1);
            self.counted = true;
            self.durable = false;
            return Some(Step::Persist(Box::new(self.state.clone())));
        }
        Some(Step::Start(target))
    }

    /// With a program running: whether it has to end.
    fn stop_step(&mut self, now: u64) -> Option<Step> {
        match &mut self.child {
            Child::None => None,
            Child::Running { release, .. } => {
                let moving = matches!(
                    self.state.phase,
                    Phase::Swapping { .. } | Phase::Reverting { .. }
                );
                // A swap that is not on disk yet has not begun.
                let leaves = self.durable && (moving || *release != self.state.target().release);
                let silence_ms = self.timings.silence_ms;
                let silent = self
                    .heard_at
                    .is_some_and(|t| now >= t.saturating_add(silence_ms));
                let hung = silence_ms > 0 && silent && !leaves && !self.stopping;
                if !(leaves || hung || self.stopping) {
                    return None;
                }
                let release = std::mem::take(release);
                self.child = Child::Stopping {
                    kill_at: now.saturating_add(self.timings.grace_ms),
                    killed: false,
                    hung,
                };
                if hung {
                    self.event(Event::Hung { release });
                }
                Some(Step::Terminate)
            }
            Child::Stopping {
                kill_at, killed, ..
            } if now >= *kill_at && !*killed => {
                *killed = true;
                Some(Step::Kill)
            }
            Child::Stopping { .. } => None,
        }
    }

    /// When [`Machine::next`] is to be asked again although nothing happened.
    pub fn deadline(&self) -> Option<u64> {
        let silence = self.heard_at.filter(|_| self.timings.silence_ms > 0);
        let candidates = match &self.child {
            Child::None => [
                (!self.stopping).then_some(self.start_at.max(self.link_at)),
                None,
            ],
            Child::Running { .. } => [
                silence.map(|t| t.saturating_add(self.timings.silence_ms)),
                None,
            ],
            Child::Stopping {
                kill_at, killed, ..
            } => [(!killed).then_some(*kill_at), None],
        };
        let persist = (!self.durable).then_some(self.persist_at);
        // A start that waits for the check of its bytes waits for an input, not for a time.
        let waits =
            matches!(self.state.phase, Phase::Swapping { .. }) && !self.verified && self.verifying;
        let probation = match self.state.phase {
            Phase::Probation { .. } => self.probation_until,
            _ => None,
        };
        let candidates = candidates.into_iter().flatten().filter(|_| !waits);
        candidates.chain(persist).chain(probation).min()
    }

    /// Takes in what happened.
    pub fn input(&mut self, input: Input, now: u64) {
        match input {
            Input::Tick => {}
            Input::Stop => self.stopping = true,
            Input::Persisted(Ok(())) => self.written(),
            Input::Persisted(Err(why)) => self.persist_failed(why, now),
            Input::Linked(Ok(release)) => self.linked_to(release, now),
            Input::Linked(Err(why)) => {
                self.link_at = now.saturating_add(self.timings.retry_ms);
                self.event(Event::DiskFailed { why });
            }
            Input::Started(Ok(pid)) => self.started(pid, now),
            Input::Started(Err(why)) => self.crashed(now, now, &why),
            Input::Exited { status } => self.exited(&status, now),
            Input::Verified { release, result } => self.verified(&release, result),
            Input::Request(id, request) => self.request(id, request, now),
        }
    }

    fn persist_failed(&mut self, why: String, now: u64) {
        self.persist_at = now.saturating_add(self.timings.retry_ms);
        if !std::mem::replace(&mut self.disk_failing, true) {
            self.event(Event::DiskFailed { why: why.clone() });
        }
        if let Some(undo) = self.undo.take() {
            // What can't be written is not begun. The old state is written again later, since nobody knows how much of
            // the new one reached the disk.
            let plan = self.state.plan + 1;
            self.state = State { plan, ..*undo };
            let refusal = Refusal::new("disk", format!("the intent can't be written: {why}"));
            self.answers.extend(
                self.replies
                    .drain(..)
                    .map(|(id, _)| (id, Answer::Error(refusal.clone()))),
            );
        }
    }

    fn linked_to(&mut self, release: String, now: u64) {
        self.linked = Some(release);
        match &self.state.phase {
            Phase::Swapping { target } => {
                self.state.phase = Phase::Probation {
                    target: target.clone(),
                    starts: 0,
                };
                self.probation_until = None;
            }
            Phase::Reverting { failed, reason } => {
                self.events.push_back(Event::Reverted {
                    release: failed.release.clone(),
                    to: self.state.good.release.clone(),
                    why: reason.clone(),
                });
                if self.state.quarantined(failed).is_some() {
                    self.removals.push_back(failed.release.clone());
                }
                self.state.phase = Phase::Steady;
            }
            Phase::Steady | Phase::Probation { .. } => return,
        }
        self.durable = false;
        self.crashes = 0;
        self.counted = false;
        self.verified = false;
        self.start_at = now;
    }

    /// The machine's part of a status.
    pub fn status(&self) -> Status {
        let state = &self.state;
        Status {
            crashes: self.crashes,
            exe: state.exe.clone(),
            floor: state.floor,
            generation: state.generation,
            good: state.good.clone(),
            health: self.health,
            held: state.held,
            outcome: state.outcome.clone(),
            phase: state.phase.name().to_owned(),
            pid: match self.child {
                Child::Running { pid, .. } => Some(pid),
                _ => None,
            },
            previous: state.previous.clone(),
            quarantine: state.quarantine.clone(),
            running: state.target().clone(),
            supervised: true,
        }
    }

    fn event(&mut self, event: Event) {
        // They wait while the disk is full; the newest are worth more.
        if self.events.len() == MAX_WAITING_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests;
