//! What holds inside a container, seen from inside, in each situation in which a node may run: as root, as an ordinary
//! user, and inside `unshare -rn`.
//!
//! It has its own `main`, because a helper is this very program, executed again: see `instar_sandbox::init`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use instar_sandbox::{
    Exit, Job, Limits, Mount, Profile, Root, Running, Status, Stream, probe, spawn,
};

/// Set for the runs in other situations, so that they don't start further ones.
const SITUATION: &str = "INSTAR_SANDBOX_SITUATION";

/// The argument with which this program holds a container until it is killed.
const HOLD: &str = "--hold";

/// Where the kernel gives no user namespaces.
const REFUSED: &str = "refused";

/// An id that no account has.
const ORDINARY_USER: u32 = 54321;

const MIB: u64 = 1024 * 1024;

fn main() {
    instar_sandbox::init();
    if let Some(nap) = std::env::args()
        .skip_while(|argument| argument != HOLD)
        .nth(1)
    {
        hold(&nap);
    }
    let situation = std::env::var(SITUATION);
    if situation.as_deref() == Ok(REFUSED) {
        a_refusal_says_how_to_allow_it();
        println!("test {REFUSED}::a_refusal_says_how_to_allow_it ... ok");
        return;
    }
    let tests: &[(&str, fn())] = &[
        (
            "the_probe_says_that_everything_mandatory_holds",
            the_probe_says_that_everything_mandatory_holds,
        ),
        (
            "a_command_talks_over_its_streams",
            a_command_talks_over_its_streams,
        ),
        ("the_status_shows_no_rights", the_status_shows_no_rights),
        (
            "a_build_shows_no_rights_either",
            a_build_shows_no_rights_either,
        ),
        ("every_namespace_is_its_own", every_namespace_is_its_own),
        ("there_is_no_network", there_is_no_network),
        ("the_root_is_read_only", the_root_is_read_only),
        (
            "only_the_output_folder_is_writable",
            only_the_output_folder_is_writable,
        ),
        ("the_image_is_the_root", the_image_is_the_root),
        (
            "a_link_on_the_way_to_a_mount_is_refused",
            a_link_on_the_way_to_a_mount_is_refused,
        ),
        ("processes_are_limited", processes_are_limited),
        (
            "memory_of_a_process_is_limited",
            memory_of_a_process_is_limited,
        ),
        (
            "memory_of_all_processes_is_limited",
            memory_of_all_processes_is_limited,
        ),
        ("the_wall_clock_ends_it", the_wall_clock_ends_it),
        (
            "the_wall_clock_can_be_armed_anew",
            the_wall_clock_can_be_armed_anew,
        ),
        ("processor_time_is_limited", processor_time_is_limited),
        (
            "the_size_of_a_file_is_limited",
            the_size_of_a_file_is_limited,
        ),
        (
            "no_namespaces_are_made_inside",
            no_namespaces_are_made_inside,
        ),
        ("a_missing_program_is_told", a_missing_program_is_told),
        (
            "exit_codes_and_signals_are_told_apart",
            exit_codes_and_signals_are_told_apart,
        ),
        (
            "nothing_survives_a_killed_helper",
            nothing_survives_a_killed_helper,
        ),
        (
            "a_killed_forker_takes_nothing_with_it",
            a_killed_forker_takes_nothing_with_it,
        ),
        (
            "nothing_survives_a_killed_caller",
            nothing_survives_a_killed_caller,
        ),
        (
            "nothing_survives_a_dropped_handle",
            nothing_survives_a_dropped_handle,
        ),
        (
            "a_job_that_can_t_be_sandboxed_is_refused",
            a_job_that_can_t_be_sandboxed_is_refused,
        ),
        ("no_cgroups_are_left", no_cgroups_are_left),
    ];
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let name = situation.clone().unwrap_or_else(|_| "here".to_owned());
    for (test, run) in tests.iter().filter(|(test, _)| test.contains(&filter)) {
        let start = Instant::now();
        run();
        println!(
            "test {name}::{test} ... ok ({} ms)",
            start.elapsed().as_millis()
        );
    }
    if situation.is_err() {
        elsewhere(&filter);
        println!("test result: ok. {} tests, in each situation", tests.len());
    }
}

/// Runs everything again where a node may also have to run. The copy stands where everybody can read it.
fn elsewhere(filter: &str) {
    let folder = tempfile::Builder::new()
        .prefix("instar-sandbox-")
        .tempdir()
        .unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("sealed");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let run = |situation: &str, command: &mut Command| {
        let status = command
            .arg(filter)
            .env(SITUATION, situation)
            .env_remove("TMPDIR")
            .current_dir("/")
            .status();
        assert!(status.unwrap().success(), "it failed as {situation}");
    };
    if nix::unistd::geteuid().is_root() {
        run(
            "user",
            Command::new(&copy).uid(ORDINARY_USER).gid(ORDINARY_USER),
        );
        run(
            "user_unshared",
            Command::new("unshare")
                .arg("-rn")
                .arg(&copy)
                .uid(ORDINARY_USER)
                .gid(ORDINARY_USER),
        );
    }
    run("unshared", Command::new("unshare").arg("-rn").arg(&copy));
    // The setting is a user namespace's own, so the machine's stays as it is.
    let refuse = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\"";
    run(
        REFUSED,
        Command::new("unshare")
            .args(["-r", "sh", "-c", refuse])
            .arg(&copy),
    );
}

fn limits() -> Limits {
    Limits {
        memory_bytes: 256 * MIB,
        address_space_bytes: None,
        pids: 32,
        cpu_s: Some(20),
        cpu_percent: Some(200),
        wall_ms: 20_000,
        file_bytes: MIB,
        open_files: 64,
    }
}

/// A shell on the host's programs, read-only.
fn shell(script: &str) -> Job {
    let mut mounts = Vec::new();
    for folder in ["/usr", "/bin", "/sbin", "/lib", "/lib64"] {
        let path = Path::new(folder);
        match std::fs::read_link(path) {
            Ok(to) => mounts.push(Mount::symlink(folder, to.to_str().unwrap())),
            Err(_) if path.exists() => mounts.push(Mount::read_only(folder, folder)),
            Err(_) => {}
        }
    }
    mounts.push(Mount::tmpfs("/tmp", MIB));
    Job {
        root: Root::Empty,
        mounts,
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("LC_ALL".to_owned(), "C".to_owned()),
        ],
        cwd: "/".to_owned(),
        hostname: "sealed".to_owned(),
        limits: limits(),
        profile: Profile::Dapp,
        stdin: Stream::Null,
        stdout: Stream::Pipe,
        stderr: Stream::Pipe,
    }
}

fn finish(mut running: Running) -> (Exit, String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    running
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    running
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    (running.wait().unwrap(), out, err)
}

fn run(job: &Job) -> (Exit, String, String) {
    finish(spawn(job).unwrap())
}

fn output_of(script: &str) -> String {
    let (exit, out, err) = run(&shell(script));
    assert!(exit.success(), "{script}: {exit:?}\n{out}\n{err}");
    out
}

fn the_probe_says_that_everything_mandatory_holds() {
    let report = probe();
    assert!(report.usable(), "{report:?}");
    let situation = std::env::var(SITUATION).unwrap_or_default();
    let root = nix::unistd::geteuid().is_root() && situation.is_empty();
    assert_eq!(
        report.mode == instar_sandbox::Mode::Root,
        root,
        "{report:?}"
    );
    if situation.starts_with("user") {
        // Whoever runs these tests as root has not handed cgroups to a user that doesn't exist.
        assert!(
            !report.cgroup_memory
                && report
                    .missing
                    .iter()
                    .all(|missing| !missing.allow.is_empty()),
            "{report:?}"
        );
    }
}

fn a_refusal_says_how_to_allow_it() {
    let report = probe();
    assert!(!report.usable());
    let missing = report
        .missing
        .iter()
        .find(|missing| missing.mandatory)
        .unwrap();
    assert!(missing.what.contains("user namespaces"), "{missing:?}");
    assert!(
        missing.allow.contains("user.max_user_namespaces"),
        "{missing:?}"
    );
    let error = spawn(&shell("true")).unwrap_err().to_string();
    assert!(error.contains("user.max_user_namespaces"), "{error}");
    assert!(
        report.to_string().contains("user.max_user_namespaces"),
        "{report}"
    );
}

fn a_command_talks_over_its_streams() {
    let mut job = shell("read line; echo \"got $line\"; echo bad >&2; exit 3");
    job.stdin = Stream::Pipe;
    let mut running = spawn(&job).unwrap();
    assert_eq!(
        running.wait_timeout(Duration::from_millis(20)).unwrap(),
        None
    );
    running
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"hello\n")
        .unwrap();
    let (exit, out, err) = finish(running);
    assert_eq!(
        (exit.status, out.as_str(), err.as_str()),
        (Status::Exited(3), "got hello\n", "bad\n")
    );
}

fn assert_no_rights(job: &Job) {
    let (exit, status, err) = run(job);
    assert!(exit.success(), "{exit:?} {err}");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is missing in {status}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000")),
            "{set} in {status}"
        );
    }
    assert!(status.contains("Uid:\t0\t0\t0\t0"), "{status}");
}

fn the_status_shows_no_rights() {
    assert_no_rights(&shell("cat /proc/self/status"));
}

fn a_build_shows_no_rights_either() {
    let mut job = shell("cat /proc/self/status");
    job.profile = Profile::Build;
    assert_no_rights(&job);
}

fn every_namespace_is_its_own() {
    let list = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done";
    let inside = output_of(list);
    let outside = Command::new("sh").args(["-c", list]).output().unwrap();
    let outside = String::from_utf8(outside.stdout).unwrap();
    assert_eq!((inside.lines().count(), outside.lines().count()), (7, 7));
    for (inside, outside) in inside.lines().zip(outside.lines()) {
        assert_ne!(inside, outside);
    }
    assert_eq!(output_of("uname -n"), "sealed\n");
    // The command is the first process, so nothing of the host can be seen.
    assert_eq!(
        output_of("echo $$; ls -d /proc/[0-9]* | wc -l")
            .lines()
            .next(),
        Some("1")
    );
}

fn there_is_no_network() {
    let devices = output_of("tail -n +3 /proc/net/dev");
    assert!(
        devices.lines().all(|line| line.trim().starts_with("lo:")),
        "{devices}"
    );
    // Not even to itself: lo is down, and the profiles refuse internet sockets anyway.
    for profile in [Profile::Dapp, Profile::Build] {
        let mut job = shell("exec 3<>/dev/tcp/127.0.0.1/9");
        job.argv[0] = "/bin/bash".to_owned();
        job.profile = profile;
        let (exit, _, err) = run(&job);
        assert!(!exit.success());
        assert!(
            err.contains("not permitted") || err.contains("not implemented"),
            "{err}"
        );
    }
}

fn the_root_is_read_only() {
    for path in [
        "/file",
        "/usr/file",
        "/proc/sys/kernel/hostname",
        "/dev/../file",
    ] {
        let (exit, _, err) = run(&shell(&format!("echo x > {path}")));
        assert!(!exit.success(), "{path} could be written");
        assert!(
            err.contains("Read-only file system") || err.contains("denied"),
            "{err}"
        );
    }
    let (exit, _, err) = run(&shell("mount -o remount,rw /"));
    assert!(!exit.success(), "{err}");
    assert_eq!(output_of("echo x > /tmp/file; cat /tmp/file"), "x\n");
    // The small memory is small.
    let (exit, _, _) = run(&shell(
        "head -c 900000 /dev/zero > /tmp/a && head -c 900000 /dev/zero > /tmp/b",
    ));
    assert!(!exit.success());
}

fn only_the_output_folder_is_writable() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    std::fs::create_dir(&source).unwrap();
    std::fs::create_dir(&out).unwrap();
    std::fs::write(source.join("text"), "source").unwrap();
    let mut job = shell("cat /work/source/text > /work/out/copy; echo x > /work/source/text");
    job.profile = Profile::Build;
    job.mounts.push(Mount::read_only(&source, "/work/source"));
    job.mounts.push(Mount::writable(&out, "/work/out"));
    let (exit, _, err) = run(&job);
    assert!(
        !exit.success() && err.contains("Read-only file system"),
        "{err}"
    );
    assert_eq!(std::fs::read_to_string(out.join("copy")).unwrap(), "source");
    assert_eq!(
        std::fs::read_to_string(source.join("text")).unwrap(),
        "source"
    );
    // What a build made belongs to who asked for it, so that it can be moved and removed.
    std::fs::remove_file(out.join("copy")).unwrap();
}

fn the_image_is_the_root() {
    let image = tempfile::tempdir().unwrap();
    std::fs::create_dir(image.path().join("bin")).unwrap();
    std::fs::write(image.path().join("note"), "from the image").unwrap();
    std::os::unix::fs::symlink("note", image.path().join("link")).unwrap();
    let mut job = shell("cat /link; ls /");
    job.root = Root::Folder(image.path().to_path_buf());
    job.mounts.retain(|mount| mount.target != "/bin");
    job.mounts.push(Mount::read_only("/bin/sh", "/bin/sh"));
    // The image has a folder `bin` of its own, so the shell's mount point would have to be made in it.
    assert!(spawn(&job).is_err());
    std::fs::write(image.path().join("bin/sh"), "").unwrap();
    let (exit, out, err) = run(&job);
    assert!(exit.success(), "{err}");
    assert!(
        out.starts_with("from the image") && out.contains("note"),
        "{out}"
    );
    assert_eq!(
        std::fs::read_dir(image.path()).unwrap().count(),
        3,
        "the image was changed"
    );
}

fn a_link_on_the_way_to_a_mount_is_refused() {
    let image = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", image.path().join("way")).unwrap();
    let mut job = shell("true");
    job.root = Root::Folder(image.path().to_path_buf());
    job.mounts.push(Mount::tmpfs("/way/out", MIB));
    let error = spawn(&job).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
}

fn processes_are_limited() {
    let mut job = shell("i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo all");
    job.limits.pids = 16;
    let (exit, out, err) = run(&job);
    assert!(
        !out.contains("all") || err.contains("fork"),
        "{exit:?} {out} {err}"
    );
    assert!(err.contains("fork"), "{exit:?} {err}");
}

fn memory_of_a_process_is_limited() {
    // The whole line stands in memory; the process ends by itself, in the same way on every machine.
    let (exit, _, err) = run(&shell(
        "head -c 600000000 /dev/zero | tail -n 1 | wc -c; test ${PIPESTATUS:-0} = 1",
    ));
    assert!(
        err.contains("memory exhausted") || err.contains("allocate"),
        "{exit:?} {err}"
    );
    assert_ne!(exit.status, Status::OutOfMemory);
}

fn memory_of_all_processes_is_limited() {
    let report = probe();
    let mut job = shell("head -c 400000000 /dev/zero > /tmp/large");
    job.mounts.retain(|mount| mount.target != "/tmp");
    job.mounts.push(Mount::tmpfs("/tmp", 1024 * MIB));
    job.limits.memory_bytes = 64 * MIB;
    job.limits.file_bytes = 1024 * MIB;
    let (exit, _, err) = run(&job);
    if report.cgroup_memory {
        assert_eq!(exit.status, Status::OutOfMemory, "{err}");
    } else {
        assert!(
            report
                .missing
                .iter()
                .any(|missing| missing.what.contains("memory limit")),
            "{report:?}"
        );
    }
}

fn the_wall_clock_ends_it() {
    let start = Instant::now();
    let mut job = shell("trap '' TERM; sleep 30 & sleep 30");
    job.limits.wall_ms = 200;
    let (exit, _, _) = run(&job);
    assert_eq!(exit.status, Status::WallClock);
    assert!((200..2000).contains(&exit.wall_ms), "{exit:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

fn the_wall_clock_can_be_armed_anew() {
    let mut job = shell("read line; sleep 30");
    job.stdin = Stream::Pipe;
    let running = spawn(&job).unwrap();
    running.arm(100).unwrap();
    let (exit, _, _) = finish(running);
    assert_eq!(exit.status, Status::WallClock);
    assert!(exit.wall_ms < 2000, "{exit:?}");
}

fn processor_time_is_limited() {
    let mut job = shell("while :; do :; done");
    job.limits.cpu_s = Some(1);
    let (exit, _, _) = run(&job);
    assert_eq!(exit.status, Status::CpuTime, "{exit:?}");
}

fn the_size_of_a_file_is_limited() {
    let mut job = shell("head -c 5000 /dev/zero > /tmp/file");
    job.limits.file_bytes = 4096;
    let (exit, _, _) = run(&job);
    assert!(!exit.success(), "{exit:?}");
}

fn no_namespaces_are_made_inside() {
    for profile in [Profile::Dapp, Profile::Build] {
        for flag in ["-r", "-n", "-m", "-p"] {
            let mut job = shell(&format!("unshare {flag} true"));
            job.profile = profile;
            let (exit, _, err) = run(&job);
            assert!(!exit.success(), "{profile:?} {flag} {err}");
        }
    }
}

fn a_missing_program_is_told() {
    let mut job = shell("true");
    job.argv[0] = "/bin/there-is-no-such-program".to_owned();
    let (exit, _, err) = run(&job);
    assert_eq!(exit.status, Status::Exited(127));
    assert!(err.contains("there-is-no-such-program"), "{err}");
}

fn exit_codes_and_signals_are_told_apart() {
    assert_eq!(run(&shell("exit 42")).0.status, Status::Exited(42));
    // The first process of a namespace ignores its own signals; a child's end is what its parent makes of it.
    assert_eq!(
        run(&shell("sh -c 'kill -SEGV $$'")).0.status,
        Status::Exited(128 + 11)
    );
}

/// The processes whose command line has this text.
fn processes_with(text: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

fn gone(text: &str) -> bool {
    let start = Instant::now();
    while processes_with(text) > 0 {
        if start.elapsed() > Duration::from_secs(3) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn nothing_survives_a_killed_helper() {
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

fn a_killed_forker_takes_nothing_with_it() {
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

fn hold(nap: &str) -> ! {
    let _running = spawn(&shell(&format!("sleep {nap} & sleep {nap}"))).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn nothing_survives_a_killed_caller() {
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

fn nothing_survives_a_dropped_handle() {
    let nap = format!("{}", 87_000 + std::process::id() % 300);
    let running = spawn(&shell(&format!("sleep {nap} & sleep {nap}"))).unwrap();
    while processes_with(&nap) < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(running);
    assert_eq!(processes_with(&nap), 0);
}

fn a_job_that_can_t_be_sandboxed_is_refused() {
    let with = |change: fn(&mut Job)| {
        let mut job = shell("true");
        change(&mut job);
        spawn(&job).unwrap_err().to_string()
    };
    assert!(with(|job| job.argv.clear()).contains("no command"));
    assert!(with(|job| job.argv[0] = "sh".to_owned()).contains("absolute"));
    assert!(with(|job| job.mounts.push(Mount::tmpfs("/proc/x", 1))).contains("sandbox's own"));
    assert!(with(|job| job.mounts.push(Mount::tmpfs("/a/../b", 1))).contains("no place"));
    assert!(with(|job| job.limits.wall_ms = 0).contains("zero"));
    assert!(
        with(|job| job.mounts.push(Mount::read_only("/there/is/none", "/none")))
            .contains("/there/is/none")
    );
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
            if let Some(helper) = name.strip_prefix("instar-")
                && !Path::new("/proc").join(helper).exists()
            {
                left.push(entry.path());
            }
            folders.push(entry.path());
        }
    }
    left
}

fn no_cgroups_are_left() {
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
