//! Sources that lie elsewhere: brought by stock git into a bare repository of the cache.
//!
//! Stock git, because it knows the user's credentials and proxies. What it brings is objects, and an object is what its id
//! says; nothing of a repository is executed or checked out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use instar_attest::Digest;

use crate::error::{At, BuildError};

/// How much of git's words an error carries.
const MAX_WORDS: usize = 2000;

/// Whether this names a repository elsewhere: a URL, or the short form of ssh. What is there as a folder is a folder.
pub fn is_url(place: &str) -> bool {
    if Path::new(place).exists() {
        return false;
    }
    place.contains("://")
        || place.split_once(':').is_some_and(|(host, path)| {
            host.contains('@') && !host.contains('/') && !path.is_empty()
        })
}

/// The URL without a user's name or password, as it may be published.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Brings a repository into `cache`, or what is new in it; the place of the bare repository.
pub fn bring(url: &str, cache: &Path) -> Result<PathBuf, BuildError> {
    if url.starts_with('-') {
        return Err(failed(url, "that is an option, not a URL"));
    }
    let folder = cache.join("repositories");
    std::fs::create_dir_all(&folder).at("can't make", &folder)?;
    let at = folder.join(format!(
        "{}.git",
        &Digest::of(url.as_bytes()).to_hex()[..32]
    ));
    if at.join("HEAD").is_file() {
        let refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        let at_text = at.display().to_string();
        let mut args = vec!["-C", &at_text, "fetch", "--quiet", "--prune", "--", url];
        args.extend(refs);
        git(url, &args)?;
    } else {
        // Made under another name, so that a clone that was broken off is not taken for one.
        let fresh = tempfile::tempdir_in(&folder).at("can't make a folder in", &folder)?;
        let new = fresh.path().join("new.git");
        let text = new.display().to_string();
        git(url, &["clone", "--quiet", "--bare", "--", url, &text])?;
        std::fs::rename(&new, &at).at("can't keep", &at)?;
    }
    Ok(at)
}

fn git(url: &str, args: &[&str]) -> Result<(), BuildError> {
    let done = Command::new("git")
        // `ext::` runs any command; a URL is not a command line.
        .args([
            "-c",
            "protocol.ext.allow=never",
            "-c",
            "core.hooksPath=/dev/null",
        ])
        .args(args)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(url, &e.to_string()))?;
    if done.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&done.stderr).replace(url, &without_credentials(url));
    Err(failed(url, words.trim()))
}

fn failed(url: &str, why: &str) -> BuildError {
    BuildError::Bring {
        url: without_credentials(url),
        why: why.chars().take(MAX_WORDS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_folders() {
        for url in [
            "https://a.example/x.git",
            "git@a.example:x.git",
            "file:///x",
        ] {
            assert!(is_url(url), "{url}");
        }
        for folder in [".", "/tmp", "../a", "a/b:c"] {
            assert!(!is_url(folder), "{folder}");
        }
    }

    #[test]
    fn credentials_are_not_published() {
        for (url, public) in [
            (
                "https://ci:token@a.example/x@y.git",
                "https://a.example/x@y.git",
            ),
            ("https://a.example/x.git", "https://a.example/x.git"),
            ("git@a.example:x.git", "git@a.example:x.git"),
        ] {
            assert_eq!(without_credentials(url), public);
        }
        let cache = tempfile::tempdir().unwrap();
        let error = bring("https://ci:s3cret@127.0.0.1:1/x.git", cache.path()).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
