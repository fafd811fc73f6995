//! "I have this and want that", by the program alone: a server that makes deltas, and clients that have the older release.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

fn instar() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_instar"));
    command.env_remove("INSTAR_NODE").env_remove("INSTAR_STORE");
    command
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Two releases whose program differs in a few bytes everywhere, so that no chunk of it stays.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut state = 7_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let mut program: Vec<u8> = (0..1_200_000).map(|_| next()).collect();
        for name in ["old", "new"] {
            let folder = dir.path().join(name);
            fs::create_dir_all(folder.join("linux")).unwrap();
            fs::write(folder.join("linux/node"), &program).unwrap();
            fs::write(folder.join("release.json"), name).unwrap();
            for at in (500..program.len()).step_by(5_000) {
                program[at] ^= 0x55;
            }
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn add(&self, what: &str, store: &str) -> String {
        let output = instar()
            .arg("add")
            .arg(self.path(what))
            .arg("--store")
            .arg(self.path(store))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// `instar get`: what it printed, or what it said.
    fn get(&self, cid: &str, out: &str, more: &[&str]) -> Result<Value, String> {
        let output = instar()
            .args(["get", cid, "--json", "-o"])
            .arg(self.path(out))
            .arg("--store")
            .arg(self.path(&format!("store-{out}")))
            .args(more)
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    fn same(&self, got: &str, wanted: &str) {
        assert!(
            fs::read(self.path(got)).unwrap() == fs::read(self.path(wanted)).unwrap(),
            "{got} reads otherwise than {wanted}"
        );
    }
}

struct Server(Child);

impl Server {
    fn start(store: &Path, more: &[&str]) -> (Self, String) {
        let mut child = instar()
            .args(["store", "serve", "--peer", "/ip4/127.0.0.1/tcp/0", "--json"])
            .arg("--store")
            .arg(store)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let served: Value = serde_json::from_str(&line).unwrap();
        let address = served["peer"][0].as_str().unwrap().to_owned();
        (Self(child), address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Longer than any machine takes to make a delta of a megabyte; nobody waits so long if it is there.
const LONG: &str = "300";

#[test]
fn who_has_the_old_one_gets_the_new_one_by_a_delta() {
    let world = World::new();
    let old = world.add("old", "served");
    let new = world.add("new", "served");
    let (_server, peer) = Server::start(&world.path("served"), &["--deltas"]);

    // It is made while the client waits; no block is fetched but the nodes.
    let have = world.text("old");
    let from = ["--peer", &peer, "--have", &have, "--delta-wait", LONG];
    let report = world.get(&new, "first", &from).unwrap();
    let delta = &report["delta"];
    let bytes = delta["bytes"]
        .as_u64()
        .unwrap_or_else(|| panic!("{report}"));
    assert!(
        delta["instead_of"].as_u64().unwrap() > 20 * bytes,
        "{report}"
    );
    assert!(peer.ends_with(delta["peer"].as_str().unwrap()), "{report}");
    assert_eq!(report["fetched_blocks"], 0, "{report}");
    world.same("first/linux/node", "new/linux/node");
    world.same("first/release.json", "new/release.json");

    // The next client finds it made, and one whose store holds the old one needs no folder.
    world.add("old", "store-second");
    let from = ["--peer", &peer, "--have", &old, "--delta-wait", "0"];
    let report = world.get(&new, "second", &from).unwrap();
    assert_eq!(report["delta"]["bytes"], bytes, "{report}");
    world.same("second/linux/node", "new/linux/node");

    // One file of it, from one file.
    let have = world.text("old/linux/node");
    let from = ["--peer", &peer, "--have", &have, "--delta-wait", LONG];
    let report = world
        .get(&format!("{new}/linux/node"), "file", &from)
        .unwrap();
    assert!(report["delta"]["bytes"].is_u64(), "{report}");
    world.same("file", "new/linux/node");
}

#[test]
fn where_there_is_no_delta_the_blocks_come() {
    let world = World::new();
    world.add("old", "served");
    let new = world.add("new", "served");
    // This one makes none.
    let (server, peer) = Server::start(&world.path("served"), &[]);
    let have = world.text("old");
    let report = world
        .get(&new, "first", &["--peer", &peer, "--have", &have])
        .unwrap();
    assert!(report["delta"]["why_not"].is_string(), "{report}");
    assert!(report["fetched_blocks"].as_u64().unwrap() > 10, "{report}");
    world.same("first/linux/node", "new/linux/node");
    drop(server);

    // And this one has never seen what the client has.
    let (_server, peer) = Server::start(&world.path("served"), &["--deltas"]);
    fs::write(world.path("stranger"), "something else").unwrap();
    let have = world.text("stranger");
    let report = world
        .get(&new, "second", &["--peer", &peer, "--have", &have])
        .unwrap();
    assert!(report["delta"]["why_not"].is_string(), "{report}");
    world.same("second/linux/node", "new/linux/node");

    let have = world.text("old");
    let error = world.get(&new, "third", &["--have", &have]).unwrap_err();
    assert!(error.contains("--have needs a peer"), "{error}");
}
