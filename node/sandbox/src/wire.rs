//! What the caller and the helper say to each other: one JSON object a line, over socket pairs. After its order a helper
//! gets a byte with four descriptors for each container: its input, output and errors, and a socket to talk about it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Exit, Job, Missing};

/// A container's input, output, errors, and the socket to talk about it.
pub const CONTAINER_FDS: usize = 4;

/// A line may not be longer: a job with a large environment is some kilobytes.
pub const MAX_LINE_BYTES: u64 = 4 * 1024 * 1024;

/// What a helper is made for: its first line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// What each of its containers runs.
    pub job: Job,
    /// How many of them at once; who asks for one more waits.
    pub at_once: usize,
}

/// From the caller, over a container's own socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The wall clock starts anew, with this much time.
    Arm {
        /// Time from now to the forced end.
        wall_ms: u64,
    },
    /// The container ends now.
    Kill,
}

/// From the helper: `Ready` or `Failed` over its own socket, the others over that of a container.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Containers can be made.
    Ready {
        /// The cgroup folders that must be gone in the end, should the helper be killed.
        cgroups: Vec<PathBuf>,
    },
    /// The command runs.
    Started,
    /// The helper is of no use, or the command was not started.
    Failed {
        /// What was being done.
        step: String,
        /// What the system answered.
        why: String,
        /// How the machine's owner can allow it, where that is known.
        missing: Option<Missing>,
    },
    /// The command ran, and is gone.
    Ended(Exit),
}
