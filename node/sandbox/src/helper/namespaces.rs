//! The helper's own namespaces, in which everything else is built. Its containers get process ids and mounts of their own;
//! they share its network, which has no device that works, and its other namespaces: only a job that can use none of them is
//! run more than once by one helper, see [`crate::Sandbox`].
//!
//! Root and ordinary users go the same way from here on: the helper has all capabilities in a user namespace of its own
//! and none outside. Inside, a command always sees itself as user 0, whoever runs the node, so that a dapp can't tell
//! validators apart.

use std::fs;
use std::io::{Read, Write};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid, sethostname};

use super::{Failure, Step};
use crate::{Missing, Mode, Profile};

/// Who a dapp is outside, where root runs the node: nobody. Not even a hole in the container makes it root.
const NOBODY: u32 = 65534;

/// How many user ids there are; the last one is no user.
const ALL_IDS: u64 = u32::MAX as u64;

/// The folder over which the helper mounts what it needs: always there, and nobody keeps files in it.
pub const SCRATCH: &str = "/sys";

/// How containers are made for this user.
pub fn mode() -> Mode {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", &ALL_IDS.to_string()]);
    if geteuid().is_root() && whole && capable() {
        Mode::Root
    } else {
        Mode::User
    }
}

/// Whether this process may administer the system and set any user id: root in a container often may not.
fn capable() -> bool {
    const SETGID_SETUID_ADMIN: u64 = 1 << 6 | 1 << 7 | 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set & SETGID_SETUID_ADMIN == SETGID_SETUID_ADMIN)
}

/// All but that of process ids, which only a child can enter.
const OWN: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWCGROUP)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// Enters the namespaces. From here on the helper has no rights outside.
pub fn enter(profile: Profile, hostname: &str) -> Result<(), Failure> {
    let mode = mode();
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    match mode {
        Mode::Root => {
            let map = match profile {
                Profile::Dapp => swapped_with_nobody(),
                // A build writes into a folder of the caller, so it is the caller, without capabilities. One id is
                // left out, because the container library takes a whole map for the system's own namespace.
                Profile::Build => format!("0 0 {}\n", ALL_IDS - 1),
            };
            with_map_writer(&map, || {
                unshare(OWN).map_err(|error| refused(error.to_string()))
            })?;
        }
        Mode::User => {
            unshare(OWN).map_err(|error| refused(error.to_string()))?;
            // A single line about oneself needs no rights, once setgroups is given up.
            fs::write("/proc/self/setgroups", "deny").step("giving up setgroups")?;
            let written = fs::write("/proc/self/uid_map", format!("0 {uid} 1\n"))
                .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {gid} 1\n")));
            written.map_err(|error| refused(error.to_string()))?;
        }
    }
    sethostname(hostname).step("setting the host name")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).step("making the mounts private")
}

/// Inside 0 is nobody outside; every other id is there too, so that the rights of root reach every folder while the
/// container is built.
fn swapped_with_nobody() -> String {
    let rest = NOBODY + 1;
    format!(
        "0 {NOBODY} 1\n1 0 {NOBODY}\n{rest} {rest} {}\n",
        ALL_IDS - u64::from(rest) - 1
    )
}

/// Runs `enter`, and has a child that stayed outside write this process's map: only who is outside may map others.
fn with_map_writer(map: &str, enter: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let (mut wait, mut go) = std::io::pipe().step("making a pipe")?;
    let target = Pid::this();
    // SAFETY: this process has one thread, so the child may do whatever the parent may.
    match unsafe { fork() }.step("forking")? {
        ForkResult::Child => {
            drop(go);
            let mut byte = [0u8; 1];
            let told = matches!(wait.read(&mut byte), Ok(1));
            let written = told
                && fs::write(format!("/proc/{target}/gid_map"), map).is_ok()
                && fs::write(format!("/proc/{target}/uid_map"), map).is_ok();
            // SAFETY: _exit ends the child without running anything of the parent's.
            unsafe { libc::_exit(if written { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            drop(wait);
            let entered = enter();
            if entered.is_ok() {
                go.write_all(b"g").step("asking for the id map")?;
            }
            drop(go);
            let status = waitpid(child, None).step("waiting for the id map")?;
            entered?;
            match status {
                nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
                _ => Err(Failure::new(
                    "mapping the users",
                    "the kernel refused the id map",
                )),
            }
        }
    }
}

fn refused(why: String) -> Failure {
    Failure {
        step: "entering a user namespace".to_owned(),
        why: why.clone(),
        missing: Some(missing_userns(&why)),
    }
}

/// What to tell the machine's owner when user namespaces are refused.
fn missing_userns(why: &str) -> Missing {
    let read = |path: &str| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let allow = if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        "sysctl -w kernel.unprivileged_userns_clone=1"
    } else if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
    } else if read("/proc/sys/user/max_user_namespaces") == "0" {
        "sysctl -w user.max_user_namespaces=10000"
    } else {
        "a kernel with CONFIG_USER_NS; inside another container, let it create user namespaces \
         (for Docker: --security-opt seccomp=unconfined --security-opt systempaths=unconfined)"
    };
    Missing {
        what: format!("user namespaces: {why}"),
        allow: allow.to_owned(),
        mandatory: true,
    }
}
