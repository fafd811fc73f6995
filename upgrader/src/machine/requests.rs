//! What is asked for, and when it is refused.

use super::{Machine, Pending, RequestId};
use crate::history::Event;
use crate::state::{Phase, Release};
use crate::wire::{Answer, Done, Health, Refusal, Request, Swap, answer_hello};

/// Whether a swap that was asked for is new.
enum Begun {
    Before,
    Now,
}

impl Machine {
    pub(super) fn request(&mut self, id: RequestId, request: Request, now: u64) {
        let answer = match request {
            Request::Hello { protocols } => answer_hello(&protocols),
            Request::Health { height, peers } => {
                self.healthy(Health { height, peers }, now);
                Answer::Ok(Done::default())
            }
            Request::Status => Answer::Ok(Done {
                status: Some(Box::new(self.status())),
                ..Done::default()
            }),
            Request::Swap(swap) => match self.swap(id, swap) {
                Ok(Begun::Before) => return self.reply_when_durable(id),
                // Answered when the bytes were checked and the intent is on disk.
                Ok(Begun::Now) => return,
                Err(refusal) => Answer::Error(refusal),
            },
            Request::Revert { reason, quarantine } => match self.revert(&reason, quarantine) {
                Ok(()) => return self.reply_when_durable(id),
                Err(refusal) => Answer::Error(refusal),
            },
            Request::Hold { on } => {
                if self.state.held != on {
                    self.state.held = on;
                    self.event(Event::Held { on });
                    self.changed();
                }
                return self.reply_when_durable(id);
            }
            Request::Floor { protocol } => {
                if protocol > self.state.floor {
                    self.state.floor = protocol;
                    self.event(Event::Floor { protocol });
                    self.changed();
                }
                return self.reply_when_durable(id);
            }
        };
        self.answers.push_back((id, answer));
    }

    fn reply_when_durable(&mut self, id: RequestId) {
        self.replies.push_back((id, Answer::Ok(Done::default())));
    }

    fn swap(&mut self, id: RequestId, swap: Swap) -> Result<Begun, Refusal> {
        let Swap { generation, target } = swap;
        if generation == self.state.generation && *self.state.target() == target {
            // The same request again: its answer was lost.
            return Ok(Begun::Before);
        }
        if self.pending.is_some() {
            return Err(self.busy());
        }
        self.may_swap(generation, &target)?;
        self.pending = Some(Pending {
            request: id,
            generation,
            target,
        });
        Ok(Begun::Now)
    }

    /// Whether this swap may begin. Asked twice: the world may change while the bytes are read.
    fn may_swap(&self, generation: u64, target: &Release) -> Result<(), Refusal> {
        let state = &self.state;
        let refuse = |code: &str, message: String| Err(Refusal::new(code, message));
        if !target.is_named_well() {
            return refuse(
                "name",
                "a release and its file are named by CIDs".to_owned(),
            );
        }
        if let Some(bad) = state.quarantined(target) {
            return refuse(
                "quarantined",
                format!("these bytes failed before: {}", bad.reason),
            );
        }
        if generation <= state.generation {
            let seen = state.generation;
            return refuse(
                "old-generation",
                format!("generation {generation} is not above {seen}"),
            );
        }
        if state.held {
            return refuse("held", "swaps are held by the operator".to_owned());
        }
        if target.protocol < state.floor {
            let (protocol, floor) = (target.protocol, state.floor);
            return refuse(
                "below-floor",
                format!("protocol {protocol} is below the floor, {floor}"),
            );
        }
        if state.phase != Phase::Steady || self.stopping {
            return Err(self.busy());
        }
        let good = &state.good;
        if good.release == target.release
            || good.file == target.file
            || good.sha256 == target.sha256
        {
            // Under another name too: if these bytes failed there, the good ones would be quarantined.
            return refuse("running", "these bytes run already".to_owned());
        }
        Ok(())
    }

    fn busy(&self) -> Refusal {
        Refusal::new("busy", format!("the supervisor is {}", self.doing()))
    }

    fn doing(&self) -> &'static str {
        match (&self.pending, self.stopping) {
            (_, true) => "ending",
            (Some(_), _) => "checking the bytes of another swap",
            (None, _) => self.state.phase.name(),
        }
    }

    /// The bytes of a release were checked.
    pub(super) fn verified(&mut self, release: &Release, result: Result<(), String>) {
        if let Some(pending) = self.pending.take_if(|p| p.target == *release) {
            self.verifying = false;
            self.begin_swap(pending, result);
            return;
        }
        match &self.state.phase {
            // A swap that an earlier supervisor began.
            Phase::Swapping { target } if target == release => {
                self.verifying = false;
                let target = target.clone();
                match result {
                    Ok(()) => self.verified = true,
                    Err(why) => {
                        self.revert_from(target, &format!("its staged bytes changed: {why}"), false)
                    }
                }
            }
            _ => {}
        }
    }

    fn begin_swap(&mut self, pending: Pending, result: Result<(), String>) {
        let Pending {
            request,
            generation,
            target,
        } = pending;
        let checked = result
            .map_err(|why| Refusal::new("bytes", why))
            .and_then(|()| self.may_swap(generation, &target));
        if let Err(refusal) = checked {
            self.event(Event::SwapRefused {
                release: target.release,
                why: refusal.message.clone(),
            });
            self.answers.push_back((request, Answer::Error(refusal)));
            return;
        }
        self.event(Event::SwapBegan {
            generation,
            from: self.state.good.release.clone(),
            to: target.release.clone(),
        });
        if self.durable {
            self.undo = Some(Box::new(self.state.clone()));
        }
        self.state.generation = generation;
        self.state.outcome = None;
        self.state.phase = Phase::Swapping { target };
        self.verified = true;
        self.changed();
        self.reply_when_durable(request);
    }

    fn revert(&mut self, reason: &str, quarantine: bool) -> Result<(), Refusal> {
        let reason = match reason {
            "" => "asked for",
            reason => reason,
        };
        let floor = self.state.floor;
        let below = |release: &Release| {
            let protocol = release.protocol;
            Refusal::new(
                "below-floor",
                format!("the release before speaks protocol {protocol}, the floor is {floor}"),
            )
        };
        match &self.state.phase {
            Phase::Probation { target, .. } => {
                let target = target.clone();
                if self.state.good.protocol < floor {
                    return Err(below(&self.state.good));
                }
                self.revert_from(target, reason, quarantine);
            }
            Phase::Steady => {
                let Some(previous) = self.state.previous.clone() else {
                    return Err(Refusal::new(
                        "no-previous",
                        "no earlier good release is kept",
                    ));
                };
                if previous.protocol < floor {
                    return Err(below(&previous));
                }
                self.state.previous = None;
                let failed = std::mem::replace(&mut self.state.good, previous);
                self.revert_from(failed, reason, quarantine);
            }
            Phase::Swapping { .. } | Phase::Reverting { .. } => return Err(self.busy()),
        }
        Ok(())
    }
}
