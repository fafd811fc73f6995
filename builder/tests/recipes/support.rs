//! Sources in git repositories, made with stock git, and requests to build them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use instar_attest::release::{ProgramName, Slot};
use instar_builder::{BuildOutcome, BuildRequest, Built, How, Progress};

/// One cache for all tests, as on a real builder: hashing the toolchain takes long without optimisation.
pub fn cache() -> &'static Path {
    static CACHE: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    CACHE.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

pub struct Place {
    pub dir: tempfile::TempDir,
}

pub fn place() -> Place {
    Place {
        dir: tempfile::tempdir().unwrap(),
    }
}

impl Place {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A repository with one commit of these files.
    pub fn repository(&self, name: &str, format: &str, files: &[(&str, &str)]) -> PathBuf {
        let at = self.path(name);
        fs::create_dir_all(&at).unwrap();
        git(&at, &["init", "-q", &format!("--object-format={format}")]);
        write(&at, files);
        commit(&at);
        at
    }

    pub fn request(&self, repository: &Path, out: &str) -> BuildRequest {
        BuildRequest {
            repository: repository.to_owned(),
            revision: "HEAD".into(),
            slot: Some(Slot::new("dapps/tiny").unwrap()),
            number: 2,
            name: Some(ProgramName::new("tiny").unwrap()),
            allow_dirty: false,
            how: How::Cargo,
            out: self.path(out),
            cache: cache().to_owned(),
            jobs: 2,
        }
    }

    pub fn build(&self, repository: &Path, out: &str) -> BuildOutcome {
        instar_builder::build(&self.request(repository, out), &mut quiet).unwrap()
    }
}

pub fn quiet(_: Progress<'_>) {}

pub fn write(at: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let file = at.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

pub fn commit(at: &Path) {
    git(at, &["add", "-A"]);
    git(
        at,
        &[
            "-c",
            "user.name=d",
            "-c",
            "user.email=d@example.org",
            "commit",
            "-q",
            "-m",
            "a change",
        ],
    );
}

pub fn git(at: &Path, args: &[&str]) {
    let done = Command::new("git")
        .args(args)
        .current_dir(at)
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

pub const CARGO: &str = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
pub const LOCK: &str = "version = 4\n\n[[package]]\nname = \"tiny\"\nversion = \"0.1.0\"\n";
pub const MAIN: &str = "fn main() { println!(\"hello from {}\", file!()); }\n";

/// A crate whose build script writes `value` into the program.
pub fn with_build_script(value: &str) -> String {
    format!(
        "fn main() {{\n    let value: String = {{ {value} }};\n    \
         std::fs::write(format!(\"{{}}/value\", std::env::var(\"OUT_DIR\").unwrap()), value).unwrap();\n}}\n"
    )
}

pub const MAIN_WITH_VALUE: &str =
    "fn main() { println!(\"{}\", include_str!(concat!(env!(\"OUT_DIR\"), \"/value\"))); }\n";

pub fn equal(outcome: BuildOutcome) -> Box<Built> {
    match outcome {
        BuildOutcome::Equal(built) => built,
        other => panic!("not equal: {other:#?}"),
    }
}
