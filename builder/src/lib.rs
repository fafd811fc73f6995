//! Recipes, hermetic builds, rebuild-and-compare, SBOM and release assembly.
//!
//! [`build`] takes a commit of a git repository to a release folder: the tree is written out exactly as git stores it,
//! its crates are checked against the lock file, and it is built in the sandbox twice, under conditions that differ in
//! everything that must not matter. What comes of it is one of three things: equal, different with an explanation, or
//! failed with a log. Formats and environment are described in `docs/formats/builder.md`.
//!
//! Invariant: nothing of a source is executed outside the sandbox, and nothing of a build's machine, time or toolchain
//! gets into a release.

mod assemble;
mod build;
mod compare;
mod conditions;
mod diffoscope;
mod error;
mod explain;
mod files;
mod hermetic;
mod lock;
mod nix;
mod project;
pub mod record;
mod remote;
mod sbom;
pub mod source;
mod submodule;
mod toolchain;
mod vendor;
mod verify;
mod warm;

pub use assemble::{DEBUG_FOLDER, RELEASE_FOLDER};
pub use build::{
    BuildOutcome, BuildRequest, Built, DifferentBuild, FailedBuild, How, LOG_TAIL_LINES, Prepared,
    Progress, build,
};
pub use compare::FileDifference;
pub use error::BuildError;
pub use explain::Cause;
pub use lock::{Lock, Package};
pub use project::{Kind, PROJECT_FILE, Project, RecipeChoice};
pub use record::{
    BuildRecord, BuiltTarget, MAX_RECORD_BYTES, RECIPE_CARGO, RECIPE_CARGO_WARM, RECIPE_NIX,
    RECORD_FILE, RecordFormat, SystemFacts, SystemFile, ToolchainFacts, WarmFacts,
};
pub use remote::{bring, is_url, without_credentials};
pub use sbom::{FORMAT_VERSION as SBOM_FORMAT_VERSION, sbom};
pub use source::{Commit, extract, resolve, resolve_dirty};
pub use toolchain::Toolchain;
pub use vendor::{VendorFacts, Vendored};
pub use verify::{Claimed, verify_rebuild};
