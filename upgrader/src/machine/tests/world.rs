//! Disk, program and clock in memory.

use instar_attest::Digest;

use super::super::*;
use crate::wire::Swap;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    Healthy,
    CrashesAtOnce,
    NeverReports,
    NoPeers,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kill {
    BeforeStep(usize),
    AfterStep(usize),
}

/// What survives the supervisor: the disk. And what does not: the program, which dies with it.
#[derive(Clone)]
pub struct World {
    pub disk: State,
    pub link: Option<String>,
    pub child: Option<String>,
    pub told_to_end: bool,
    pub behaviour: Behaviour,
    pub bytes_right: bool,
    pub disk_full: bool,
    pub started: Vec<String>,
    pub answers: Vec<(RequestId, Answer)>,
    pub removed: Vec<String>,
    pub plan: u64,
    pub now: u64,
    pub height: u64,
}

pub fn release(name: &str) -> Release {
    Release {
        file: format!("file{name}"),
        protocol: 1,
        release: name.to_owned(),
        sha256: Digest::of(name.as_bytes()),
    }
}

pub fn timings() -> Timings {
    Timings {
        silence_ms: 0,
        ..Timings::default()
    }
}

pub fn swap(generation: u64, name: &str) -> Request {
    Request::Swap(Swap {
        generation,
        target: release(name),
    })
}

impl World {
    pub fn new(behaviour: Behaviour) -> Self {
        Self {
            disk: State::first("node".to_owned(), release("old")),
            link: Some("old".to_owned()),
            child: None,
            told_to_end: false,
            behaviour,
            bytes_right: true,
            disk_full: false,
            started: Vec::new(),
            answers: Vec::new(),
            removed: Vec::new(),
            plan: 0,
            now: 0,
            height: 0,
        }
    }

    pub fn behaviour_of(&self, release: &str) -> Behaviour {
        if release == "new" {
            self.behaviour
        } else {
            Behaviour::Healthy
        }
    }

    pub fn boot(&mut self) -> Machine {
        self.plan = self.disk.plan;
        Machine::new(self.disk.clone(), self.link.clone(), timings())
    }

    /// Carries out a step, checking what must hold at each.
    pub fn perform(&mut self, step: &Step) -> Option<Input> {
        match step {
            Step::Persist(_) if self.disk_full => Some(Input::Persisted(Err("full".to_owned()))),
            Step::Persist(state) => {
                self.disk = (**state).clone();
                Some(Input::Persisted(Ok(())))
            }
            Step::Verify(release) => {
                let result = if self.bytes_right {
                    Ok(())
                } else {
                    Err("other bytes".to_owned())
                };
                Some(Input::Verified {
                    release: release.clone(),
                    result,
                })
            }
            Step::Link(release) => {
                assert_eq!(self.child, None, "the link is moved while a program runs");
                assert_eq!(
                    *release,
                    *self.disk.target(),
                    "the link is moved before the disk says so"
                );
                self.link = Some(release.release.clone());
                Some(Input::Linked(Ok(release.release.clone())))
            }
            Step::Start(release) => {
                assert_eq!(self.child, None, "two programs at once");
                assert_eq!(
                    self.link.as_ref(),
                    Some(&release.release),
                    "not the linked program is started"
                );
                assert!(matches!(
                    self.disk.phase,
                    Phase::Steady | Phase::Probation { .. }
                ));
                assert!(
                    self.disk.quarantined(release).is_none(),
                    "quarantined bytes are started"
                );
                if let Phase::Probation { starts, .. } = self.disk.phase {
                    assert!(
                        (1..=timings().max_starts).contains(&starts),
                        "{starts} starts"
                    );
                }
                self.started.push(release.release.clone());
                self.child = Some(release.release.clone());
                self.told_to_end = false;
                Some(Input::Started(Ok(1)))
            }
            Step::Terminate => {
                self.told_to_end = true;
                None
            }
            Step::Kill => {
                self.child = None;
                Some(Input::Exited {
                    status: "killed by SIGKILL".to_owned(),
                })
            }
            Step::Remove(release) => {
                assert!(!self.disk.needs(release), "{release} is removed but needed");
                self.removed.push(release.clone());
                None
            }
            Step::Record(_) => None,
            Step::Reply(id, answer) => {
                self.answers.push((*id, answer.clone()));
                None
            }
        }
    }

    /// What the program does by itself.
    pub fn live(&mut self) -> Option<Input> {
        let behaviour = self.behaviour_of(self.child.as_ref()?);
        let exits = behaviour == Behaviour::CrashesAtOnce
            || (self.told_to_end && behaviour != Behaviour::NeverReports);
        if exits {
            self.child = None;
            return Some(Input::Exited {
                status: "exit code 1".to_owned(),
            });
        }
        self.height += 1;
        let peers = if behaviour == Behaviour::NoPeers {
            0
        } else {
            3
        };
        let height = self.height;
        (behaviour != Behaviour::NeverReports)
            .then_some(Input::Request(0, Request::Health { height, peers }))
    }

    /// Lets a supervisor work until it is killed or nothing changes any more. Returns how many steps it made.
    pub fn play(&mut self, machine: &mut Machine, kill: Option<Kill>) -> usize {
        let mut steps = 0;
        let mut idle = 0;
        while idle < 50 {
            while let Some(action) = machine.next(self.now) {
                assert!(action.plan >= self.plan, "an older decision is carried out");
                self.plan = action.plan;
                if matches!(action.step, Step::Reply(0, _)) {
                    // Answers to reports of health go on for ever.
                    continue;
                }
                if !(self.disk_full && matches!(action.step, Step::Persist(_))) {
                    idle = 0;
                }
                if kill == Some(Kill::BeforeStep(steps)) {
                    self.child = None;
                    return steps;
                }
                let input = self.perform(&action.step);
                if kill == Some(Kill::AfterStep(steps)) {
                    self.child = None;
                    return steps;
                }
                steps += 1;
                if let Some(input) = input {
                    machine.input(input, self.now);
                }
                assert!(steps < 10_000, "it never comes to rest");
            }
            idle += 1;
            match self.live() {
                Some(input) => {
                    // A report every five seconds.
                    self.now += 5_000;
                    machine.input(input, self.now);
                }
                None => self.now = machine.deadline().unwrap_or(self.now + 1).max(self.now),
            }
            self.now += 1;
        }
        steps
    }

    /// Carries out steps until there is none; a program that is told to end does.
    pub fn settle(&mut self, machine: &mut Machine) {
        for _ in 0..1000 {
            let Some(action) = machine.next(self.now) else {
                return;
            };
            assert!(action.plan >= self.plan, "an older decision is carried out");
            self.plan = action.plan;
            let input = match &action.step {
                Step::Terminate => {
                    self.child = None;
                    Some(Input::Exited {
                        status: "killed by SIGTERM".to_owned(),
                    })
                }
                step => self.perform(step),
            };
            if let Some(input) = input {
                machine.input(input, self.now);
            }
        }
        panic!("it never comes to rest");
    }

    /// A whole swap with supervisors killed at the given points, one after the other.
    pub fn swap_with(mut self, kills: &[Kill]) -> Self {
        for kill in kills.iter().copied().map(Some).chain([None]) {
            // A point that was never reached is a kill at rest.
            self.child = None;
            let mut machine = self.boot();
            // The program asks as long as it does not see its wish on disk.
            if self.disk.generation == 0 {
                machine.input(Input::Request(7, swap(1, "new")), self.now);
            }
            self.play(&mut machine, kill);
        }
        self
    }

    pub fn check_end(&self, kills: &[Kill]) {
        let context = format!("{:?} with {kills:?}: {:?}", self.behaviour, self.disk);
        assert_eq!(self.disk.phase, Phase::Steady, "{context}");
        assert_eq!(self.disk.generation, 1, "{context}");
        assert_eq!(
            self.link.as_ref(),
            Some(&self.disk.good.release),
            "{context}"
        );
        assert_eq!(self.child, self.link, "{context}");
        let kept = self.behaviour == Behaviour::Healthy;
        assert_eq!(
            self.disk.good.release,
            if kept { "new" } else { "old" },
            "{context}"
        );
        assert_eq!(self.disk.quarantine.is_empty(), kept, "{context}");
        let outcome = self.disk.outcome.as_ref().unwrap();
        assert_eq!((outcome.kept, outcome.generation), (kept, 1), "{context}");
    }
}
