//! The nodes of a story that have no demo around them: a home each in one temporary folder, with ports of their own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use instar::client::Client;
use instar_node::home::Home;
use serde_json::Value;

use super::operators::{PATIENCE, done, ports, text};

/// Lines of each node's log that are shown when something does not come.
const SHOWN_LINES: usize = 40;

pub struct Site {
    dir: tempfile::TempDir,
    names: &'static [&'static str],
    ports: Vec<u16>,
    nodes: Vec<Option<Child>>,
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Site {
    pub fn new(names: &'static [&'static str]) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            names,
            ports: ports(names.len() * 3),
            nodes: names.iter().map(|_| None).collect(),
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub fn home(&self, i: usize) -> Home {
        Home::new(self.at(self.names[i]))
    }

    pub fn http(&self, i: usize) -> String {
        format!("127.0.0.1:{}", self.ports[i * 3])
    }

    pub fn url(&self, i: usize) -> String {
        format!("http://{}", self.http(i))
    }

    /// Where the consensus swarm (1) or the data swarm (2) listens.
    pub fn address(&self, i: usize, swarm: usize) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.ports[i * 3 + swarm])
    }

    /// Makes a validator's keys; its public file.
    pub fn keys(&self, i: usize) -> PathBuf {
        let (home, name) = (self.at(self.names[i]), self.names[i]);
        let (consensus, data) = (self.address(i, 1), self.address(i, 2));
        let mut words = vec!["key", "new", "--home", text(&home), "--name", name];
        words.extend(["--consensus", &consensus, "--data", &data]);
        let file = self.at(&format!("{name}.public"));
        fs::write(&file, done(&words).to_string()).unwrap();
        file
    }

    pub fn start(&mut self, i: usize) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file(i))
            .unwrap();
        let child = Command::new(instar_tests::instar())
            .args(["node", "run", "--home", text(&self.at(self.names[i]))])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.nodes[i] = Some(child);
    }

    pub fn kill(&mut self, i: usize) {
        if let Some(mut child) = self.nodes[i].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Height of a node's newest final block; none while it does not answer.
    pub fn height(&self, i: usize) -> Option<u64> {
        let status = Client::new(&self.url(i), None).status();
        status.ok().map(|s| s.height)
    }

    fn log_file(&self, i: usize) -> PathBuf {
        self.at(&format!("{}.log", self.names[i]))
    }

    pub fn log(&self, i: usize) -> String {
        fs::read_to_string(self.log_file(i)).unwrap_or_default()
    }

    /// Runs a verb against a node, with its token.
    pub fn verb(&self, i: usize, words: &[&str]) -> Value {
        let words = self.said(i, words);
        done(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The words of a verb with a node and its token.
    pub fn said(&self, i: usize, words: &[&str]) -> Vec<String> {
        let (url, token) = (self.url(i), self.home(i).token_file());
        let more = ["--json", "--node", &url, "--token-file", text(&token)];
        let all = words.iter().chain(&more);
        all.map(|word| (*word).to_owned()).collect()
    }

    #[track_caller]
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            if start.elapsed() > PATIENCE * 2 {
                panic!("{what}\n{}", self.told());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The ends of the logs.
    pub fn told(&self) -> String {
        let of = |i: usize| {
            let log = self.log(i);
            // Said by a library with each message while a peer is away.
            let lines = log
                .lines()
                .filter(|l| !l.contains("NoPeersSubscribedToTopic"));
            let mut end: Vec<&str> = lines.rev().take(SHOWN_LINES).collect();
            end.reverse();
            format!("{}:\n{}", self.names[i], end.join("\n"))
        };
        let all: Vec<String> = (0..self.names.len()).map(of).collect();
        all.join("\n--\n")
    }
}
