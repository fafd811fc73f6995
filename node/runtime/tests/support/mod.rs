//! Releases made of files, in a block store in memory.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use instar_attest::{ChainId, Digest, PublicKey, SecretKey, json};
use instar_chain::{
    DappCall, DappContext, DappEntry, DappFailure, DappHost, DappResult, MemoryState,
};
use instar_chunks::{Blocks, MemoryBlocks, Profile, TreeLink, add_file, tree_root};
use instar_runtime::{Question, Runtime};
use serde_json::{Value, json};

pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds a version of the coin dapp.
pub fn build_coin(version: u32) -> Vec<u8> {
    build(version, "coin")
}

/// Builds a dapp as everybody does it: without a network, static, from the embedded sources of that version.
pub fn build(version: u32, package: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in instar_runtime::embedded::coin_source(version).unwrap() {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let built = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--offline",
            "--locked",
            "--quiet",
            "--target",
            TARGET,
            "--package",
            package,
        ])
        .current_dir(folder.path())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .status()
        .unwrap();
    assert!(built.success());
    std::fs::read(
        folder
            .path()
            .join("target")
            .join(TARGET)
            .join("release")
            .join(package),
    )
    .unwrap()
}

/// Puts a release with one program into the store; returns its address.
pub fn release(blocks: &MemoryBlocks, name: &str, program: &[u8], manifest: &[u8]) -> String {
    let add = |bytes: &[u8]| {
        let mut put = |cid: &instar_chunks::Cid, block: &[u8]| {
            blocks.put(cid, block).map_err(std::io::Error::other)
        };
        add_file(Profile::InstarCdcV1, &mut &*bytes, &mut put).unwrap()
    };
    let mut links = BTreeMap::new();
    let mut file = |path: String, mode: &str, bytes: &[u8]| {
        let made = add(bytes);
        links.insert(
            path.clone(),
            TreeLink {
                cid: made.cid,
                dag_size: made.dag_size,
            },
        );
        let mut listed = json!({
            "cid": made.cid.to_string(), "dag_size": made.dag_size, "path": path,
            "sha256": Digest::of(bytes).to_hex(), "size": bytes.len(),
        });
        if !mode.is_empty() {
            listed["mode"] = json!(mode);
            listed["target"] = json!(TARGET);
        }
        listed
    };
    let files = [
        file(format!("{TARGET}/dapp.json"), "0644", manifest),
        file(format!("{TARGET}/rootfs/bin/{name}"), "0755", program),
    ];
    let sbom = file("sbom.cdx.json".to_owned(), "", b"{}");
    let listing = json::to_vec(&json!({
        "activation": "dapp", "chain": ChainId::from_bytes([1; 32]), "chunk_profile": "instar-cdc-v1", "files": files,
        "format": "instar-release-v1", "name": name, "number": 1, "protocol": 1, "sbom": sbom,
        "slot": format!("dapps/{name}"),
        "source": {"commit": "1".repeat(64), "format": "sha256", "tree": "2".repeat(64)},
    }))
    .unwrap();
    instar_attest::release::Release::parse(&listing).unwrap();
    let made = add(&listing);
    links.insert(
        "release.json".to_owned(),
        TreeLink {
            cid: made.cid,
            dag_size: made.dag_size,
        },
    );
    let (root, directories) = tree_root(&links).unwrap();
    for (cid, block) in directories {
        blocks.put(&cid, &block).unwrap();
    }
    root.to_string()
}

/// A host with its folder, which goes with it.
pub struct Host {
    pub runtime: Runtime,
    pub blocks: Arc<MemoryBlocks>,
    pub folder: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        let blocks = Arc::new(MemoryBlocks::default());
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(folder.path(), Arc::clone(&blocks)).unwrap();
        Self {
            runtime,
            blocks,
            folder,
        }
    }

    pub fn run(
        &mut self,
        dapp: &str,
        release: &str,
        state: &MemoryState,
        entries: Vec<DappEntry>,
    ) -> Result<DappResult, DappFailure> {
        self.runtime.run(DappCall {
            dapp,
            release,
            ctx: context(),
            entries,
            state,
            migrate: None,
        })
    }
}

/// Asks about the first of two whole states, of which the second is final.
pub fn ask(
    host: &mut Host,
    dapp: &str,
    release: &str,
    (state, trunk): (&MemoryState, &MemoryState),
    body: Value,
) -> Result<Value, DappFailure> {
    let question = Question {
        body,
        height: 7,
        time_ms: 1,
        state,
        trunk,
    };
    host.runtime.query(dapp, release, question)
}

pub fn context() -> DappContext {
    DappContext {
        chain: ChainId::from_bytes([1; 32]),
        height: 7,
        seed: Digest::of(b"seed"),
        time_ms: 1_800_000_000_000,
    }
}

pub fn account(seed: u8) -> PublicKey {
    SecretKey::from_seed(&[seed; 32]).public()
}

pub fn entry(topic: &str, author: PublicKey, nonce: u64, body: Value) -> DappEntry {
    let id = Digest::of(format!("{author}{nonce}").as_bytes());
    DappEntry {
        author,
        body,
        chain: None,
        id,
        nonce,
        topic: topic.to_owned(),
    }
}

/// Compiles one file into a static program.
pub fn compile(source: &Path) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let compiled = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "--target",
            TARGET,
            "-o",
        ])
        .arg(&program)
        .arg(source)
        .status()
        .unwrap();
    assert!(compiled.success());
    std::fs::read(program).unwrap()
}

/// Set for the runs in other situations.
pub const SITUATION: &str = "INSTAR_RUNTIME_SITUATION";

/// An id that no account has.
const ORDINARY_USER: u32 = 54321;

/// Runs this test again as an ordinary user and inside `unshare -rn`. What it needs stands in `folder`.
pub fn elsewhere(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let run = |situation: &str, command: &mut Command| {
        let command = command
            .env(SITUATION, situation)
            .env_remove("TMPDIR")
            .current_dir(folder);
        assert!(
            command.status().unwrap().success(),
            "it failed as {situation}"
        );
    };
    if nix::unistd::geteuid().is_root() {
        run(
            "user",
            Command::new(&copy).uid(ORDINARY_USER).gid(ORDINARY_USER),
        );
    }
    run("unshared", Command::new("unshare").arg("-rn").arg(&copy));
}
