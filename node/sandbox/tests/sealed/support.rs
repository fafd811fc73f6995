//! Jobs on the host's programs, and what came out of them.

use std::io::Read;
use std::path::Path;

use instar_sandbox::{Exit, Job, Limits, Mount, Profile, Root, Running, Stream, spawn};

pub const MIB: u64 = 1024 * 1024;

pub fn limits() -> Limits {
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
pub fn shell(script: &str) -> Job {
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

pub fn finish(mut running: Running) -> (Exit, String, String) {
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

pub fn run(job: &Job) -> (Exit, String, String) {
    finish(spawn(job).unwrap())
}

pub fn output_of(script: &str) -> String {
    let (exit, out, err) = run(&shell(script));
    assert!(exit.success(), "{script}: {exit:?}\n{out}\n{err}");
    out
}
