//! What commands of one sandbox share, and what they don't.

use super::life::{gone, processes_with};
use super::*;

/// Runs one script, given as the first line of its input, in a new container of `sandbox`.
fn say(sandbox: &Sandbox, script: &str) -> (Exit, String, String) {
    let mut running = sandbox.spawn().unwrap();
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(format!("{script}\n").as_bytes()).unwrap();
    drop(stdin);
    finish(running)
}

/// A shell that does what it is told.
fn told(at_once: usize) -> Sandbox {
    let mut job = shell("read -r line; eval \"$line\"");
    job.stdin = Stream::Pipe;
    Sandbox::new(&job, at_once).unwrap()
}

pub fn nothing_is_handed_on_to_the_next_command() {
    let sandbox = told(1);
    let leave = "echo secret > /tmp/secret; mkdir /tmp/folder; sleep 1000 & cat /tmp/secret";
    for _ in 0..3 {
        assert_eq!(say(&sandbox, "ls -A /tmp").1, "");
        assert_eq!(say(&sandbox, leave).1, "secret\n");
        // Its own shell and `ls`, whatever the one before has left running.
        let alone = "ls -d /proc/[0-9]* | tr '\\n' ' '";
        let (_, seen, _) = say(&sandbox, alone);
        assert!(seen.starts_with("/proc/1 "), "{seen}");
        assert!(seen.split_whitespace().count() <= 4, "{seen}");
    }
}

pub fn commands_at_once_see_nothing_of_each_other() {
    let sandbox = told(2);
    let mut one = sandbox.spawn().unwrap();
    let stdin = one.stdin.as_mut().unwrap();
    stdin
        .write_all(
            b"echo here > /tmp/file; readlink /proc/self/ns/pid /proc/self/ns/mnt; read wait\n",
        )
        .unwrap();
    let mut of_one = [0; 64];
    let length = one.stdout.as_mut().unwrap().read(&mut of_one).unwrap();
    let of_one = String::from_utf8(of_one[..length].to_vec()).unwrap();
    let (_, of_other, _) = say(
        &sandbox,
        "ls -A /tmp; readlink /proc/self/ns/pid /proc/self/ns/mnt",
    );
    assert_eq!(of_other.lines().count(), 2, "{of_other}");
    for line in of_other.lines() {
        assert!(!of_one.contains(line), "both are in {line}");
    }
    drop(one);
}

pub fn what_could_carry_words_between_commands_is_refused() {
    // A socket, a message queue, shared memory: what they share the namespaces of.
    let sandbox = told(1);
    for (what, script) in [
        ("socket", "exec 3<>/dev/tcp/127.0.0.1/9"),
        ("ipcmk", "ipcmk -Q"),
        ("ipcmk", "ipcmk -M 1"),
        ("hostname", "hostname other; exit 1"),
    ] {
        let script = format!("/bin/bash -c '{script}'; echo $?; uname -n");
        let (_, out, err) = say(&sandbox, &script);
        assert!(!out.starts_with("0\n"), "{what}: {out}{err}");
        assert!(out.ends_with("sealed\n"), "{what}: {out}{err}");
    }
    let mut job = shell("true");
    job.profile = Profile::Build;
    let refused = Sandbox::new(&job, 1).unwrap_err().to_string();
    assert!(refused.contains("only dapps"), "{refused}");
    // One that is not shared may have things in its `/tmp`.
    let mut job = shell("ls /tmp; echo x > /tmp/file");
    job.mounts.push(Mount::read_only("/usr", "/tmp/usr"));
    let (exit, out, _) = run(&job);
    assert!(exit.success() && out == "usr\n", "{out}");
    let refused = Sandbox::new(&job, 1).unwrap_err().to_string();
    assert!(refused.contains("into \"/tmp\""), "{refused}");
}

pub fn one_more_than_fits_waits_for_its_turn() {
    let sandbox = told(1);
    let first = sandbox.spawn().unwrap();
    let other = sandbox.clone();
    let second = std::thread::spawn(move || say(&other, "echo second"));
    std::thread::sleep(Duration::from_millis(100));
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.join().unwrap().1, "second\n");
    let none = Sandbox::new(&shell("true"), 0).unwrap_err().to_string();
    assert!(none.contains("0 containers at once"), "{none}");
}

pub fn an_out_of_memory_is_told_of_the_command_that_had_it() {
    if !probe().cgroup_memory {
        return;
    }
    let mut job = shell("read -r line; eval \"$line\"");
    job.stdin = Stream::Pipe;
    job.limits.memory_bytes = 64 * MIB;
    job.limits.address_space_bytes = Some(4096 * MIB);
    let sandbox = Sandbox::new(&job, 1).unwrap();
    let eat = "x=$(head -c 300000000 /dev/zero | tr '\\0' x)";
    assert_eq!(say(&sandbox, "exit 3").0.status, Status::Exited(3));
    assert_eq!(say(&sandbox, eat).0.status, Status::OutOfMemory);
    assert_eq!(say(&sandbox, "exit 3").0.status, Status::Exited(3));
}

pub fn a_killed_helper_ends_all_and_is_told() {
    let nap = format!("{}", 89_000 + std::process::id() % 300);
    let sandbox = told(2);
    let mut all: Vec<Running> = (0..2).map(|_| sandbox.spawn().unwrap()).collect();
    for running in &mut all {
        let stdin = running.stdin.as_mut().unwrap();
        stdin
            .write_all(format!("sleep {nap}\n").as_bytes())
            .unwrap();
    }
    while processes_with(&nap) < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let helper = nix::unistd::Pid::from_raw(all[0].helper_id() as i32);
    assert_eq!(all[0].helper_id(), all[1].helper_id());
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(gone(&nap), "a process of a container survived its helper");
    assert!(all[0].wait().is_err());
    let error = sandbox.spawn().unwrap_err().to_string();
    assert!(error.contains("helper ended"), "{error}");
}

pub fn many_commands_leave_nothing_in_the_helper() {
    let sandbox = told(1);
    let descriptors = |running: &Running| {
        std::fs::read_dir(format!("/proc/{}/fd", running.helper_id()))
            .map(Iterator::count)
            .ok()
    };
    let first = sandbox.spawn().unwrap();
    let before = descriptors(&first);
    drop(first);
    for _ in 0..50 {
        assert!(say(&sandbox, "true").0.success());
    }
    let last = sandbox.spawn().unwrap();
    assert_eq!(descriptors(&last), before);
}
