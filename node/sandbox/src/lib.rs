//! Run one command in a sealed container, by a single-threaded helper.
//!
//! Making a container means cloning a process and going on in the clone, which no program with several threads can do
//! safely. So the calling program executes itself once more, as the *forker*: a process with one thread, which forks a
//! *helper* for each container, that reads a [`Job`] from a socket, builds the container, and reports how it ended. A
//! program that uses this crate calls [`init`] before anything else in `main`; in forker and helper it never returns.
//!
//! What always holds, or the job isn't started: all namespaces, no network, a read-only root, no capabilities, no new
//! privileges, a seccomp filter, resource limits and a wall clock. Cgroup limits come on top where the kernel gives
//! them; [`probe`] says which.
//!
//! Invariant: this crate knows neither builds nor dapps, and depends on no other room.

mod error;
mod forker;
mod helper;
mod job;
mod pidfd;
mod probe;
mod run;
mod wire;

pub use error::SandboxError;
pub use job::{Job, Limits, Mount, MountKind, Profile, Root, Stream};
pub use probe::{Missing, Mode, Report, probe};
pub use run::{Exit, Killer, Running, Sandbox, Status, spawn};

/// The hidden first argument with which a program executes itself as the forker.
pub const HELPER_ARG: &str = "__sandbox";

/// Becomes the forker, if this process was started as one, and then never returns.
///
/// Must be the first thing that `main` does: before a thread, a runtime or a logger exists.
pub fn init() {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == HELPER_ARG)
    {
        std::process::exit(helper::main());
    }
}
