//! The nodes of a mother and her fork, and the dapps that run there.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::super::operators::{done, text};
use super::super::site::Site;

/// The mother's two validators, and the fork's one.
pub const NAMES: [&str; 3] = ["ann", "bob", "fay"];

/// Keeps a note of every author, those of forks apart.
pub const NOTES: &str = r#"
use instar_dapp::{Context, Dapp, Entry, Value, Verdict, object, text};

fn main() {
    instar_dapp::run(Notes);
}

struct Notes;

impl Dapp for Notes {
    fn apply(&mut self, ctx: &mut Context<'_>, entry: &Entry) -> Verdict {
        let Some(note) = entry.text("note") else {
            return Verdict::reject("no-note", "a note is a text");
        };
        let here = "here".to_owned();
        let chain = entry.chain.as_ref().unwrap_or(&here);
        ctx.put(format!("note/{chain}/{}", entry.author), note);
        Verdict::accept()
    }

    fn query(&mut self, ctx: &mut Context<'_>, question: &Value) -> Verdict {
        let of = |field| text(question, field).unwrap_or_default().to_owned();
        let note = ctx.get(&format!("note/{}/{}", of("chain"), of("author")));
        Verdict::answer(object([("note", note.map_or(Value::Null, Value::String))]))
    }
}
"#;

pub struct House(Site);

impl Deref for House {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0
    }
}

impl DerefMut for House {
    fn deref_mut(&mut self) -> &mut Site {
        &mut self.0
    }
}

impl House {
    pub fn new() -> Self {
        Self(Site::new(&NAMES))
    }

    /// Starts a node, and waits until it answers.
    pub fn begin(&mut self, i: usize) {
        self.start(i);
        self.until("a node answers", || self.height(i).is_some());
    }

    /// Sends an entry of the first account; its receipt.
    pub fn send(&self, i: usize, topic: &str, body: &Value) -> Value {
        let (url, key, body) = (self.url(i), self.at("account.json"), body.to_string());
        let args = [
            "send",
            topic,
            &body,
            "--key",
            text(&key),
            "--node",
            &url,
            "--json",
        ];
        let sent = done(&args);
        assert_eq!(sent["receipt"]["outcome"], "applied", "{sent}");
        sent["receipt"].clone()
    }

    pub fn ask(&self, i: usize, dapp: &str, question: &Value) -> Value {
        let (url, question) = (self.url(i), question.to_string());
        let args = [
            "dapp", "query", dapp, &question, "--final", "--node", &url, "--json",
        ];
        done(&args)["answer"].clone()
    }

    pub fn note(&self, i: usize, chain: &str, author: &str) -> Value {
        self.ask(i, "notes", &json!({"author": author, "chain": chain}))["note"].clone()
    }

    pub fn balance(&self, i: usize, account: &str) -> Value {
        self.ask(i, "coin", &json!({"account": account, "op": "balance"}))["balance"].clone()
    }
}

/// A release of a dapp, built from a commit as everybody does it.
pub fn build(house: &House, name: &str, files: &[(String, Vec<u8>)]) -> PathBuf {
    let source = house.at(&format!("{name}-source"));
    for (path, bytes) in files {
        let full = source.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, bytes).unwrap();
    }
    let commit = [
        "-c",
        "user.name=dev",
        "-c",
        "user.email=dev@example.invalid",
        "commit",
        "--quiet",
        "-m",
        name,
    ];
    let steps: [&[&str]; 3] = [
        &["init", "--quiet", "."],
        &["add", "--all", "--force", "."],
        &commit,
    ];
    for step in steps {
        git(&source, step);
    }
    let (slot, out) = (format!("dapps/{name}"), house.at(&format!("{name}-1")));
    done(&[
        "build",
        text(&source),
        "--rev",
        "HEAD",
        "--slot",
        &slot,
        "--number",
        "1",
        "--name",
        name,
        "--out",
        text(&out),
        "--json",
    ]);
    out
}

/// The coin as it is, and a dapp beside it that takes entries of forks.
pub fn releases(house: &House) -> Vec<PathBuf> {
    let coin: Vec<(String, Vec<u8>)> = instar::embedded::coin(1)
        .into_iter()
        .map(|(path, bytes)| (path.to_owned(), bytes.to_vec()))
        .collect();
    let manifest = json!({"abi": 1, "command": ["/bin/notes"], "foreign": true, "topic": "notes"});
    let notes: Vec<(String, Vec<u8>)> = coin
        .iter()
        .map(|(path, bytes)| match path.strip_prefix("coin/") {
            Some("src/main.rs") => ("notes/src/main.rs".to_owned(), NOTES.into()),
            Some("dapp.json") => ("notes/dapp.json".to_owned(), manifest.to_string().into()),
            rest => {
                let text = String::from_utf8(bytes.clone()).unwrap();
                let path = rest.map_or_else(|| path.clone(), |rest| format!("notes/{rest}"));
                (path, text.replace("coin", "notes").into())
            }
        })
        .collect();
    vec![build(house, "coin", &coin), build(house, "notes", &notes)]
}

pub fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(args)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "git {args:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap() + &complaint
}
