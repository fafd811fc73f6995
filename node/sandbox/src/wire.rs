//! What the caller and the helper say to each other: one JSON object a line, over a socket pair.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Exit, Missing};

/// A line may not be longer: a job with a large environment is some kilobytes.
pub const MAX_LINE_BYTES: u64 = 4 * 1024 * 1024;

/// From the caller, after the job itself.
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

/// From the helper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The command runs.
    Started {
        /// The cgroup folders that must be gone in the end, should the helper be killed.
        cgroups: Vec<PathBuf>,
    },
    /// The command was not started.
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
