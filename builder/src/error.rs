//! Why a build could not be done at all. A build that ran and failed is an outcome, not an error.

use std::io;
use std::path::{Path, PathBuf};

use instar_attest::json::JsonError;
use instar_attest::release::{NameError, RevealError};
use instar_sandbox::SandboxError;

/// Why there is neither a release nor an answer to whether it can be reproduced.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The repository can't be opened, or has no such commit.
    #[error("can't read {revision:?} from the repository {repository}")]
    Repository {
        /// Where the repository should be.
        repository: PathBuf,
        /// What was asked for.
        revision: String,
        /// What git says.
        #[source]
        source: git2::Error,
    },
    /// A repository elsewhere can't be brought.
    #[error("can't bring {url}: {why}")]
    Bring {
        /// Where it is, without credentials.
        url: String,
        /// What git says.
        why: String,
    },
    /// The tree has something that a build can't or mustn't take.
    #[error("the source tree has {path:?}: {why}")]
    Tree {
        /// Where in the tree.
        path: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A file of the source doesn't say what is needed.
    #[error("{file}: {why}")]
    Project {
        /// The file, as it stands in the source.
        file: String,
        /// What is missing or wrong.
        why: String,
    },
    /// The vendored crates are not those of the lock file.
    #[error("the vendored crates are not those of Cargo.lock: {krate}: {why}")]
    Vendor {
        /// The crate, with its version.
        krate: String,
        /// What is missing or wrong.
        why: String,
    },
    /// `cargo vendor` could not bring the crates.
    #[error("cargo vendor failed: {log}")]
    VendorCommand {
        /// The end of what it printed.
        log: String,
    },
    /// A command of Nix failed before anything was built.
    #[error("{program} failed: {why}")]
    Nix {
        /// Which command.
        program: String,
        /// What it says.
        why: String,
    },
    /// There is no compiler that can be used.
    #[error("no usable Rust toolchain: {0}")]
    Toolchain(String),
    /// None of the wanted targets can be built with this toolchain.
    #[error("this toolchain can't build any of {wanted:?}; add one with `rustup target add`")]
    NoTarget {
        /// What the source asks for.
        wanted: Vec<String>,
    },
    /// The build ended well and left no program where one is expected.
    #[error("the build succeeded, but made no {0}")]
    NoProgram(String),
    /// A bound of this crate.
    #[error("{what} is over {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// The warm recipe has nothing to start from.
    #[error("the checkout {checkout} can't be used for a warm build: {why}")]
    Checkout {
        /// The checkout.
        checkout: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The output folder is taken.
    #[error("{0} exists already and is not an empty folder")]
    OutputTaken(PathBuf),
    /// The sandbox could not be made or was lost.
    #[error("the build's sandbox could not be used")]
    Sandbox(#[from] SandboxError),
    /// A name that a release can't carry.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The built files don't make a valid target.
    #[error(transparent)]
    Files(#[from] RevealError),
    /// A document of ours can't be written or read.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The files could not be cut into blocks.
    #[error("can't cut {path} into blocks: {why}")]
    Chunks {
        /// The file.
        path: PathBuf,
        /// What the cutter says.
        why: String,
    },
    /// The disk.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Says what was being done to which path when the system refused it.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, BuildError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, BuildError> {
        self.map_err(|source| BuildError::Io {
            doing,
            path: path.to_owned(),
            source,
        })
    }
}

/// A rule about a file of the source that is broken.
pub(crate) fn project(file: impl Into<String>, why: impl Into<String>) -> BuildError {
    BuildError::Project {
        file: file.into(),
        why: why.into(),
    }
}
