//! A world in memory under the machine: every swap is played with a kill of the supervisor before and after every
//! single step, and must end the same.

mod world;

use proptest::prelude::*;

use super::*;
use crate::wire::Swap;
use world::{Behaviour, Kill, World, release, swap, timings};

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
        if let Some(input @ Input::Exited { .. }) = world.live() {
            machine.input(input, world.now);
            continue;
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
        .and_then(|a| world.perform(&a.step))
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

/// Whatever may happen to a supervisor.
#[derive(Clone, Debug)]
enum Happening {
    Passes(u64),
    Crash,
    Health(u64, u32),
    Swap(u64, u8, u32),
    Revert(bool),
    Hold(bool),
    Floor(u32),
    DiskFull(bool),
    BytesRight(bool),
    SupervisorKilled,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    prop_oneof![
        4 => (0..200_000u64).prop_map(Passes),
        4 => (0..400u64).prop_map(Passes),
        3 => Just(Crash),
        8 => (0..40u64, 0..3u32).prop_map(|(height, peers)| Health(height, peers)),
        6 => (0..12u64, 0..5u8, 0..4u32).prop_map(|(generation, name, protocol)| Swap(generation, name, protocol)),
        2 => any::<bool>().prop_map(Revert),
        1 => any::<bool>().prop_map(Hold),
        1 => (0..3u32).prop_map(Floor),
        1 => any::<bool>().prop_map(DiskFull),
        1 => any::<bool>().prop_map(BytesRight),
        2 => Just(SupervisorKilled),
    ]
}

/// The rules that [`World::perform`] checks at each step hold, and at rest the right program runs.
fn no_rule_breaks(all: Vec<Happening>) {
    let mut world = World::new(Behaviour::Healthy);
    let mut machine = Machine::new(world.disk.clone(), world.link.clone(), Timings::default());
    for (at, happening) in (1..).zip(all) {
        let input = match happening {
            Happening::Passes(ms) => {
                world.now += ms;
                Some(Input::Tick)
            }
            Happening::Crash => world.child.take().map(|_| Input::Exited {
                status: "exit code 1".to_owned(),
            }),
            Happening::Health(height, peers) => world
                .child
                .as_ref()
                .map(|_| Input::Request(at, Request::Health { height, peers })),
            Happening::Swap(generation, name, protocol) => {
                let target = Release {
                    protocol,
                    ..release(&format!("r{name}"))
                };
                Some(Input::Request(
                    at,
                    Request::Swap(Swap { generation, target }),
                ))
            }
            Happening::Revert(quarantine) => Some(Input::Request(
                at,
                Request::Revert {
                    reason: String::new(),
                    quarantine,
                },
            )),
            Happening::Hold(on) => Some(Input::Request(at, Request::Hold { on })),
            Happening::Floor(protocol) => Some(Input::Request(at, Request::Floor { protocol })),
            Happening::DiskFull(full) => {
                world.disk_full = full;
                None
            }
            Happening::BytesRight(right) => {
                world.bytes_right = right;
                None
            }
            Happening::SupervisorKilled => {
                world.child = None;
                world.plan = world.disk.plan;
                machine = Machine::new(world.disk.clone(), world.link.clone(), Timings::default());
                None
            }
        };
        if let Some(input) = input {
            machine.input(input, world.now);
        }
        world.settle(&mut machine);
        if machine.status().pid.is_some() {
            assert_eq!(&world.child, &world.link);
        }
    }
    // With room on the disk and time, what was asked for has an answer and the right program runs.
    world.disk_full = false;
    world.bytes_right = true;
    for _ in 0..200 {
        world.now += 10_000;
        machine.input(Input::Tick, world.now);
        world.settle(&mut machine);
    }
    assert_eq!(&world.disk, machine.state());
    assert_eq!(world.link.as_ref(), Some(&world.disk.target().release));
    assert_eq!(&world.child, &world.link);
}

#[test]
fn orders_that_once_broke_a_rule() {
    use Happening::*;
    // A start that was to be counted, and a probation that began anew because there is no way back.
    no_rule_breaks(vec![
        Floor(2),
        Swap(1, 0, 2),
        DiskFull(true),
        Crash,
        Passes(0),
        Passes(110_000),
    ]);
    // A program that was kept, which could not be written, and crashed.
    let kept = [Health(0, 0), Health(3, 1), Crash];
    no_rule_breaks(
        [Floor(2), Swap(1, 0, 2), Passes(120_000), DiskFull(true)]
            .into_iter()
            .chain(kept)
            .collect(),
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_order_of_happenings_breaks_a_rule(all in proptest::collection::vec(happening(), 1..60)) {
        no_rule_breaks(all);
    }
}
