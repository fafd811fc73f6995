//! The demo's four validators: homes, addresses and processes.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use instar_node::home::{
    AutoVoteSetting, Home, NodeConfig, PeerAddress, SNAPSHOT_EVERY, STATES_KEPT,
};

use crate::client::Client;
use crate::founding::{self, PublicFormat, PublicValidator};

/// How long a node may take from start to its first answer; containers and compilers share two cores with it.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a stopped upgrader may take to stop its node.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// One validator: a home folder, its addresses, and the upgrader that supervises its node.
pub struct Validator {
    /// Its name on the ledger.
    pub name: String,
    /// Its home.
    pub home: Home,
    /// Where its API answers.
    pub http: SocketAddr,
    /// Whether its processes go on when this one ends.
    pub outlive: bool,
    upgrader: Option<Child>,
}

/// Ports that are free now, all different. They are held until all are known, so that none is given twice.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<_>>()?;
    held.iter().map(|l| Ok(l.local_addr()?.port())).collect()
}

/// Makes `names.len()` homes below `dir`, each knowing the others' addresses; keys and chain come later.
pub fn lay_out(dir: &Path, names: &[String]) -> Result<Vec<Validator>> {
    let ports = free_ports(names.len() * 3).context("no free ports on 127.0.0.1")?;
    let multiaddr = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}");
    let address = |i: usize| PeerAddress {
        name: names[i].clone(),
        consensus: multiaddr(ports[i * 3 + 1]),
        data: multiaddr(ports[i * 3 + 2]),
    };
    let mut validators = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let home = Home::new(dir.join(name));
        home.create()?;
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[i * 3]));
        home.write_config(&NodeConfig {
            // The node's own binary is built by one runner here; the others trust its attestation, and their votes say so.
            auto_vote: AutoVoteSetting::Attested,
            name: name.clone(),
            http,
            consensus: address(i).consensus,
            data: address(i).data,
            delta_patience_s: 0,
            dht: None,
            stuck_after_s: instar_node::watchdog::DEFAULT_STUCK_S,
            peers: (0..names.len()).filter(|j| *j != i).map(address).collect(),
            follow: Vec::new(),
            states_kept: STATES_KEPT,
            history_kept: None,
            snapshot_every: SNAPSHOT_EVERY,
        })?;
        validators.push(Validator {
            name: name.clone(),
            home,
            http,
            outlive: false,
            upgrader: None,
        });
    }
    Ok(validators)
}

impl Validator {
    /// Makes its keys; what the others get to see of them.
    pub fn public(&self) -> Result<PublicValidator> {
        let keys = founding::make_keys(&self.home)?;
        let config = self.home.config()?;
        Ok(PublicValidator {
            consensus: config.consensus,
            data: config.data,
            format: PublicFormat::V1,
            keys,
            name: self.name.clone(),
            operator: format!("operator-{}", self.name),
            power: 1,
        })
    }

    /// The node's API, with its write token.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.url(), Some(self.home.token()?)))
    }

    /// The API's address.
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Where the upgrader's and the node's output goes.
    pub fn log(&self) -> PathBuf {
        self.home.path().join("node.log")
    }

    /// Starts the upgrader, which starts the node.
    pub fn start(&mut self, program: &Path, release: &str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = Command::new(program)
            .args(["upgrader", "run", "--home"])
            .arg(self.home.path())
            .args((!self.outlive).then_some("--end-with-parent"))
            .arg("--first")
            .arg(program)
            .args(["--release", release, "--", "node", "run", "--home"])
            .arg(self.home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} can't be started", program.display()))?;
        self.upgrader = Some(child);
        Ok(())
    }

    /// Waits until the API answers.
    pub fn wait_ready(&mut self) -> Result<()> {
        let client = self.client()?;
        let start = Instant::now();
        loop {
            if client.status().is_ok() {
                return Ok(());
            }
            if let Some(child) = &mut self.upgrader
                && let Some(status) = child.try_wait()?
            {
                bail!(
                    "{} ended with {status} before it answered\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            if start.elapsed() > START_PATIENCE {
                bail!(
                    "{} does not answer after {} s\n{}",
                    self.name,
                    START_PATIENCE.as_secs(),
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines of its log, for an error message.
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Kills the node's process, not its upgrader, with SIGKILL.
    pub fn kill_node(&self) -> Result<u32> {
        let pid = self.client()?.status()?.pid;
        let raw = i32::try_from(pid).context("a process id fits")?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(raw),
            nix::sys::signal::Signal::SIGKILL,
        )?;
        Ok(pid)
    }

    /// Stops the upgrader and with it the node.
    pub fn stop(&mut self) {
        let Some(mut child) = self.upgrader.take() else {
            return;
        };
        if let Ok(raw) = i32::try_from(child.id()) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(raw),
                nix::sys::signal::Signal::SIGTERM,
            );
        }
        let start = Instant::now();
        while start.elapsed() < STOP_PATIENCE {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Lets the processes outlive the demo (`--keep`).
    pub fn release(&mut self) -> Option<u32> {
        self.upgrader.take().map(|c| c.id())
    }
}

impl Drop for Validator {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A socket of one of the validators' processes that listens outside loopback, if there is one.
pub fn listening_outside(validators: &[Validator]) -> Result<Option<String>> {
    for validator in validators {
        let Ok(status) = validator.client()?.status() else {
            continue;
        };
        let inodes = socket_inodes(status.pid)?;
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let path = format!("/proc/{}/net/{table}", status.pid);
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            for line in text.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (Some(local), Some(state), Some(inode)) =
                    (fields.get(1), fields.get(3), fields.get(9))
                else {
                    continue;
                };
                // State 0A is a listening TCP socket; a bound UDP socket is in state 07.
                let open = matches!(
                    (table, *state),
                    ("tcp" | "tcp6", "0A") | ("udp" | "udp6", "07")
                );
                if open && inodes.contains(*inode) && !is_loopback(local) {
                    return Ok(Some(format!("{} ({table} {local})", validator.name)));
                }
            }
        }
    }
    Ok(None)
}

fn socket_inodes(pid: u32) -> Result<std::collections::BTreeSet<String>> {
    let mut inodes = std::collections::BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        if let Some(inode) = target
            .to_string_lossy()
            .strip_prefix("socket:[")
            .and_then(|t| t.strip_suffix(']'))
        {
            inodes.insert(inode.to_owned());
        }
    }
    Ok(inodes)
}

/// `/proc/net` writes addresses as hexadecimal words in this machine's byte order.
fn is_loopback(local: &str) -> bool {
    let address = local.split(':').next().unwrap_or_default();
    address.ends_with("7F") && address.len() == 8 || address == "00000000000000000000000001000000"
}
