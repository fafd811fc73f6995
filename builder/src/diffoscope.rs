//! diffoscope, where it is installed: a whole report beside the short explanation.
//!
//! What it takes apart was made by code of the source, so it runs in the sandbox like that code did.

use std::fs;
use std::path::{Path, PathBuf};

use instar_sandbox::{Job, Limits, Mount, Profile, Root, Stream};

use crate::error::{At, BuildError};
use crate::hermetic::{limits, run, system_mounts};

/// Where distributions install it; a program from somewhere else would need a mount of its own.
const PROGRAM: &str = "/usr/bin/diffoscope";
/// How long it may take; on large programs it is slow, and the short explanation is there anyway.
const MAX_MS: u64 = 10 * 60 * 1000;
/// The report's name in the output folder.
const REPORT: &str = "diffoscope.txt";

/// Compares both folders; the report, or nothing where diffoscope is not installed or did not come to an end.
pub(crate) fn diffoscope(kept: &[PathBuf; 2], out: &Path) -> Result<Option<PathBuf>, BuildError> {
    if !Path::new(PROGRAM).is_file() {
        return Ok(None);
    }
    let absolute = |at: &PathBuf| at.canonicalize().at("can't find", at);
    let mut mounts = system_mounts();
    mounts.push(Mount::read_only(absolute(&kept[0])?, "/first"));
    mounts.push(Mount::read_only(absolute(&kept[1])?, "/second"));
    let job = Job {
        root: Root::Empty,
        mounts,
        argv: [PROGRAM, "--no-progress", "--text", "-", "/first", "/second"]
            .map(str::to_owned)
            .into(),
        env: [
            ("HOME", "/tmp"),
            ("LANG", "C.UTF-8"),
            ("PATH", "/usr/bin:/bin"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        cwd: "/tmp".into(),
        hostname: "instar".into(),
        limits: Limits {
            wall_ms: MAX_MS,
            ..limits()
        },
        profile: Profile::Build,
        stdin: Stream::Null,
        stdout: Stream::Pipe,
        stderr: Stream::Null,
    };
    let report = out.join(REPORT);
    run(&job, false, &report, &mut |_| ())?;
    let size = fs::metadata(&report).at("can't look at", &report)?.len();
    if size == 0 {
        fs::remove_file(&report).at("can't remove", &report)?;
        return Ok(None);
    }
    Ok(Some(report))
}
