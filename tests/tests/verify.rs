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

/// Policies are refused with the field's name, before anything is verified by them.
#[test]
fn policies_that_can_not_be_used_are_refused_by_name() {
    let place = Place::new();
    let good: Value =
        serde_json::from_slice(&std::fs::read(place.path("policy.json")).unwrap()).unwrap();
    let refused = |change: &dyn Fn(&mut Value), words: &str| {
        let mut policy = good.clone();
        change(&mut policy);
        std::fs::write(place.path("bad.json"), policy.to_string()).unwrap();
        for verb in [
            vec!["policy", "check", "bad.json"],
            vec![
                "verify",
                "out",
                "--policy",
                "bad.json",
                "--bundle",
                "a.sigstore.json",
            ],
        ] {
            let done = place.run(&verb);
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.status.code(), Some(1), "{verb:?}: {said}");
            assert!(said.contains(words), "{verb:?}: {said}");
        }
    };
    refused(&|p| p["builders"]["thresold"] = json!(1), "thresold");
    refused(&|p| p["builders"]["threshold"] = json!(0), "threshold of 0");
    refused(&|p| p["builders"]["threshold"] = json!(3), "threshold of 3");
    let reviews = json!({"threshold": 0, "of": [{"name": "m", "ssh": "ssh-ed25519 AAAA"}]});
    refused(&|p| p["reviews"] = reviews.clone(), "ssh-ed25519");

    // Hiding a builder does not make the other one all of them.
    let one = place.run(&[
        "verify",
        "out",
        "--policy",
        "policy.json",
        "--bundle",
        "a.sigstore.json",
    ]);
    assert_eq!(one.status.code(), Some(1));
    let said = String::from_utf8_lossy(&one.stdout).into_owned();
    assert!(
        said.contains("1 of 2 builders by distinct operators, 2 needed"),
        "{said}"
    );
    // Nor is one builder twice two of them.
    let twice = place.run(&[
        "verify",
        "out",
        "--policy",
        "policy.json",
        "--bundle",
        "a.sigstore.json",
        "a.sigstore.json",
    ]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&twice.stdout).contains("attestation-duplicate"));
}

/// GitLab's facts, a review by SSH, a test result, and a statement that names a file twice.
#[test]
fn facts_reviews_tests_and_a_name_that_stands_twice() {
    let place = Place::new();
    let job = |key: &str| {
        let done = Command::new(instar_tests::instar())
            .args([
                "attest",
                "out",
                "--key",
                key,
                "--repository",
                "https://git.example.org/tool.git",
            ])
            .current_dir(place.dir.path())
            .env("INSTAR_KEY_PASSPHRASE", "words that nobody guesses")
            .env("GITLAB_CI", "true")
            .env("CI_PROJECT_PATH", "chain/builder")
            .env("CI_COMMIT_REF_PROTECTED", "true")
            .env("CI_JOB_URL", "https://gitlab.example.org/j/7")
            .status();
        assert!(done.unwrap().success());
        place.path("out/provenance.sigstore.json")
    };
    std::fs::rename(job("a.json"), place.path("a.sigstore.json")).unwrap();
    let answer = place.verify("out", &["--json"]);
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let ci = &answer["signers"][0]["ci"];
    assert_eq!(
        (&ci["project"], &ci["protected"]),
        (&json!("chain/builder"), &json!(true))
    );

    // A maintainer's review, with stock ssh-keygen; and a test result by a third key.
    let key = place.path("maintainer");
    let keygen = |args: &[&str]| {
        let done = Command::new("ssh-keygen")
            .args(args)
            .current_dir(place.dir.path())
            .output();
        assert!(done.as_ref().unwrap().status.success(), "{done:?}");
    };
    keygen(&[
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        "m",
        "-f",
        key.to_str().unwrap(),
    ]);
    let commit = answer["commit"].as_str().unwrap();
    std::fs::write(place.path("line"), format!("instar/review/v1 {commit}\n")).unwrap();
    keygen(&[
        "-q",
        "-Y",
        "sign",
        "-n",
        "instar-review",
        "-f",
        "maintainer",
        "line",
    ]);
    place.ok(&["key", "new", "builder", "-o", "tester.json"]);
    place.ok(&["attest", "out", "--key", "tester.json", "--tested", "pass"]);
    let shown = place.ok(&["key", "show", "tester.json", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let mut policy: Value =
        serde_json::from_slice(&std::fs::read(place.path("policy.json")).unwrap()).unwrap();
    let public = std::fs::read_to_string(place.path("maintainer.pub")).unwrap();
    policy["reviews"] = json!({"threshold": 1, "of": [{"name": "m", "ssh": public.trim()}]});
    let tester = json!({"name": "lab", "operator": "lab", "key": shown["public"]});
    policy["tests"] = json!({"threshold": 1, "of": [tester]});
    std::fs::write(place.path("policy.json"), policy.to_string()).unwrap();
    place.refused("out", "reviews-threshold");
    let test = "out/test-result.sigstore.json";
    let all = place.verify("out", &["--review", "line.sig", "--bundle", test]);
    assert!(all.status.success(), "{all:?}");
    let untested = place.verify("out", &["--review", "line.sig"]);
    assert!(
        String::from_utf8_lossy(&untested.stderr).contains("tests-threshold"),
        "{untested:?}"
    );

    // Two files of one name: the same subject twice, whatever the signature says.
    let mut bundle: Value =
        serde_json::from_slice(&std::fs::read(place.path("a.sigstore.json")).unwrap()).unwrap();
    let decoded = base64(
        &["-d"],
        bundle["dsseEnvelope"]["payload"]
            .as_str()
            .unwrap()
            .as_bytes(),
    );
    let mut statement: Value = serde_json::from_slice(&decoded).unwrap();
    let first = statement["subject"][0].clone();
    statement["subject"].as_array_mut().unwrap().push(first);
    let encoded = base64(&["-w0"], statement.to_string().as_bytes());
    bundle["dsseEnvelope"]["payload"] = json!(String::from_utf8(encoded).unwrap().trim());
    std::fs::write(place.path("a.sigstore.json"), bundle.to_string()).unwrap();
    place.refused("out", "stands there twice");
}

fn base64(args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new("base64")
        .args(args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}
