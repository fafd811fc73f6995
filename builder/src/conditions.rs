//! The two sets of conditions under which a source is built: the second differs in everything that must not matter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use instar_attest::Digest;

use crate::error::{At, BuildError};
use crate::files::{Order, write_atomic};

/// What surrounds one build without being part of what is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// The name of the work folder on the host.
    pub outside: &'static str,
    /// The host name that the build sees.
    pub hostname: &'static str,
    /// The user name that the build sees.
    pub user: &'static str,
    /// The time zone.
    pub zone: &'static str,
    /// The locale.
    pub locale: &'static str,
    /// The umask, in octal.
    pub umask: &'static str,
    /// How many jobs cargo runs at once.
    pub jobs: usize,
    /// Whether the build may use one processor only.
    pub one_processor: bool,
    /// The order in which the source's files were made.
    pub order: Order,
    /// Whether the environment stands in reverse order.
    pub reversed_env: bool,
    /// By how much the clock goes ahead, in seconds.
    pub ahead_s: i64,
}

/// A year, a month, a day, an hour, a minute and a second: whatever part of the time a build writes down, it differs.
const AHEAD_S: i64 = (365 + 30 + 1) * 86_400 + 3_661;

impl Conditions {
    /// The canonical conditions, under which the released bytes are made.
    pub fn first(jobs: usize) -> Self {
        Self {
            outside: "one",
            hostname: "instar",
            user: "builder",
            zone: "UTC",
            locale: "C.UTF-8",
            umask: "022",
            jobs,
            one_processor: false,
            order: Order::Ascending,
            reversed_env: false,
            ahead_s: 0,
        }
    }

    /// The deliberately different ones.
    pub fn second() -> Self {
        Self {
            outside: "the-other-build/of/the-same-source",
            hostname: "elsewhere",
            user: "rebuilder",
            zone: "<+1345>-13:45",
            locale: "tr_TR.UTF-8",
            umask: "077",
            jobs: 1,
            one_processor: true,
            order: Order::Descending,
            reversed_env: true,
            ahead_s: AHEAD_S,
        }
    }
}

/// The source of a library that moves the clock of the programs into which it is loaded.
const CLOCK_SOURCE: &str = include_str!("clock.c");

/// Compiles the library that lets a build's clock go ahead, once for each cache; nothing if there is no C compiler that
/// can: linking would then fail as well, and says so better.
pub(crate) fn clock_library(cache: &Path) -> Result<Option<PathBuf>, BuildError> {
    let name = format!(
        "clock-{}.so",
        &Digest::of(CLOCK_SOURCE.as_bytes()).to_hex()[..16]
    );
    let library = cache.join(name);
    if library.is_file() {
        return Ok(Some(library));
    }
    fs::create_dir_all(cache).at("can't make", cache)?;
    let fresh = tempfile::tempdir_in(cache).at("can't make a folder in", cache)?;
    let source = fresh.path().join("clock.c");
    let made = fresh.path().join("clock.so");
    write_atomic(&source, CLOCK_SOURCE.as_bytes())?;
    let done = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&made)
        .arg(&source)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !done.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    fs::rename(&made, &library).at("can't keep", &library)?;
    Ok(Some(library))
}
