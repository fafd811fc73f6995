//! What this kernel gives to this user.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::helper::{self, EXIT_NOT_FOUND};
use crate::{Job, Limits, Profile, Root, SandboxError, Status, Stream, spawn};

/// How containers are made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By the system's root user: a dapp is nobody outside.
    Root,
    /// By an ordinary user, or by root inside somebody's container: a dapp is that user outside, without any right.
    User,
}

/// Something that the kernel refuses, and how its owner can allow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What is refused.
    pub what: String,
    /// How to allow it.
    pub allow: String,
    /// Whether nothing is run without it.
    pub mandatory: bool,
}

/// What a sandbox on this machine, for this user, holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How containers are made.
    pub mode: Mode,
    /// Whether a memory limit holds for a container as a whole.
    pub cgroup_memory: bool,
    /// Whether a limit of processes holds for a container as a whole.
    pub cgroup_pids: bool,
    /// Whether a share of the processors can be set.
    pub cgroup_cpu: bool,
    /// What the kernel refuses.
    pub missing: Vec<Missing>,
}

impl Report {
    /// Whether everything mandatory holds, so that jobs can be run.
    pub fn usable(&self) -> bool {
        !self.missing.iter().any(|missing| missing.mandatory)
    }
}

impl fmt::Display for Report {
    /// One line: how containers are made, which limits hold for them, and what is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Root => "containers by root",
            Mode::User => "containers in a user namespace",
        };
        let limits = [
            ("memory", self.cgroup_memory),
            ("pids", self.cgroup_pids),
            ("cpu", self.cgroup_cpu),
        ];
        let held: Vec<&str> = limits
            .iter()
            .filter(|(_, holds)| *holds)
            .map(|(name, _)| *name)
            .collect();
        match held.as_slice() {
            [] => write!(f, "{mode}, without cgroup limits")?,
            held => write!(f, "{mode}, with cgroup limits for {}", held.join(", "))?,
        }
        self.missing
            .iter()
            .filter(|missing| missing.mandatory)
            .try_for_each(|missing| {
                write!(
                    f,
                    "; missing: {}; to allow it: {}",
                    missing.what, missing.allow
                )
            })
    }
}

/// Finds out what holds here, by building a container and sealing it.
pub fn probe() -> Report {
    let (cgroup_memory, cgroup_pids, cgroup_cpu) = helper::cgroups_given();
    let mut missing = Vec::new();
    let optional = |what: &str, allow: &str| Missing {
        what: what.to_owned(),
        allow: allow.to_owned(),
        mandatory: false,
    };
    if !cgroup_memory {
        missing.push(optional(
            "a memory limit for a container as a whole (each process has one)",
            "run as root or in a delegated cgroup (systemd-run --user --scope -p Delegate=yes); on a Raspberry Pi add \
             cgroup_enable=memory to the kernel's command line",
        ));
    }
    if !cgroup_pids {
        missing.push(optional(
            "a cgroup limit of processes (a limit for the user holds)",
            "run as root or in a delegated cgroup",
        ));
    }
    if !cgroup_cpu {
        missing.push(optional(
            "a share of the processors (a limit of processor time holds)",
            "run as root or in a delegated cgroup",
        ));
    }
    match seal_one() {
        Ok(Status::Exited(EXIT_NOT_FOUND)) => {}
        Ok(status) => missing.push(refusal(format!(
            "a container could not be sealed: {status:?}"
        ))),
        Err(SandboxError::Unavailable(refused)) => missing.extend(refused),
        Err(error) => missing.push(refusal(error.to_string())),
    }
    Report {
        mode: helper::mode(),
        cgroup_memory,
        cgroup_pids,
        cgroup_cpu,
        missing,
    }
}

fn refusal(what: String) -> Missing {
    let allow = "Linux 5.12 or newer with user namespaces, seccomp filters and the unified cgroup hierarchy; inside \
                 another container, an unmasked /proc";
    Missing {
        what,
        allow: allow.to_owned(),
        mandatory: true,
    }
}

/// Builds and seals a container with nothing in it. That there is no command to start is the last thing to be noticed,
/// so this very answer says that everything before it worked.
fn seal_one() -> Result<Status, SandboxError> {
    let job = Job {
        root: Root::Empty,
        mounts: Vec::new(),
        argv: vec!["/nothing".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        hostname: "probe".to_owned(),
        limits: Limits {
            memory_bytes: 1 << 30,
            address_space_bytes: None,
            pids: 16,
            cpu_s: Some(1),
            cpu_percent: None,
            wall_ms: 10_000,
            file_bytes: 0,
            open_files: 16,
        },
        profile: Profile::Dapp,
        stdin: Stream::Null,
        stdout: Stream::Null,
        stderr: Stream::Null,
    };
    Ok(spawn(&job)?.wait()?.status)
}
