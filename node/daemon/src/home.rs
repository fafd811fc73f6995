//! A node's home folder: where everything of one node lies, and its configuration file.
//!
//! ```text
//! node.json        addresses, peers, timings
//! token            the API's write token, mode 0600
//! keys/            one file a purpose
//! ledger.git/      the chain, a bare SHA-256 git repository
//! mother.git       of a fork: its mother's history, unless that is read from elsewhere
//! mother.state     of a fork: its mother's state where it begins, for those who join later
//! state.redb       the authenticated state
//! base.json        what the history begins with, if not with genesis
//! joining/         a snapshot that is on its way
//! snapshots/       lists of the snapshots that this node offers; can be deleted
//! index.redb       where each entry's receipt stands; can be deleted, is made again
//! blocks.redb      index and pins of IPFS blocks
//! blocks.segments/ the blocks, compressed
//! images/          dapp images, unpacked and checked
//! staged/          releases that were fetched and verified
//! deltas/          deltas that were made for peers; can be deleted
//! wal/             the consensus write-ahead log
//! marks/           high-water marks: never part of a backup
//! upgrader/        the upgrader's own folder
//! ```

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use instar_attest::{ChainId, Purpose, SecretKey};
use instar_ipfs::dht::DhtConfig;
use serde::{Deserialize, Serialize};

/// Bytes of `node.json` that are read at most: a few hundred peers.
const MAX_CONFIG_BYTES: u64 = 256 << 10;

/// How many blocks lie between two snapshots that a node offers. Who joins replays half of that on average; each one
/// reads the whole state.
pub const SNAPSHOT_EVERY: u64 = 1_024;
/// Heights whose state can still be read: rehearsals and certificates look back a few blocks, readers a little more.
pub const STATES_KEPT: u64 = 1_024;
/// Blocks that are kept: days of a chain that is used, and more than ten of one that only beats.
pub const HISTORY_KEPT: u64 = 100_000;
/// So many times the distance of two snapshots are kept at least.
const SNAPSHOTS_OF_HISTORY: u64 = 3;
/// The shortest window: what a vote, a rehearsal and a snapshot under way look back at.
pub const MIN_STATES_KEPT: u64 = 64;

/// A peer as this node reaches it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerAddress {
    /// Its name on the ledger.
    pub name: String,
    /// Multiaddress of its consensus swarm.
    pub consensus: String,
    /// Multiaddress of its data swarm.
    pub data: String,
}

/// When the node votes yes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutoVoteSetting {
    /// Never: the operator votes.
    Off,
    /// Only where the own build gave the same bytes.
    #[default]
    OwnBuild,
    /// Also where the policy did not ask the own builder: then the attestations of those asked are enough.
    Attested,
}

/// `node.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// When the node votes yes by itself.
    #[serde(default)]
    pub auto_vote: AutoVoteSetting,
    /// The validator's name on the ledger.
    pub name: String,
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Multiaddress where the consensus swarm listens.
    pub consensus: String,
    /// Multiaddress where the data swarm listens.
    pub data: String,
    /// Seconds that peers are given to make a delta to a new release, before its blocks are fetched. On a slow line a delta
    /// is worth a minute; with 0 only one that is there already is taken.
    #[serde(default)]
    pub delta_patience_s: u64,
    /// The DHT to look for releases in that no peer of the chain has, and to announce what this node has; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dht: Option<DhtConfig>,
    /// Seconds after which a node that is stuck ends itself, to be started again; 0: never.
    #[serde(default = "stuck_after_s")]
    pub stuck_after_s: u64,
    /// The other nodes.
    pub peers: Vec<PeerAddress>,
    /// HTTP APIs of nodes that final blocks are taken from while this node is no validator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub follow: Vec<String>,
    /// Heights whose state can still be read, at least [`MIN_STATES_KEPT`]; 0 keeps all, as an archive does.
    #[serde(default = "states_kept")]
    pub states_kept: u64,
    /// Blocks that this node keeps, with all that they merged; older ones go. 0 keeps all, as an archive does. Unless said,
    /// [`HISTORY_KEPT`], and all where all states are kept. At least `states_kept`, and three times `snapshot_every`: who
    /// joins by a snapshot of this node goes on with its blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_kept: Option<u64>,
    /// Blocks between two snapshots that this node makes and offers; 0 makes none.
    #[serde(default = "snapshot_every")]
    pub snapshot_every: u64,
}

impl NodeConfig {
    /// How many blocks are kept; 0: all.
    pub fn history(&self) -> u64 {
        match self.history_kept {
            Some(kept) => kept,
            None if self.states_kept == 0 => 0,
            None => HISTORY_KEPT.max(self.least_history()),
        }
    }

    fn least_history(&self) -> u64 {
        let of_snapshots = self.snapshot_every.saturating_mul(SNAPSHOTS_OF_HISTORY);
        of_snapshots.max(self.states_kept).max(MIN_STATES_KEPT)
    }
}

fn states_kept() -> u64 {
    STATES_KEPT
}

fn snapshot_every() -> u64 {
    SNAPSHOT_EVERY
}

fn stuck_after_s() -> u64 {
    crate::watchdog::DEFAULT_STUCK_S
}

/// What can be wrong with a home folder.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {why}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Replaces a file at once and durably.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = fs::File::create(&new)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Paths of one home.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// The home at `path`; nothing is touched.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// `node.json`.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("node.json")
    }
    /// The write token's file.
    pub fn token_file(&self) -> PathBuf {
        self.0.join("token")
    }
    /// The key file of one purpose.
    pub fn key_file(&self, purpose: Purpose) -> PathBuf {
        self.0.join("keys").join(format!("{purpose}.json"))
    }
    /// The git repository.
    pub fn ledger(&self) -> PathBuf {
        self.0.join("ledger.git")
    }
    /// Of a fork: a repository with its mother's history.
    pub fn mother_history(&self) -> PathBuf {
        self.0.join("mother.git")
    }
    /// Of a fork: a dump of its mother's state.
    pub fn mother_state(&self) -> PathBuf {
        self.0.join("mother.state")
    }
    /// The repository with the history of a fork that is merged.
    pub fn fork_history(&self, chain: &ChainId) -> PathBuf {
        self.0.join("forks").join(format!("{chain}.git"))
    }
    /// The repositories of all forks that are merged.
    pub fn fork_histories(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.0.join("forks"));
        let entries = folder.into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
    /// The state's store.
    pub fn state(&self) -> PathBuf {
        self.0.join("state.redb")
    }
    /// What the node's history begins with, if not with genesis.
    pub fn base(&self) -> PathBuf {
        self.0.join("base.json")
    }
    /// Where a snapshot is put together.
    pub fn joining(&self) -> PathBuf {
        self.0.join("joining")
    }
    /// Lists of the snapshots on offer.
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }
    /// The receipt index.
    pub fn index(&self) -> PathBuf {
        self.0.join("index.redb")
    }
    /// The block store.
    pub fn blocks(&self) -> PathBuf {
        self.0.join("blocks.redb")
    }
    /// Unpacked dapp images.
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }
    /// Staged releases.
    pub fn staged(&self) -> PathBuf {
        self.0.join("staged")
    }
    /// Deltas that were made for peers.
    pub fn deltas(&self) -> PathBuf {
        self.0.join("deltas")
    }
    /// The consensus write-ahead log.
    pub fn wal(&self) -> PathBuf {
        self.0.join("wal")
    }
    /// High-water marks of what was signed.
    pub fn marks(&self) -> PathBuf {
        self.0.join("marks")
    }

    /// Makes the folders that a node writes into.
    pub fn create(&self) -> Result<(), HomeError> {
        for dir in [
            self.0.clone(),
            self.0.join("keys"),
            self.images(),
            self.staged(),
            self.wal(),
            self.marks(),
        ] {
            fs::create_dir_all(&dir).map_err(|source| HomeError::Io { path: dir, source })?;
        }
        Ok(())
    }

    /// Reads `node.json`.
    pub fn config(&self) -> Result<NodeConfig, HomeError> {
        let path = self.config_file();
        let io = |source| HomeError::Io {
            path: path.clone(),
            source,
        };
        let size = fs::metadata(&path).map_err(io)?.len();
        if size > MAX_CONFIG_BYTES {
            return Err(HomeError::Bad {
                path,
                why: format!("{size} bytes, at most {MAX_CONFIG_BYTES} are read"),
            });
        }
        let bytes = fs::read(&path).map_err(io)?;
        let bad = |why: String| HomeError::Bad {
            path: path.clone(),
            why,
        };
        let config: NodeConfig = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if (1..MIN_STATES_KEPT).contains(&config.states_kept) {
            return Err(bad(format!(
                "states_kept is {}, at least {MIN_STATES_KEPT} are needed; 0 keeps all",
                config.states_kept
            )));
        }
        let least = config.least_history();
        if let Some(kept) = config.history_kept
            && (1..least).contains(&kept)
        {
            return Err(bad(format!(
                "history_kept is {kept}, at least {least} are needed: states_kept, and {SNAPSHOTS_OF_HISTORY} times \
                 snapshot_every; 0 keeps all"
            )));
        }
        Ok(config)
    }

    /// Writes `node.json`.
    pub fn write_config(&self, config: &NodeConfig) -> Result<(), HomeError> {
        let path = self.config_file();
        let text = serde_json::to_string_pretty(config)
            .expect("a configuration has only strings and lists");
        fs::write(&path, text).map_err(|source| HomeError::Io { path, source })
    }

    /// The write token, made when there is none.
    pub fn token(&self) -> Result<String, HomeError> {
        let path = self.token_file();
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().len() >= 32 => Ok(text.trim().to_owned()),
            Ok(_) => Err(HomeError::Bad {
                path,
                why: "the token is shorter than 32 characters; delete the file to get a new one"
                    .into(),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut raw = [0u8; 32];
                getrandom::fill(&mut raw).map_err(|e| HomeError::Bad {
                    path: path.clone(),
                    why: e.to_string(),
                })?;
                let token = instar_attest::Digest::from_bytes(raw).to_hex();
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(|source| HomeError::Io {
                        path: path.clone(),
                        source,
                    })?;
                io::Write::write_all(&mut file, token.as_bytes())
                    .map_err(|source| HomeError::Io { path, source })?;
                Ok(token)
            }
            Err(source) => Err(HomeError::Io { path, source }),
        }
    }

    /// The secret key of one purpose.
    pub fn key(&self, purpose: Purpose) -> Result<SecretKey, HomeError> {
        let path = self.key_file(purpose);
        instar_attest::keyfile::load(&path, purpose).map_err(|e| HomeError::Bad {
            path,
            why: e.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Result<NodeConfig, HomeError> {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let text = format!(
            r#"{{"name":"n","http":"127.0.0.1:1","consensus":"/ip4/127.0.0.1/tcp/1","data":"/ip4/127.0.0.1/tcp/2","peers":[]{more}}}"#
        );
        fs::write(home.config_file(), text).unwrap();
        home.config()
    }

    #[test]
    fn an_archive_keeps_all_and_others_at_least_what_they_offer() {
        let kept = |more| config(more).unwrap().history();
        assert_eq!(kept(""), HISTORY_KEPT);
        assert_eq!(
            kept(r#","states_kept":0"#),
            0,
            "as archives of before have it"
        );
        assert_eq!(kept(r#","history_kept":0"#), 0);
        assert_eq!(kept(r#","history_kept":3072"#), 3072);
        // A default is no reason for a node not to start.
        assert_eq!(kept(r#","snapshot_every":50000"#), 150_000);
        for (more, least) in [
            (r#","history_kept":3071"#, 3072),
            (
                r#","history_kept":1,"snapshot_every":0,"states_kept":64"#,
                64,
            ),
            (
                r#","history_kept":99,"snapshot_every":10,"states_kept":100"#,
                100,
            ),
        ] {
            let why = config(more).unwrap_err().to_string();
            assert!(
                why.contains(&format!("at least {least} are needed")),
                "{why}"
            );
        }
    }
}
