//! Runs dapps, and keeps a started container ready for each, so that a block needn't wait for one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use instar_attest::{ChainId, Digest};
use instar_chain::{
    DappCall, DappContext, DappEntry, DappFailure, DappHost, DappResult, KeySpace, StateView,
    Verdict,
};
use instar_chunks::Blocks;
use instar_sandbox::{Running, Status};
use serde_json::Value;

use crate::budget::Budget;
use crate::containers::{Containers, IDLE};
use crate::duplex::Duplex;
use crate::image::Image;
use crate::session::{Broken, Session};

/// How many releases have a container ready: those of the chain's dapps, and one that is rehearsed.
const MAX_WARM: usize = 8;
/// How much longer than the conversation a container may live, for this side to notice first.
const GRACE: Duration = Duration::from_secs(2);
/// How long it takes a program that closed its output to be gone.
const GONE: Duration = Duration::from_secs(2);

/// Runs dapps.
pub struct Runtime {
    folder: PathBuf,
    blocks: Arc<dyn Blocks + Send + Sync>,
    releases: BTreeMap<String, Arc<Release>>,
    warm: BTreeMap<String, Warm>,
    /// Containers that have done their work and are being taken down.
    ending: Vec<JoinHandle<()>>,
}

/// A question to a dapp.
pub struct Question<'a> {
    /// What is asked.
    pub body: Value,
    /// Height of the newest final block.
    pub height: u64,
    /// Its time in milliseconds since 1970.
    pub time_ms: u64,
    /// The whole state that it is asked about; a dapp sees its own key space of it.
    pub state: &'a dyn StateView,
    /// The whole state as far as it is final: the same one, unless unmerged lanes are counted in.
    pub trunk: &'a dyn StateView,
}

/// A release of a dapp that was run.
struct Release {
    image: Image,
    containers: Containers,
}

/// A container that is ready, or about to be.
struct Warm {
    started: Instant,
    container: JoinHandle<Result<Running, String>>,
}

impl Runtime {
    /// Images are kept below `folder`; what is not there yet is taken from `blocks`.
    pub fn new<B: Blocks + Send + Sync + 'static>(
        folder: &Path,
        blocks: Arc<B>,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            blocks,
            releases: BTreeMap::new(),
            warm: BTreeMap::new(),
            ending: Vec::new(),
        })
    }

    /// Has a container ready for a release's next call.
    pub fn warm_up(&mut self, release: &str) -> Result<(), DappFailure> {
        let found = self.release(release)?;
        self.refill(release, &found);
        Ok(())
    }

    /// Asks a dapp.
    pub fn query(
        &mut self,
        dapp: &str,
        release: &str,
        question: Question<'_>,
    ) -> Result<Value, DappFailure> {
        let Question {
            body,
            height,
            time_ms,
            state,
            trunk,
        } = question;
        let release = self.release(release)?;
        let image = &release.image;
        check_topic(image, dapp)?;
        // A question has no block, hence no seed, and stands on no ledger.
        let zero = Digest::from_bytes([0; 32]);
        let ctx = DappContext {
            chain: ChainId::from_bytes([0; 32]),
            height,
            seed: zero,
            time_ms,
        };
        let own = KeySpace::of_dapp(state, dapp);
        let own_trunk = KeySpace::of_dapp(trunk, dapp);
        let budget = Budget::of_question();
        // Not the container that waits for the next block.
        let running = release.containers.start().map_err(DappFailure::Abstain)?;
        let answer = self.converse(running, image, budget, &own, |session| {
            session.query(&ctx, &body, &own_trunk)
        })?;
        match answer {
            Verdict {
                ok: true, output, ..
            } => Ok(output.unwrap_or(Value::Null)),
            Verdict { rule, detail, .. } => {
                let (rule, detail) = (rule.unwrap_or_default(), detail.unwrap_or_default());
                Err(DappFailure::Protocol(format!(
                    "the dapp does not answer that: {rule}: {detail}"
                )))
            }
        }
    }

    /// Ends all containers.
    pub fn shutdown(&mut self) {
        for (_, warm) in std::mem::take(&mut self.warm) {
            // Dropping a container ends it.
            drop(warm.container.join());
        }
        for ending in self.ending.drain(..) {
            let _ = ending.join();
        }
        for found in self.releases.values() {
            found.containers.close();
        }
    }

    fn release(&mut self, release: &str) -> Result<Arc<Release>, DappFailure> {
        if let Some(found) = self.releases.get(release) {
            return Ok(Arc::clone(found));
        }
        let image = Image::prepare(&self.folder, release, &*self.blocks).map_err(|error| {
            DappFailure::Abstain(format!("the image of {release} can't be had: {error}"))
        })?;
        let containers = Containers::new(&image);
        let found = Arc::new(Release { image, containers });
        self.releases.insert(release.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    fn take(&mut self, release: &str, containers: &Containers) -> Result<Running, DappFailure> {
        let ready = self
            .warm
            .remove(release)
            .filter(|warm| warm.started.elapsed() < IDLE / 2);
        let ready = ready.and_then(|warm| warm.container.join().ok()?.ok());
        match ready {
            Some(mut running) => match running.wait_timeout(Duration::ZERO) {
                Ok(None) => Ok(running),
                // It is gone before it was asked anything; whether that is its way or was done to it, a second shows.
                Ok(Some(_)) | Err(_) => containers.start().map_err(DappFailure::Abstain),
            },
            None => containers.start().map_err(DappFailure::Abstain),
        }
    }

    fn refill(&mut self, release: &str, found: &Arc<Release>) {
        if self.warm.contains_key(release) {
            return;
        }
        while self.warm.len() >= MAX_WARM {
            let oldest = self
                .warm
                .iter()
                .min_by_key(|(_, warm)| warm.started)
                .map(|(release, _)| release.clone());
            let Some((oldest, warm)) = oldest.and_then(|oldest| self.warm.remove_entry(&oldest))
            else {
                break;
            };
            if let Some(found) = self.releases.get(&oldest) {
                found.containers.close();
            }
            self.ending
                .push(std::thread::spawn(move || drop(warm.container.join())));
        }
        let found = Arc::clone(found);
        let container = std::thread::spawn(move || found.containers.start());
        self.warm.insert(
            release.to_owned(),
            Warm {
                started: Instant::now(),
                container,
            },
        );
    }

    /// Holds one conversation and takes the container down, without waiting for it to be gone.
    fn converse<T>(
        &mut self,
        mut running: Running,
        image: &Image,
        budget: Budget,
        state: &dyn StateView,
        talk: impl FnOnce(Session<'_>) -> Result<T, Broken>,
    ) -> Result<T, DappFailure> {
        let unreachable =
            |error: &dyn std::fmt::Display| DappFailure::Abstain(format!("the container: {error}"));
        let wall_ms = u64::try_from((budget.wall + GRACE).as_millis()).unwrap_or(u64::MAX);
        running.arm(wall_ms).map_err(|error| unreachable(&error))?;
        let mut duplex = Duplex::new(&mut running, budget.said_bytes, budget.wall)
            .map_err(|error| unreachable(&error))?;
        let result = talk(Session::new(&mut duplex, &image.manifest, budget, state));
        let result = result.map_err(|broken| match broken {
            Broken::Ended => cause(&mut running, &duplex.complaint()),
            Broken::TimedOut => {
                DappFailure::Abstain(format!("no end after {} s", budget.wall.as_secs()))
            }
            Broken::Protocol(what) => DappFailure::Protocol(what),
            Broken::State(error) => DappFailure::Abstain(error.to_string()),
        });
        self.ending.retain(|ending| !ending.is_finished());
        self.ending.push(std::thread::spawn(move || {
            drop(duplex);
            drop(running);
        }));
        result
    }
}

impl DappHost for Runtime {
    fn run(&mut self, call: DappCall<'_>) -> Result<DappResult, DappFailure> {
        let found = self.release(call.release)?;
        let image = &found.image;
        check_topic(image, call.dapp)?;
        let entries = match image.manifest.foreign {
            true => call.entries.as_slice(),
            // Those of forks come last.
            false => &call.entries[..own(&call.entries)],
        };
        let not_taken = call.entries.len() - entries.len();
        if entries.is_empty() && not_taken > 0 {
            return Ok(refuse_foreign(DappResult::default(), not_taken));
        }
        let running = self.take(call.release, &found.containers)?;
        let result = match &call.migrate {
            Some(migration) => {
                let budget = Budget::of_migration();
                self.converse(running, image, budget, call.state, |session| {
                    session.migrate(&call.ctx, migration)
                })
            }
            None => {
                let budget = Budget::of_entries(entries.len());
                self.converse(running, image, budget, call.state, |session| {
                    session.apply(&call.ctx, entries)
                })
            }
        };
        self.refill(call.release, &found);
        result.map(|result| refuse_foreign(result, not_taken))
    }
}

/// How many of the entries are not of a fork.
fn own(entries: &[DappEntry]) -> usize {
    entries.iter().take_while(|e| e.chain.is_none()).count()
}

/// Answers for a dapp that takes no entries of forks.
fn refuse_foreign(mut result: DappResult, entries: usize) -> DappResult {
    let verdicts = std::iter::repeat_n(Verdict::foreign_not_taken(), entries);
    result.verdicts.extend(verdicts);
    result
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn check_topic(image: &Image, dapp: &str) -> Result<(), DappFailure> {
    let topic = &image.manifest.topic;
    if topic == dapp {
        return Ok(());
    }
    Err(DappFailure::Protocol(format!(
        "the release is for the topic {topic}, not for {dapp}"
    )))
}

/// Whose fault it is that a program stopped talking.
fn cause(running: &mut Running, complaint: &str) -> DappFailure {
    let said = if complaint.is_empty() {
        String::new()
    } else {
        format!(": {complaint}")
    };
    match running.wait_timeout(GONE) {
        // It closed its output and went on: no machine made it do that.
        Ok(None) => DappFailure::Crash(format!("it closed its output{said}")),
        Ok(Some(exit)) => match exit.status {
            Status::WallClock | Status::CpuTime | Status::OutOfMemory | Status::Killed => {
                DappFailure::Abstain(format!("{:?} after {} ms{said}", exit.status, exit.wall_ms))
            }
            // Nothing in a container can send this to its first process, so it came from outside.
            Status::Signaled(9) => DappFailure::Abstain(format!("it was killed{said}")),
            Status::Exited(code) => DappFailure::Crash(format!("exit code {code}{said}")),
            Status::Signaled(signal) => DappFailure::Crash(format!("signal {signal}{said}")),
        },
        Err(error) => DappFailure::Abstain(format!("{error}{said}")),
    }
}
