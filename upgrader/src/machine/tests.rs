//! A world in memory under the machine: every swap is played with a kill of the supervisor before and after every
//! single step, and must end the same.

use instar_attest::Digest;

use super::*;
use crate::wire::Swap;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    Healthy,
    CrashesAtOnce,
    NeverReports,
    NoPeers,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kill {
    BeforeStep(usize),
    AfterStep(usize),
}

/// What survives the supervisor: the disk. And what does not: the program, which dies with it.
#[derive(Clone)]
struct World {
    disk: State,
    link: Option<String>,
    child: Option<String>,
    told_to_end: bool,
    behaviour: Behaviour,
    bytes_right: bool,
    disk_full: bool,
    started: Vec<String>,
    answers: Vec<(RequestId, Answer)>,
    removed: Vec<String>,
    now: u64,
    height: u64,
}

fn release(name: &str) -> Release {
    Release {
        file: format!("file{name}"),
        protocol: 1,
        release: name.to_owned(),
        sha256: Digest::of(name.as_bytes()),
    }
}

fn timings() -> Timings {
    Timings {
        silence_ms: 0,
        ..Timings::default()
    }
}

fn swap(generation: u64, name: &str) -> Request {
    Request::Swap(Swap {
        generation,
        target: release(name),
    })
}

impl World {
    fn new(behaviour: Behaviour) -> Self {
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
            now: 0,
            height: 0,
        }
    }

    fn behaviour_of(&self, release: &str) -> Behaviour {
        if release == "new" {
            self.behaviour
        } else {
            Behaviour::Healthy
        }
    }

    fn boot(&self) -> Machine {
        Machine::new(self.disk.clone(), self.link.clone(), timings())
    }

    /// Carries out a step, checking what must hold at each.
    fn perform(&mut self, step: &Step) -> Option<Input> {
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
    fn live(&mut self) -> Option<Input> {
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
    fn play(&mut self, machine: &mut Machine, kill: Option<Kill>) -> usize {
        let mut steps = 0;
        let mut idle = 0;
        while idle < 50 {
            while let Some(action) = machine.next(self.now) {
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

    /// A whole swap with supervisors killed at the given points, one after the other.
    fn swap_with(mut self, kills: &[Kill]) -> Self {
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

    fn check_end(&self, kills: &[Kill]) {
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

#[test]
fn every_swap_ends_the_same_wherever_the_supervisor_is_killed() {
    use Behaviour::{CrashesAtOnce, Healthy, NeverReports, NoPeers};
    let mut played = 0;
    for behaviour in [Healthy, CrashesAtOnce, NeverReports, NoPeers] {
        let mut world = World::new(behaviour);
        let mut machine = world.boot();
        machine.input(Input::Request(7, swap(1, "new")), 0);
        let steps = world.play(&mut machine, None);
        world.check_end(&[]);
        let kills = |n| (0..n).flat_map(|at| [Kill::BeforeStep(at), Kill::AfterStep(at)]);
        for first in kills(steps + 2) {
            let world = World::new(behaviour).swap_with(&[first]);
            world.check_end(&[first]);
            for second in kills(12) {
                let world = World::new(behaviour).swap_with(&[first, second]);
                world.check_end(&[first, second]);
                played += 1;
            }
        }
    }
    assert!(played > 2000, "{played}");
}

#[test]
fn a_supervisor_killed_again_and_again_in_probation_gives_up_on_the_program() {
    let mut world = World::new(Behaviour::Healthy);
    let mut machine = world.boot();
    machine.input(Input::Request(7, swap(1, "new")), 0);
    for _ in 0..10 {
        // Killed right after each start.
        while let Some(action) = machine.next(world.now) {
            let start = matches!(action.step, Step::Start(_));
            if let Some(input) = world.perform(&action.step) {
                machine.input(input, world.now);
            }
            if start && !matches!(world.disk.phase, Phase::Steady) {
                break;
            }
        }
        if let Some(input) = world.live() {
            if matches!(input, Input::Exited { .. }) {
                machine.input(input, world.now);
                continue;
            }
        }
        world.child = None;
        machine = world.boot();
    }
    world.play(&mut machine, None);
    assert_eq!(world.disk.good.release, "old");
    let news = world.started.iter().filter(|r| *r == "new").count();
    assert_eq!(news, timings().max_starts as usize);
}

#[test]
fn what_cannot_be_written_is_not_begun() {
    let mut world = World::new(Behaviour::Healthy);
    let mut machine = world.boot();
    world.play(&mut machine, None);
    world.disk_full = true;
    machine.input(Input::Request(7, swap(1, "new")), world.now);
    world.play(&mut machine, None);
    let refused = world.answers.iter().find(|(id, _)| *id == 7);
    assert!(
        matches!(refused, Some((_, Answer::Error(r))) if r.code == "disk"),
        "{refused:?}"
    );
    assert_eq!(world.started, ["old"], "the program runs on undisturbed");
    // A program that dies meanwhile is restarted all the same.
    world.child = None;
    machine.input(
        Input::Exited {
            status: "killed".to_owned(),
        },
        world.now,
    );
    world.play(&mut machine, None);
    assert_eq!(world.started, ["old", "old"]);
    // And when there is space again, the same request works.
    world.disk_full = false;
    world.play(&mut machine, None);
    machine.input(Input::Request(8, swap(1, "new")), world.now);
    world.play(&mut machine, None);
    world.check_end(&[]);
}

#[test]
fn staged_bytes_that_changed_are_never_started() {
    // Before the intent.
    let mut world = World::new(Behaviour::Healthy);
    world.bytes_right = false;
    let mut machine = world.boot();
    machine.input(Input::Request(7, swap(1, "new")), 0);
    world.play(&mut machine, None);
    assert!(
        matches!(&world.answers[0], (7, Answer::Error(r)) if r.code == "bytes"),
        "{:?}",
        world.answers
    );
    assert_eq!(
        (world.started.as_slice(), world.disk.generation),
        (&["old".to_owned()][..], 0)
    );
    // After it, while no supervisor looked.
    world.disk.phase = Phase::Swapping {
        target: release("new"),
    };
    world.child = None;
    let mut machine = world.boot();
    world.play(&mut machine, None);
    assert_eq!(world.started, ["old", "old"]);
    assert_eq!(world.disk.phase, Phase::Steady);
    assert!(
        world
            .disk
            .outcome
            .as_ref()
            .unwrap()
            .reason
            .contains("other bytes")
    );
}

/// Lets a world come to rest with the old program running, then asks; returns the refusal's code, or "".
fn code(world: &mut World, machine: &mut Machine, request: Request) -> String {
    world.answers.clear();
    machine.input(Input::Request(9, request), world.now);
    world.play(machine, None);
    match world.answers.iter().find(|(id, _)| *id == 9) {
        Some((_, Answer::Error(refusal))) => refusal.code.clone(),
        Some((_, Answer::Ok(_))) => String::new(),
        None => panic!("no answer"),
    }
}

#[test]
fn requests_that_are_old_bad_or_unwanted_are_refused() {
    let mut world = World::new(Behaviour::CrashesAtOnce);
    let mut machine = world.boot();
    let mut ask = |request| code(&mut world, &mut machine, request);
    assert_eq!(ask(swap(5, "old")), "running");
    assert_eq!(ask(swap(5, "../x")), "name");
    assert_eq!(ask(Request::Hold { on: true }), "");
    assert_eq!(ask(swap(5, "new")), "held");
    assert_eq!(ask(Request::Hold { on: false }), "");
    assert_eq!(ask(swap(5, "new")), "");
    // It crashed and is quarantined by now.
    assert_eq!(ask(swap(6, "new")), "quarantined");
    let mut same_bytes = release("again");
    same_bytes.sha256 = release("new").sha256;
    let again = Request::Swap(Swap {
        generation: 6,
        target: same_bytes,
    });
    assert_eq!(ask(again), "quarantined");
    assert_eq!(ask(swap(5, "other")), "old-generation");
    assert_eq!(ask(swap(6, "other")), "");
    assert_eq!(ask(swap(6, "other")), "", "the same request again");
    assert_eq!(ask(swap(6, "third")), "old-generation");
    assert_eq!(ask(Request::Floor { protocol: 2 }), "");
    assert_eq!(ask(swap(7, "third")), "below-floor");
    assert_eq!(
        ask(Request::Revert {
            reason: String::new(),
            quarantine: true
        }),
        "below-floor"
    );
    assert_eq!(world.disk.good.release, "other");
}

#[test]
fn below_the_floor_nobody_goes_back() {
    let mut world = World::new(Behaviour::NeverReports);
    let mut machine = world.boot();
    world.play(&mut machine, None);
    machine.input(Input::Request(1, Request::Floor { protocol: 2 }), world.now);
    let target = Release {
        protocol: 2,
        ..release("new")
    };
    machine.input(
        Input::Request(
            2,
            Request::Swap(Swap {
                generation: 1,
                target,
            }),
        ),
        world.now,
    );
    for _ in 0..20 {
        world.play(&mut machine, None);
    }
    assert_eq!(world.disk.target().release, "new");
    assert_eq!(
        world.started.iter().filter(|r| *r == "old").count(),
        1,
        "{:?}",
        world.started
    );
    // It gets healthy one day.
    world.behaviour = Behaviour::Healthy;
    world.play(&mut machine, None);
    assert_eq!(
        (world.disk.good.release.as_str(), &world.disk.phase),
        ("new", &Phase::Steady)
    );
}

#[test]
fn going_back_by_hand_returns_to_the_one_before_and_keeps_two() {
    let mut world = World::new(Behaviour::Healthy);
    let mut machine = world.boot();
    let revert = || Request::Revert {
        reason: "too slow".to_owned(),
        quarantine: true,
    };
    assert_eq!(code(&mut world, &mut machine, revert()), "no-previous");
    assert_eq!(code(&mut world, &mut machine, swap(1, "new")), "");
    assert_eq!(code(&mut world, &mut machine, swap(2, "newer")), "");
    assert_eq!(world.removed, ["old"], "two good ones are kept");
    assert_eq!(code(&mut world, &mut machine, revert()), "");
    assert_eq!(
        (world.disk.good.release.as_str(), world.child.as_deref()),
        ("new", Some("new"))
    );
    assert_eq!(world.disk.quarantine[0].reason, "too slow");
    assert_eq!(world.removed, ["old", "newer"]);
}

#[test]
fn a_program_that_falls_silent_is_restarted() {
    let mut world = World::new(Behaviour::Healthy);
    let mut machine = Machine::new(
        world.disk.clone(),
        world.link.clone(),
        Timings {
            silence_ms: 500,
            ..timings()
        },
    );
    world.play(&mut machine, None);
    let now = world.now;
    while machine.next(now).is_some() {}
    assert!(machine.next(now + 400).is_none());
    let hung = machine.next(now + 600);
    assert!(
        matches!(
            hung,
            Some(Action {
                step: Step::Terminate,
                ..
            })
        ),
        "{hung:?}"
    );
    world.now += 600;
    world.told_to_end = true;
    world.play(&mut machine, None);
    assert_eq!(world.started, ["old", "old"]);
}

#[test]
fn crashes_are_answered_at_once_and_then_more_slowly() {
    let mut world = World::new(Behaviour::Healthy);
    let mut machine = world.boot();
    while machine
        .next(0)
        .map(|a| world.perform(&a.step))
        .flatten()
        .map(|i| machine.input(i, 0))
        .is_some()
    {}
    let mut pauses = Vec::new();
    for _ in 0..4 {
        world.child = None;
        let now = world.now;
        machine.input(
            Input::Exited {
                status: "killed".to_owned(),
            },
            now,
        );
        loop {
            match machine.next(world.now) {
                Some(action) => {
                    let start = matches!(action.step, Step::Start(_));
                    if let Some(input) = world.perform(&action.step) {
                        machine.input(input, world.now);
                    }
                    if start {
                        break;
                    }
                }
                None => world.now = machine.deadline().unwrap(),
            }
        }
        pauses.push(world.now - now);
    }
    assert_eq!(pauses, [0, 250, 500, 1000]);
    assert_eq!(machine.status().crashes, 4);
}
