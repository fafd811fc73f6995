//! Makes deltas for peers, and keeps them.
//!
//! A question costs a look into a folder. Making one costs seconds of a processor and hundreds of megabytes, and who asks is
//! nobody that this node knows: a door's device as well as a stranger. So: only [`Between`] what is pinned here; one at a
//! time, in a process of its own at the lowest priority, with bounded memory and time; and with rests, so that whoever asks
//! again and again gets at most a part of one processor.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use instar_chunks::{BlockStore, Blocks, Cid, Limits, export, read};
use instar_ipfs::delta::{Deltas, Found};
use tokio::sync::mpsc;

use super::kept::Kept;

/// Content bytes of either side. Making takes some six times the largest file in memory.
const MAX_SIDE_BYTES: u64 = 256 << 20;
/// Address space of the process that makes one; it fails beyond that.
const MAX_MAKER_KIB: u64 = 2 << 20;
/// How long one may take; a small board needs minutes for what a server does in twenty seconds.
const MAX_MAKING: Duration = Duration::from_secs(600);
/// Rest after making one, in times of what it took: a fifth of one processor at most.
const REST: u32 = 4;
/// Pairs that wait. Whoever comes later takes the blocks.
const MAX_WAITING: usize = 4;
/// How long a pair that couldn't be made isn't tried again.
const FAILED_FOR: Duration = Duration::from_secs(600);
/// Failed pairs that are remembered.
const MAX_FAILED: usize = 256;
/// Releases of a slot that a delta leads to: the newest, and the one before it, which slow nodes may still be staging.
const OFFERED: usize = 2;
/// Entries below the roots that are looked through for an address.
const MAX_ENTRIES: usize = 20_000;
/// Folders below a root that are looked into.
const MAX_FOLDERS_DEEP: usize = 8;

/// Between what a delta is made, when somebody asks for it. What was made is given to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// From an older release of a slot to one of its newest.
    Releases,
    /// Between any two things that are pinned, or stand in a folder that is.
    Pinned,
}

type Pair = (Cid, Cid);

/// Finds deltas in a folder, and has missing ones made.
pub struct Maker {
    inner: Arc<Inner>,
    queue: mpsc::Sender<Pair>,
}

struct Inner {
    store: Arc<BlockStore>,
    kept: Kept,
    program: PathBuf,
    between: Between,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Waiting or being made.
    waiting: HashSet<Pair>,
    failed: HashMap<Pair, Failed>,
}

struct Failed {
    at: Instant,
    why: String,
}

impl Maker {
    /// Deltas between what `store` holds, kept in `folder`, made by `program` (this same one: `instar delta make`). Its work
    /// goes on in a task of the runtime that this is called in, until the maker is dropped.
    pub fn start(
        store: Arc<BlockStore>,
        folder: &Path,
        program: PathBuf,
        between: Between,
    ) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            store,
            kept: Kept::open(folder)?,
            program,
            between,
            state: Mutex::default(),
        });
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(Arc::clone(&inner).work(waiting));
        Ok(Self { inner, queue })
    }

    /// Why a delta could not be made when it was asked for last.
    pub fn why_not(&self, have: &Cid, want: &Cid) -> Option<String> {
        let state = self.inner.lock();
        let failed = state.failed.get(&(*have, *want));
        failed.map(|failed| failed.why.clone())
    }

    fn have_made(&self, pair: Pair) -> Found {
        let mut state = self.inner.lock();
        if state.waiting.contains(&pair) {
            return Found::Making;
        }
        if state
            .failed
            .get(&pair)
            .is_some_and(|failed| failed.at.elapsed() < FAILED_FOR)
        {
            return Found::None;
        }
        // What isn't here may come later, so that this is no failure to remember.
        let held = |cid| self.inner.store.has(cid).unwrap_or(false);
        if !held(&pair.0) || !held(&pair.1) {
            return Found::None;
        }
        match self.queue.try_send(pair) {
            Ok(()) => {
                state.waiting.insert(pair);
                Found::Making
            }
            Err(_) => Found::None,
        }
    }
}

impl Deltas for Maker {
    fn find(&self, have: &Cid, want: &Cid, make: bool) -> Found {
        if let Some((file, bytes)) = self.inner.kept.find(have, want) {
            return Found::Here(file, bytes);
        }
        match make && have != want {
            true => self.have_made((*have, *want)),
            false => Found::None,
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(self: Arc<Self>, mut queue: mpsc::Receiver<Pair>) {
        while let Some(pair) = queue.recv().await {
            let start = Instant::now();
            let (have, want) = pair;
            let made = self.make(pair).await;
            let took = start.elapsed();
            {
                let mut state = self.lock();
                state.waiting.remove(&pair);
                match made {
                    Ok(bytes) => tracing::info!(%have, %want, bytes, ?took, "a delta was made"),
                    Err(why) => {
                        tracing::info!(%have, %want, why, "no delta was made");
                        if state.failed.len() >= MAX_FAILED {
                            state.failed.clear();
                        }
                        let at = Instant::now();
                        state.failed.insert(pair, Failed { at, why });
                    }
                }
            }
            tokio::time::sleep(took * REST).await;
        }
    }

    async fn make(self: &Arc<Self>, pair: Pair) -> Result<u64, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let inner = Arc::clone(self);
        let scratch = tokio::task::spawn_blocking(move || inner.lay_out(pair))
            .await
            .map_err(|e| text(&e))??;
        let made = scratch.path().join("made");
        run(&self.program, scratch.path(), &made).await?;
        let bytes = fs::metadata(&made).map_err(|e| text(&e))?.len();
        let (have, want) = pair;
        self.kept.take(&have, &want, &made).map_err(|e| text(&e))?;
        Ok(bytes)
    }

    /// Writes both sides out, if the one leads to the other.
    fn lay_out(&self, (have, want): Pair) -> Result<tempfile::TempDir, String> {
        let scratch = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(self.kept.folder())
            .map_err(|e| e.to_string())?;
        let limits = Limits {
            max_total_bytes: MAX_SIDE_BYTES,
            ..Limits::default()
        };
        let _lease = self.store.lease();
        let (holds, else_why) = match self.between {
            Between::Releases => (
                leads_on(&self.store, &have, &want),
                "they are no older and newer release of one slot that are pinned here",
            ),
            Between::Pinned => (
                [have, want].iter().all(|side| is_named(&self.store, side)),
                "they are not both pinned, nor stand in pinned folders",
            ),
        };
        if !holds {
            return Err(else_why.into());
        }
        for (side, cid) in [("old", have), ("new", want)] {
            export(
                &*self.store,
                &cid,
                None,
                &scratch.path().join(side),
                &limits,
            )
            .map_err(|e| e.to_string())?;
        }
        Ok(scratch)
    }
}

/// Whether `want` is one of the newest releases of a slot, or stands in it, and `have` does so in an older one.
fn leads_on(store: &BlockStore, have: &Cid, want: &Cid) -> bool {
    let Ok(pins) = store.pins() else { return false };
    let mut slots: BTreeMap<&str, Vec<(u64, Cid)>> = BTreeMap::new();
    for (name, root) in &pins {
        let (slot, number) = slot_of(name);
        slots.entry(slot).or_default().push((number, *root));
    }
    slots.into_values().any(|mut releases| {
        releases.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        releases.iter().take(OFFERED).any(|(newer, root)| {
            let mut older = releases.iter().filter(|(number, _)| number < newer);
            holds(store, [*root], want) && older.any(|(_, root)| holds(store, [*root], have))
        })
    })
}

/// Whether `wanted` is pinned, or stands in a folder below a pin.
fn is_named(store: &BlockStore, wanted: &Cid) -> bool {
    let pins = store.pins().unwrap_or_default();
    holds(store, pins.into_iter().map(|(_, root)| root), wanted)
}

/// Releases are pinned as `<slot>/<number>`; the one that a chain began with as `<slot>`.
fn slot_of(pin: &str) -> (&str, u64) {
    let numbered = pin
        .rsplit_once('/')
        .and_then(|(slot, number)| Some((slot, number.parse().ok()?)));
    numbered.unwrap_or((pin, 0))
}

/// Whether `wanted` is one of the roots, or stands in a folder below them.
fn holds(store: &BlockStore, roots: impl IntoIterator<Item = Cid>, wanted: &Cid) -> bool {
    let mut level: Vec<Cid> = roots.into_iter().collect();
    let mut seen: HashSet<Cid> = HashSet::new();
    for _ in 0..=MAX_FOLDERS_DEEP {
        if level.contains(wanted) {
            return true;
        }
        let mut next = Vec::new();
        for cid in level {
            if seen.len() + next.len() > MAX_ENTRIES || !seen.insert(cid) {
                continue;
            }
            // What is no folder, or isn't whole, has no entries.
            let entries = read::list_directory(store, &cid, &Limits::default());
            next.extend(entries.unwrap_or_default().into_iter().map(|link| link.cid));
        }
        level = next;
    }
    false
}

/// Runs `instar delta make old new -o made` in `folder`, held to its bounds by the shell that every system has.
async fn run(program: &Path, folder: &Path, made: &Path) -> Result<(), String> {
    let mut command = tokio::process::Command::new("/bin/sh");
    let script = r#"ulimit -v "$1" && shift && exec nice -n 19 "$@""#;
    command
        .arg("-c")
        .arg(script)
        .arg("sh")
        .arg(MAX_MAKER_KIB.to_string())
        .arg(program)
        .args(["delta", "make", "old", "new", "-o"].map(OsStr::new))
        .arg(made)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = tokio::time::timeout(MAX_MAKING, command.output())
        .await
        .map_err(|_| format!("it took more than {} s", MAX_MAKING.as_secs()))?
        .map_err(|e| format!("{} can't be started: {e}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", output.status, said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_says_which_release_it_is() {
        assert_eq!(slot_of("dapps/coin/12"), ("dapps/coin", 12));
        assert_eq!(slot_of("dapps/coin"), ("dapps/coin", 0));
        assert_eq!(slot_of("node/3"), ("node", 3));
        assert_eq!(slot_of("node"), ("node", 0));
    }
}
