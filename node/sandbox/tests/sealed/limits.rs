//! What it may use.

use super::*;

pub fn processes_are_limited() {
    let mut job = shell("i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo all");
    job.limits.pids = 16;
    let (exit, out, err) = run(&job);
    assert!(
        !out.contains("all") || err.contains("fork"),
        "{exit:?} {out} {err}"
    );
    assert!(err.contains("fork"), "{exit:?} {err}");
}

pub fn memory_of_a_process_is_limited() {
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

pub fn memory_of_all_processes_is_limited() {
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

pub fn the_wall_clock_ends_it() {
    let start = Instant::now();
    let mut job = shell("trap '' TERM; sleep 30 & sleep 30");
    job.limits.wall_ms = 200;
    let (exit, _, _) = run(&job);
    assert_eq!(exit.status, Status::WallClock);
    assert!((200..2000).contains(&exit.wall_ms), "{exit:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

pub fn the_wall_clock_can_be_armed_anew() {
    let mut job = shell("read line; sleep 30");
    job.stdin = Stream::Pipe;
    let running = spawn(&job).unwrap();
    running.arm(100).unwrap();
    let (exit, _, _) = finish(running);
    assert_eq!(exit.status, Status::WallClock);
    assert!(exit.wall_ms < 2000, "{exit:?}");
}

pub fn processor_time_is_limited() {
    let mut job = shell("while :; do :; done");
    job.limits.cpu_s = Some(1);
    let (exit, _, _) = run(&job);
    assert_eq!(exit.status, Status::CpuTime, "{exit:?}");
}

pub fn the_size_of_a_file_is_limited() {
    let mut job = shell("head -c 5000 /dev/zero > /tmp/file");
    job.limits.file_bytes = 4096;
    let (exit, _, _) = run(&job);
    assert!(!exit.success(), "{exit:?}");
}
