//! Why a job could not be started, or its end not be learnt.

use crate::Missing;

/// Why a job could not be started, or its end not be learnt.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The job contradicts itself or asks for what a sandbox never gives.
    #[error("the job can't be sandboxed: {0}")]
    BadJob(String),
    /// The kernel refuses something without which nothing is run.
    #[error("the kernel refuses a sandbox: {}", list(.0))]
    Unavailable(Vec<Missing>),
    /// One step of building the container failed.
    #[error("the sandbox failed at {step}: {why}")]
    Setup {
        /// What was being done.
        step: String,
        /// What the system answered.
        why: String,
    },
    /// The helper process ended without a report.
    #[error("the sandbox helper ended without a report: {0}")]
    HelperLost(String),
    /// The helper could not be started or spoken to.
    #[error("can't reach the sandbox helper")]
    Io(#[from] std::io::Error),
}

fn list(missing: &[Missing]) -> String {
    missing
        .iter()
        .map(|one| format!("{} ({})", one.what, one.allow))
        .collect::<Vec<_>>()
        .join("; ")
}
