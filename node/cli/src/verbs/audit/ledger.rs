//! The ledger of an audit, by stock git: fetched from a node or a clone, written into a `git bundle`, read from one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A transfer slower than this many bytes a second, for this many seconds, is given up.
const SLOW: (&str, &str) = ("1000", "30");
/// The branches that make a ledger: the newest block, and the certificate on top of it.
const BRANCHES: [&str; 2] = ["trunk", "tip"];
/// Where a repository has them: its own, or in a clone those of its origin.
const PLACES: [&str; 2] = ["refs/heads", "refs/remotes/origin"];

fn git(dir: &Path, args: &[&str]) -> Result<()> {
    let output = Command::new("git")
        .current_dir(dir)
        // A clone of somebody else's user is read too; no configuration of this user changes what is fetched.
        .args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null"])
        .args(["-c", &format!("http.lowSpeedLimit={}", SLOW.0)])
        .args(["-c", &format!("http.lowSpeedTime={}", SLOW.1)])
        .args(args)
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .context("git can't be started; is it installed?")?;
    ensure!(
        output.status.success(),
        "git {}: {}",
        args.first().copied().unwrap_or_default(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Fetches the ledger from a URL, a repository, a clone or a git bundle, into a new bare repository in `into`.
pub fn fetch(from: &str, into: &Path) -> Result<()> {
    std::fs::create_dir_all(into)?;
    git(
        into,
        &["init", "--quiet", "--bare", "--object-format=sha256"],
    )?;
    let from = if is_url(from) {
        from.to_owned()
    } else {
        let at = Path::new(from).canonicalize();
        at.with_context(|| from.to_owned())?.display().to_string()
    };
    let mut first_error = None;
    for place in PLACES {
        let refs = BRANCHES.map(|b| format!("+{place}/{b}:refs/heads/{b}"));
        // `--`: a name that begins with a dash is no option.
        let fetched = git(
            into,
            &[
                "fetch",
                "--quiet",
                "--no-tags",
                "--",
                &from,
                &refs[0],
                &refs[1],
            ],
        );
        match fetched {
            Ok(()) => return git(into, &["symbolic-ref", "HEAD", "refs/heads/trunk"]),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.context("no place to fetch from")?)
        .with_context(|| format!("no ledger in {from}"))
}

/// Writes the ledger as one file that stock git clones.
pub fn bundle(repository: &Path, out: &Path) -> Result<()> {
    let out = out.to_str().context("the folder's name is not UTF-8")?;
    git(
        repository,
        &[
            "bundle",
            "create",
            "--quiet",
            out,
            "HEAD",
            "refs/heads/trunk",
            "refs/heads/tip",
        ],
    )
}

/// Whether this is a URL and no path.
pub fn is_url(text: &str) -> bool {
    text.contains("://")
}

/// The node whose ledger this URL is.
pub fn node_of(url: &str) -> Option<String> {
    let base = url.trim_end_matches('/').strip_suffix("/ledger.git")?;
    (is_url(url) && base.starts_with("http")).then(|| base.to_owned())
}

/// A path that the program takes as an argument, absolute.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}
