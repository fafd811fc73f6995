//! A release off the ledger, by the program alone: built, attested, verified, and attacked. Attacks on bundles are in
//! `attest/tests`; here are those that need a folder.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const TARGET: &str = "x86_64-unknown-linux-gnu";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A repository with one program, built, and attested by two builders, one of whose keys is sealed.
    fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let source = place.path("source");
        std::fs::create_dir_all(source.join("src")).unwrap();
        let files = [
            (
                "Cargo.toml",
                "[package]\nname = \"tool\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
            ),
            (
                "Cargo.lock",
                "version = 4\n\n[[package]]\nname = \"tool\"\nversion = \"0.1.0\"\n",
            ),
            ("src/main.rs", "fn main() { println!(\"a tool\"); }\n"),
        ];
        for (path, text) in files {
            std::fs::write(source.join(path), text).unwrap();
        }
        place.git(&["init", "-q", "-b", "main"]);
        place.git(&["add", "-A"]);
        place.git(&[
            "-c",
            "user.name=d",
            "-c",
            "user.email=d@example.org",
            "commit",
            "-qm",
            "a tool",
        ]);
        place.ok(&[
            "build", "source", "--out", "out", "--cache", "cache", "--rev", "main",
        ]);
        place.ok(&["key", "new", "builder", "-o", "a.json"]);
        place.ok(&["key", "new", "builder", "-o", "b.json", "--seal"]);
        let url = "https://git.example.org/tool.git";
        for key in ["a", "b"] {
            let file = format!("{key}.json");
            place.ok(&["attest", "out", "--key", &file, "--repository", url]);
            let bundle = place.path("out/provenance.sigstore.json");
            std::fs::rename(bundle, place.path(&format!("{key}.sigstore.json"))).unwrap();
        }
        let party = |key: &str| {
            let shown = place.ok(&["key", "show", &format!("{key}.json"), "--json"]);
            let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
            json!({"name": key, "operator": key, "key": shown["public"]})
        };
        let policy = json!({
            "format": "instar-release-policy-v1",
            "recipes": ["cargo-vendored-v1"],
            "builders": {"threshold": 2, "of": [party("a"), party("b")]},
            "source": {"repository": url, "refs": ["refs/heads/main"]},
            "targets": [TARGET],
        });
        std::fs::write(place.path("policy.json"), policy.to_string()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn git(&self, args: &[&str]) {
        let done = Command::new("git")
            .args(args)
            .current_dir(self.path("source"))
            .status();
        assert!(done.unwrap().success(), "git {args:?}");
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(instar_tests::instar())
            .args(args)
            .current_dir(self.dir.path())
            .env("INSTAR_KEY_PASSPHRASE", "words that nobody guesses")
            .env_remove("GITLAB_CI")
            .output()
            .unwrap()
    }

    fn ok(&self, args: &[&str]) -> Output {
        let done = self.run(args);
        assert!(
            done.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        done
    }

    fn verify(&self, folder: &str, more: &[&str]) -> Output {
        let mut args = vec![
            "verify",
            folder,
            "--policy",
            "policy.json",
            "--bundle",
            "a.sigstore.json",
        ];
        args.extend(["b.sigstore.json"]);
        args.extend(more);
        self.run(&args)
    }

    fn refused(&self, folder: &str, words: &str) {
        let done = self.verify(folder, &[]);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        assert!(said.contains(words), "{said}");
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(done.unwrap().success());
}

#[test]
fn a_release_is_verified_by_the_program_alone_and_attacks_are_refused() {
    let place = Place::new();
    let good = place.verify("out", &["--json"]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let answer: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(answer["ok"], json!(true));
    assert_eq!(answer["signers"].as_array().unwrap().len(), 2);
    // The release's own folder is as good as the one around it.
    assert!(place.verify("out/release", &[]).status.success());

    let program = format!("{TARGET}/tool");
    let fresh = |name: &str| {
        copy(&place.path("out/release"), &place.path(name));
        place.path(name)
    };
    let changed = fresh("changed_byte");
    let mut bytes = std::fs::read(changed.join(&program)).unwrap();
    bytes[4000] ^= 1;
    std::fs::write(changed.join(&program), bytes).unwrap();
    place.refused("changed_byte", "subject-differs");

    let link = fresh("symlink_as_artifact");
    let elsewhere = place.path("elsewhere");
    std::fs::rename(link.join(&program), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, link.join(&program)).unwrap();
    place.refused("symlink_as_artifact", "is a symbolic link");

    let added = fresh("an_added_file");
    std::fs::write(added.join(format!("{TARGET}/evil")), "x").unwrap();
    place.refused("an_added_file", "0 of 2 builders");

    let large = std::fs::File::create(place.path("huge.sigstore.json")).unwrap();
    large.set_len(1 << 40).unwrap();
    let done = place.run(&[
        "verify",
        "out",
        "--policy",
        "policy.json",
        "--bundle",
        "a.sigstore.json",
        "huge.sigstore.json",
    ]);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&done.stdout).contains("at most"),
        "{done:?}"
    );

    let nothing = place.run(&["verify", "out"]);
    assert_eq!(nothing.status.code(), Some(2), "a policy is asked for");
}

#[test]
fn keys_rebuilds_and_dirty_trees() {
    let place = Place::new();
    // The key out of a variable, and a sealed one without its passphrase.
    let text = std::fs::read_to_string(place.path("a.json")).unwrap();
    let with = |variable: &str, value: &str, key: &str| {
        Command::new(instar_tests::instar())
            .args(["attest", "out", "--key", key])
            .current_dir(place.dir.path())
            .env_remove("INSTAR_KEY_PASSPHRASE")
            .env(variable, value)
            .output()
            .unwrap()
    };
    assert!(
        with("BUILDER_KEY", &text, "env:BUILDER_KEY")
            .status
            .success()
    );
    let sealed = with("X", "", "b.json");
    assert_eq!(sealed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&sealed.stderr).contains("INSTAR_KEY_PASSPHRASE"));

    place.ok(&[
        "verify",
        "--rebuild",
        "out",
        "--repository",
        "source",
        "--out",
        "again",
        "--cache",
        "cache",
    ]);
    let program = format!("out/release/{TARGET}/tool");
    std::fs::write(place.path(&program), "other bytes").unwrap();
    let lied = place.run(&[
        "verify",
        "--rebuild",
        "out",
        "--repository",
        "source",
        "--out",
        "third",
        "--cache",
        "cache",
    ]);
    assert_eq!(lied.status.code(), Some(1), "{lied:?}");

    std::fs::write(
        place.path("source/src/main.rs"),
        "fn main() { println!(\"not committed\"); }\n",
    )
    .unwrap();
    place.ok(&[
        "build",
        "source",
        "--allow-dirty",
        "--out",
        "dirty",
        "--cache",
        "cache",
    ]);
    let refused = place.run(&["attest", "dirty", "--key", "a.json"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("can't be attested"));
}
