//! The developer's git repositories of the demo, made with stock git from the sources that the program carries.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs git in `dir`, away from the user's configuration, and returns what it prints.
pub fn git(dir: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=Demo Developer",
            "-c",
            "user.email=developer@demo.invalid",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .output()
        .context("git can't be started; install git")?;
    if !output.status.success() {
        bail!(
            "git {} failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes `files` over the work tree and commits; returns the commit id.
pub fn commit_files(dir: &Path, files: &[(&str, &[u8])], message: &str) -> Result<String> {
    if !dir.join(".git").exists() {
        std::fs::create_dir_all(dir)?;
        git(dir, &["init", "--quiet", "--initial-branch=main", "."])?;
    }
    for (path, bytes) in files {
        let full = dir.join(path);
        if let Some(parent) = full.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&full, bytes).with_context(|| full.display().to_string())?;
    }
    git(dir, &["add", "--all", "--force", "."])?;
    git(dir, &["commit", "--quiet", "-m", message])?;
    git(dir, &["rev-parse", "HEAD"])
}
