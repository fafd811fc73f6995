//! The supervisor with real processes: programs that crash, hang, stay alone or die later, and supervisors that are
//! killed in every phase.
//!
//! This test has no harness: it is its own program to supervise. Each release is a small shell script that becomes this
//! executable in one of the modes below, so releases differ in their bytes.

#![allow(clippy::unwrap_used)] // a test may fail by panic, helpers too

#[path = "support/child.rs"]
mod child;
#[path = "support/world.rs"]
mod world;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use instar_upgrader::{Client, ClientError, Layout, UpgraderError, revert, status};
use world::{World, wait_until};

/// The first program is installed and runs; killed, it is back. That it comes without a pause, the tests of the machine
/// and of the timings show: here a machine that does something else would be measured.
fn a_killed_program_is_back() {
    let world = World::new("healthy");
    let supervisor = world.supervise();
    let first = supervisor.pid();
    world::kill(first, "KILL");
    wait_until("a new process", || {
        supervisor.pid_now().filter(|pid| *pid != first)
    });
    wait_until("health", || status(world.home()).unwrap().health);
    assert_eq!(world.runs().len(), 2);
}

/// A healthy release is kept, and the one before stays for going back by hand.
fn a_healthy_release_is_kept() {
    let world = World::new("healthy");
    let _supervisor = world.supervise();
    let swap = world.stage(1, "healthy");
    Client::connect(world.home()).unwrap().swap(&swap).unwrap();
    let after = wait_until("the end", || world.ended(1));
    assert!(after.outcome.unwrap().kept);
    assert_eq!(after.good, swap.target);
    let layout = Layout::new(world.home());
    assert_eq!(layout.linked(), Some(swap.target.release.clone()));
    assert_eq!(world.runs().len(), 2);

    revert(world.home(), "too slow").unwrap();
    let before = wait_until("the return", || {
        world
            .steady()
            .filter(|s| s.outcome.as_ref().is_some_and(|o| !o.kept))
    });
    assert_eq!(before.good, after.previous.unwrap());
    assert_eq!(before.quarantine[0].reason, "too slow");
    assert!(!layout.executable(&swap.target.release, "node").exists());
    let again = Client::connect(world.home())
        .unwrap()
        .swap(&world.stage(2, "healthy"));
    assert!(matches!(again, Err(ClientError::Refused(r)) if r.code == "quarantined"));
    world.check_history(&[
        "installed",
        "started",
        "swap-began",
        "kept",
        "reverting",
        "reverted",
    ]);
}

/// Each kind of bad release is reverted, with a reason that says what was wrong.
fn bad_releases_are_reverted() {
    for (mode, reason) in [
        (
            "crash",
            "started 2 times without getting healthy; last: exit code 7",
        ),
        ("hang", "it reported no health within 3000 ms"),
        (
            "stuck",
            "within 3000 ms it committed 0 of 3 blocks, with 3 of 1 peers",
        ),
        ("lonely", "blocks, with 0 of 1 peers"),
    ] {
        let world = World::new("healthy");
        let _supervisor = world.supervise();
        let swap = world.stage(1, mode);
        Client::connect(world.home()).unwrap().swap(&swap).unwrap();
        let after = wait_until("the end", || world.ended(1));
        let outcome = after.outcome.unwrap();
        assert!(
            !outcome.kept && outcome.reason.contains(reason),
            "{mode}: {}",
            outcome.reason
        );
        assert_ne!(after.good, swap.target);
        assert_eq!(after.quarantine[0].sha256, swap.target.sha256);
        wait_until("the old program", || status(world.home()).unwrap().health);
    }
}

/// A program that dies after it was kept is restarted, not reverted; one that falls silent is restarted too.
fn later_trouble_is_a_restart() {
    for (mode, event) in [("dies-later", "exited"), ("falls-silent", "hung")] {
        let world = World::new(mode);
        let _supervisor = world.supervise();
        wait_until("restarts", || (world.runs().len() >= 3).then_some(()));
        assert_eq!(status(world.home()).unwrap().phase, "steady");
        world.check_history(&["started", event, "started"]);
    }
}

/// Bytes that are not the ones named are refused, and the program runs on undisturbed.
fn wrong_bytes_are_refused() {
    let world = World::new("healthy");
    let supervisor = world.supervise();
    let pid = supervisor.pid();
    let swap = world.stage(1, "healthy");
    let path = Layout::new(world.home()).executable(&swap.target.release, "node");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"\n").unwrap();
    drop(file);
    let refused = Client::connect(world.home()).unwrap().swap(&swap);
    assert!(
        matches!(&refused, Err(ClientError::Refused(r)) if r.code == "bytes" && r.message.starts_with("sha256 is")),
        "{refused:?}"
    );
    assert_eq!(supervisor.pid(), pid);
    assert_eq!(status(world.home()).unwrap().generation, 0);
}

/// Told to end, the supervisor ends the program in order; a stubborn one is killed after the grace.
fn told_to_end_it_ends_the_program() {
    for (mode, least) in [("healthy", 0), ("stubborn", 300)] {
        let world = World::new(mode);
        let mut supervisor = world.supervise();
        let pid = supervisor.pid();
        let began = Instant::now();
        supervisor.signal("TERM");
        assert!(supervisor.wait().success());
        assert!(began.elapsed() >= Duration::from_millis(least), "{mode}");
        assert!(!world::is_alive(pid));
        let after = status(world.home()).unwrap();
        assert!(!after.supervised && after.pid.is_none());
    }
}

/// The supervisor is killed in each phase: the program dies with it, and the next supervisor finishes what was begun.
fn killed_in_each_phase_it_resumes() {
    for (mode, phase) in [
        ("healthy", "swapping"),
        ("late", "probation"),
        ("stubborn-crash", "probation"),
        ("hang", "reverting"),
    ] {
        // The old program is stubborn, so that swapping takes the whole grace and can be met.
        let world = World::new("stubborn");
        let mut supervisor = world.supervise();
        let swap = world.stage(1, mode);
        let pid = supervisor.pid();
        Client::connect(world.home()).unwrap().swap(&swap).unwrap();
        // Probation follows swapping, which takes the old program's whole grace.
        wait_until(phase, || (world.phase_on_disk() == phase).then_some(()));
        let running = supervisor.pid_now();
        supervisor.signal("KILL");
        supervisor.wait();
        for pid in [Some(pid), running].into_iter().flatten() {
            wait_until("the program to die too", || {
                (!world::is_alive(pid)).then_some(())
            });
        }
        assert!(
            Layout::new(world.home()).linked().is_some(),
            "neither old nor new"
        );
        let _next = world.supervise();
        let after = wait_until("the end", || world.ended(1));
        let outcome = after.outcome.unwrap();
        let kept = mode == "healthy" || mode == "late";
        assert_eq!(
            outcome.kept,
            kept,
            "{mode} in {phase}: {}, {:?}",
            outcome.reason,
            world.runs()
        );
        world.check_history(&["resumed"]);
        world.check_no_overlap();
    }
}

/// Killed at arbitrary moments, again and again, it still comes to the right end.
fn killed_at_any_time_it_resumes() {
    for mode in ["healthy", "crash"] {
        let world = World::new("healthy");
        let swap = world.stage(1, mode);
        for round in 0..12u64 {
            let mut supervisor = world.supervise_unchecked();
            let until = Instant::now() + Duration::from_millis(20 + round * 53 % 300);
            while Instant::now() < until {
                if let Ok(mut client) = Client::connect(world.home()) {
                    let _ = client.swap(&swap);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            supervisor.signal("KILL");
            supervisor.wait();
        }
        let _last = world.supervise();
        if let Ok(mut client) = Client::connect(world.home()) {
            let _ = client.swap(&swap);
        }
        let after = wait_until("the end", || world.ended(1));
        // A healthy release may be given up on as well: starts are bounded, whoever cut them short.
        let kept = after.outcome.unwrap().kept;
        assert!(mode == "healthy" || !kept);
        assert_eq!(after.good == swap.target, kept);
        wait_until("health", || status(world.home()).unwrap().health);
        world.check_no_overlap();
    }
}

/// On a full disk a swap is refused and the program runs on; when there is space, it works.
fn a_full_disk_refuses_the_swap() {
    let world = World::new("healthy");
    let supervisor = world.supervise();
    let pid = supervisor.pid();
    let swap = world.stage(1, "healthy");
    supervisor.limit_files(Some(0));
    let refused = Client::connect(world.home()).unwrap().swap(&swap);
    assert!(
        matches!(&refused, Err(ClientError::Refused(r)) if r.code == "disk"),
        "{refused:?}"
    );
    assert_eq!(supervisor.pid(), pid);
    world::kill(pid, "KILL");
    wait_until("a restart all the same", || {
        supervisor.pid_now().filter(|new| *new != pid)
    });
    supervisor.limit_files(None);
    wait_until("space", || {
        Client::connect(world.home()).unwrap().swap(&swap).ok()
    });
    assert!(
        wait_until("the end", || world.ended(1))
            .outcome
            .unwrap()
            .kept
    );
}

/// On a disk that is filled up in a probation, the way back can still be written down: room was kept for it.
fn a_full_disk_keeps_room_for_the_way_back() {
    let folder = tempfile::tempdir().unwrap();
    // A small file system of its own, seen by this test alone.
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let status = command
        .args([
            "--mount",
            "sh",
            "-ec",
            "mount -t tmpfs -o size=1m none \"$1\"; exec \"$0\" --small-disk \"$1\"",
        ])
        .arg(std::env::current_exe().unwrap())
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
}

fn on_a_small_disk(folder: &Path) {
    let world = World::at("healthy", folder);
    let _supervisor = world.supervise();
    let good = status(world.home()).unwrap().good;
    let swap = world.stage(1, "hang");
    Client::connect(world.home()).unwrap().swap(&swap).unwrap();
    wait_until("probation", || {
        (world.phase_on_disk() == "probation").then_some(())
    });
    let mut rest = fs::File::create(folder.join("rest")).unwrap();
    while rest.write_all(&[1; 512]).is_ok() {}
    let after = wait_until("the return", || world.ended(1));
    assert_eq!(after.good, good);
    assert_eq!(Layout::new(world.home()).linked(), Some(good.release));
}

/// What somebody else says of the program's health does not count.
fn only_the_program_tells_its_health() {
    let world = World::new("healthy");
    let _supervisor = world.supervise();
    let mut client = Client::connect(world.home()).unwrap();
    let health = instar_upgrader::wire::Health {
        height: 1 << 40,
        peers: 9,
    };
    let refused = client.health(health);
    assert!(matches!(refused, Err(ClientError::Refused(r)) if r.code == "not-the-program"));
    assert!(
        client
            .status()
            .unwrap()
            .health
            .is_none_or(|h| h.height < 1 << 40)
    );
}

/// A second supervisor, a home that is too deep for a socket address, and a line that never ends.
fn odd_surroundings() {
    let world = World::in_folder("healthy", &"deep/".repeat(40));
    assert!(Layout::new(world.home()).socket().as_os_str().len() > 200);
    let _supervisor = world.supervise();
    wait_until("health through the long path", || {
        status(world.home()).unwrap().health
    });
    let mut second = world.supervise_unchecked();
    assert_eq!(second.wait().code(), Some(1));
    assert!(status(world.home()).unwrap().supervised);

    let shallow = World::new("healthy");
    let _supervisor = shallow.supervise();
    let mut stream = UnixStream::connect(Layout::new(shallow.home()).socket()).unwrap();
    let page = vec![b'x'; 64 * 1024];
    let gone = (0..64).any(|_| stream.write_all(&page).is_err());
    assert!(gone, "an endless line is cut off");
    assert!(status(shallow.home()).unwrap().supervised);
}

/// A state that can't be read stops the supervisor before it starts anything; a home without one says so.
fn nothing_is_guessed() {
    let world = World::new("healthy");
    assert!(matches!(status(world.home()), Err(UpgraderError::Fresh(_))));
    assert!(matches!(
        revert(world.home(), ""),
        Err(UpgraderError::Fresh(_))
    ));
    world.supervise().stop();
    let path = Layout::new(world.home()).state();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..40]).unwrap();
    let runs = world.runs().len();
    assert_eq!(world.supervise_unchecked().wait().code(), Some(1));
    assert_eq!(world.runs().len(), runs);
    assert!(matches!(
        status(world.home()),
        Err(UpgraderError::State { .. })
    ));
}

/// Going back works while no supervisor runs; the next one carries it out.
fn going_back_while_nothing_runs() {
    let world = World::new("healthy");
    let supervisor = world.supervise();
    let old = status(world.home()).unwrap().good;
    let swap = world.stage(1, "healthy");
    Client::connect(world.home()).unwrap().swap(&swap).unwrap();
    wait_until("the end", || world.ended(1));
    supervisor.stop();
    revert(world.home(), "by hand").unwrap();
    assert_eq!(status(world.home()).unwrap().phase, "reverting");
    let again = revert(world.home(), "by hand");
    assert!(matches!(again, Err(UpgraderError::Refused(r)) if r.code == "busy"));
    let _next = world.supervise();
    assert_eq!(wait_until("the return", || world.steady()).good, old);
}

/// The small program's own commands.
fn the_command_line() {
    let world = World::new("healthy");
    let _supervisor = world.supervise();
    let (code, out, _) = world.command(&["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &json["phase"], &json["supervised"]),
        (0, &"steady".into(), &true.into())
    );
    let (code, out, _) = world.command(&["history"]);
    assert!(
        code == 0 && out.contains("installed") && out.contains("started"),
        "{out}"
    );
    let (code, _, err) = world.command(&["revert"]);
    assert!(code == 3 && err.contains("no-previous"), "{code} {err}");
    let (code, _, err) = world.command(&["status", "--colour", "red"]);
    assert!(code == 2 && err.contains("--colour"), "{code} {err}");
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "--child") {
        return child::main(&args[2], Path::new(&args[3]));
    }
    if args.get(1).is_some_and(|arg| arg == "--small-disk") {
        return on_a_small_disk(Path::new(&args[2]));
    }
    let filter = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    macro_rules! tests {
        ($($name:ident),* $(,)?) => { [$((stringify!($name), $name as fn())),*] };
    }
    let tests = tests![
        a_killed_program_is_back,
        a_healthy_release_is_kept,
        bad_releases_are_reverted,
        later_trouble_is_a_restart,
        wrong_bytes_are_refused,
        told_to_end_it_ends_the_program,
        killed_in_each_phase_it_resumes,
        killed_at_any_time_it_resumes,
        a_full_disk_refuses_the_swap,
        a_full_disk_keeps_room_for_the_way_back,
        only_the_program_tells_its_health,
        odd_surroundings,
        nothing_is_guessed,
        going_back_while_nothing_runs,
        the_command_line,
    ];
    let mut failed = 0;
    let mut ran = 0;
    for (name, test) in tests {
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        ran += 1;
        // On a thread of its own, so that a panic ends that test alone.
        let began = Instant::now();
        let result = match std::thread::spawn(test).join() {
            Ok(()) => "ok",
            Err(_) => {
                failed += 1;
                "FAILED"
            }
        };
        println!(
            "test {name} ... {result} ({} ms)",
            began.elapsed().as_millis()
        );
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed",
        if failed == 0 { "ok" } else { "FAILED" },
        ran - failed
    );
    std::process::exit(i32::from(failed > 0));
}
