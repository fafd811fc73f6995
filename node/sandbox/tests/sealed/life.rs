//! How it ends, and what ends it.

use super::*;

pub fn exit_codes_and_signals_are_told_apart() {
    assert_eq!(run(&shell("exit 42")).0.status, Status::Exited(42));
    // The first process of a namespace ignores its own signals; a child's end is what its parent makes of it.
    assert_eq!(
        run(&shell("sh -c 'kill -SEGV $$'")).0.status,
        Status::Exited(128 + 11)
    );
}

/// The processes whose command line has this text.
pub fn processes_with(text: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

pub fn gone(text: &str) -> bool {
    let start = Instant::now();
    while processes_with(text) > 0 {
        if start.elapsed() > Duration::from_secs(3) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

pub fn nothing_survives_a_killed_helper() {
    // The sum is made here, so that this process's own command line doesn't have it.
    let nap = format!("{}", 86_000 + std::process::id() % 300);
    let running = spawn(&shell(&format!("sleep {nap} & sleep {nap}"))).unwrap();
    while processes_with(&nap) < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let helper = nix::unistd::Pid::from_raw(running.helper_id() as i32);
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(gone(&nap), "a process of the container survived its helper");
    let mut running = running;
    assert!(running.wait().is_err());
}

pub fn a_killed_forker_takes_nothing_with_it() {
    let mut job = shell("read line; echo $line");
    job.stdin = Stream::Pipe;
    let mut before = spawn(&job).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", before.helper_id())).unwrap();
    // `pid (name) state parent …`, and the name is ours.
    let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1);
    let forker = nix::unistd::Pid::from_raw(parent.unwrap().parse().unwrap());
    assert_ne!(forker, nix::unistd::getpid());
    nix::sys::signal::kill(forker, nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut after = spawn(&shell("exit 3")).unwrap();
    assert_eq!(after.wait().unwrap().status, Status::Exited(3));
    std::io::Write::write_all(before.stdin.as_mut().unwrap(), b"still here\n").unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(before.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(said, "still here\n");
    assert!(before.wait().unwrap().success());
}

pub fn hold(nap: &str) -> ! {
    let _running = spawn(&shell(&format!("sleep {nap} & sleep {nap}"))).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

pub fn nothing_survives_a_killed_caller() {
    let nap = format!("{}", 88_000 + std::process::id() % 300);
    let mut caller = Command::new(std::env::current_exe().unwrap())
        .args([HOLD, &nap])
        .spawn()
        .unwrap();
    // The caller has the text in its command line too.
    while processes_with(&nap) < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    caller.kill().unwrap();
    caller.wait().unwrap();
    assert!(gone(&nap), "a container survived its caller");
}

pub fn nothing_survives_a_dropped_handle() {
    let nap = format!("{}", 87_000 + std::process::id() % 300);
    let running = spawn(&shell(&format!("sleep {nap} & sleep {nap}"))).unwrap();
    while processes_with(&nap) < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(running);
    assert_eq!(processes_with(&nap), 0);
}

/// The folders of containers whose helper is gone. Another test run on the same machine may have containers of its own;
/// those have living helpers.
fn cgroups_of_the_dead() -> Vec<std::path::PathBuf> {
    let mut left = Vec::new();
    let mut folders = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(helper) = name
                .strip_prefix("instar-")
                .and_then(|rest| rest.split('-').next())
                && !Path::new("/proc").join(helper).exists()
            {
                left.push(entry.path());
            }
            folders.push(entry.path());
        }
    }
    left
}

pub fn no_cgroups_are_left() {
    // What a caller left that was killed with its helper is removed by the next container. The kernel takes a moment to
    // take the last dead process off its books, and a folder can't be removed before that.
    let start = Instant::now();
    loop {
        run(&shell("true"));
        let left = cgroups_of_the_dead();
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "left: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
