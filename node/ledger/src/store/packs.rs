//! The packs of a repository: which there are, what is in them, and writing some of them anew as one, with stock git.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use super::flush::sync_dir;
use super::{PRIVATE_DIR, StoreError, io_error};
use crate::oid::Oid;

/// Blobs above this are not tried for deltas: large batches are mostly signatures, which have nothing in common.
const LARGE: &str = "core.bigFileThreshold=16k";
/// A pack that nobody has written to for this long, and that has no index, gets none.
const HALF_MADE: Duration = Duration::from_secs(600);

/// A pack by its name, `pack-<hex>`, with the ids of its objects, sorted.
pub(super) struct Pack {
    pub name: String,
    pub objects: Vec<Oid>,
}

/// The packs of a repository, without those that wait for their grace to end.
pub(super) struct Packs {
    pub all: Vec<Pack>,
    doomed_dir: PathBuf,
    packs_dir: PathBuf,
    path: PathBuf,
    private: PathBuf,
}

/// What whoever writes packs anew has to lock.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    File::create(path.join(PRIVATE_DIR).join("maintain.lock")).map_err(io_error("opening the lock"))
}

/// Removes all packs that wait for their grace to end: for whoever has just opened a store.
pub(super) fn bury_all(path: &Path) -> Result<(), StoreError> {
    let doomed_dir = path.join(PRIVATE_DIR).join("doomed");
    if !doomed_dir.exists() {
        return Ok(());
    }
    let lock = lock(path)?;
    lock.lock().map_err(io_error("waiting for maintenance"))?;
    let packs_dir = path.join("objects").join("pack");
    bury(&doomed_dir, &packs_dir, Duration::ZERO).map(drop)
}

impl Packs {
    /// Removes those whose grace is over, says how many those were, and reads the ids of the others.
    pub fn of(path: &Path, grace: Duration) -> Result<(Self, usize), StoreError> {
        let private = path.join(PRIVATE_DIR);
        let doomed_dir = private.join("doomed");
        fs::create_dir_all(&doomed_dir).map_err(io_error("making a folder for old packs"))?;
        let packs_dir = path.join("objects").join("pack");
        remove_strays(&packs_dir)?;
        let (doomed, removed) = bury(&doomed_dir, &packs_dir, grace)?;
        let all = list(&packs_dir)?
            .into_iter()
            .filter(|name| !doomed.contains(name))
            .map(|name| {
                let objects = index_ids(&packs_dir.join(format!("{name}.idx")))?;
                Ok(Pack { name, objects })
            })
            .collect::<Result<_, StoreError>>()?;
        let packs = Self {
            all,
            doomed_dir,
            packs_dir,
            path: path.into(),
            private,
        };
        Ok((packs, removed))
    }

    /// All objects; one that stands in two packs comes twice.
    pub fn objects(&self) -> impl Iterator<Item = &Oid> {
        self.all.iter().flat_map(|pack| &pack.objects)
    }

    /// The ids in those packs that another list does not have.
    pub fn newer_than<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Oid> {
        let known: BTreeSet<&str> = before.all.iter().map(|p| p.name.as_str()).collect();
        let new = move |pack: &&Pack| !known.contains(pack.name.as_str());
        self.all.iter().filter(new).flat_map(|pack| &pack.objects)
    }

    /// Those that have one of some objects.
    pub fn with(&self, has: impl Fn(&Oid) -> bool) -> Vec<&Pack> {
        let has_one = |pack: &&Pack| pack.objects.iter().any(&has);
        self.all.iter().filter(has_one).collect()
    }

    /// The file by which git finds a pack.
    pub fn index_of(&self, pack: &Pack) -> PathBuf {
        self.packs_dir.join(format!("{}.idx", pack.name))
    }

    /// How long ago a pack was written.
    pub fn age(&self, pack: &Pack) -> Duration {
        age(&self.index_of(pack))
    }

    /// Puts one new pack of these objects beside some packs, and dooms those. Says how many those were.
    pub fn replace(&self, packs: &[&Pack], contents: &Contents) -> Result<usize, StoreError> {
        let mut new = None;
        if !contents.objects.is_empty() {
            let name = self.pack_objects(contents)?;
            let got = index_ids(&self.packs_dir.join(format!("{name}.idx")))?;
            // Nothing is given up before the new pack is seen to have it.
            if !got.into_iter().eq(contents.ids()) {
                return Err(StoreError::NotALedger {
                    path: self.path.clone(),
                    why: format!("{name} does not hold what it was made of"),
                });
            }
            new = Some(name);
        }
        let mut replaced = 0;
        for pack in packs {
            if Some(&pack.name) == new.as_ref() {
                continue;
            }
            File::create(self.doomed_dir.join(&pack.name))
                .map_err(io_error("marking an old pack"))?;
            replaced += 1;
        }
        Ok(replaced)
    }

    /// Makes the pack with stock git, makes it durable, and moves it in. Returns its name.
    fn pack_objects(&self, contents: &Contents) -> Result<String, StoreError> {
        let what = "git pack-objects";
        // A git that outlived a killed node may still write into its folder: it fails when that is gone.
        let rolling: PathBuf = self.private.join("rolling");
        let _ = fs::remove_dir_all(&rolling);
        let folder = rolling.join(std::process::id().to_string());
        fs::create_dir_all(&folder).map_err(io_error(what))?;
        let mut child = crate::http::git(&self.path)
            .args(["-c", "pack.threads=1", "-c", LARGE, "pack-objects"])
            .args(["--quiet", "--delta-base-offset", "--window=5"])
            .arg(folder.join("pack"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io_error(what))?;
        let mut input = BufWriter::new(child.stdin.take().expect("stdin was piped"));
        // git reads the whole list before it writes anything, so this can't block on a full pipe of the other side.
        for (id, name) in &contents.objects {
            let name = &contents.names[usize::from(*name)];
            writeln!(input, "{id} {name}").map_err(io_error(what))?;
        }
        input.flush().map_err(io_error(what))?;
        drop(input);
        let output = child.wait_with_output().map_err(io_error(what))?;
        let hex = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || hex.parse::<Oid>().is_err() {
            return Err(io_error(what)(std::io::Error::other(format!(
                "it ended with {} and wrote {hex:?}",
                output.status
            ))));
        }
        let name = format!("pack-{hex}");
        for ending in ["pack", "rev", "idx"] {
            let from = folder.join(format!("{name}.{ending}"));
            if !from.exists() {
                continue;
            }
            File::open(&from)
                .and_then(|f| f.sync_all())
                .and_then(|()| fs::rename(&from, self.packs_dir.join(format!("{name}.{ending}"))))
                .map_err(io_error(what))?;
        }
        sync_dir(&self.packs_dir)?;
        Ok(name)
    }
}

/// Removes packs whose grace is over, and gives the names of those that still wait and how many went.
fn bury(
    doomed_dir: &Path,
    packs_dir: &Path,
    grace: Duration,
) -> Result<(BTreeSet<String>, usize), StoreError> {
    let (mut waiting, mut removed) = (BTreeSet::new(), 0);
    let what = "removing old packs";
    for entry in fs::read_dir(doomed_dir).map_err(io_error(what))? {
        let entry = entry.map_err(io_error(what))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if age(&entry.path()) < grace {
            waiting.insert(name);
            continue;
        }
        // Without its index git no longer sees a pack, so that goes first.
        for ending in ["idx", "rev", "pack"] {
            let _ = fs::remove_file(packs_dir.join(format!("{name}.{ending}")));
        }
        sync_dir(packs_dir)?;
        fs::remove_file(entry.path()).map_err(io_error(what))?;
        removed += 1;
    }
    Ok((waiting, removed))
}

/// Removes what a git left that ended early, on a full disk for one, and packs that a crash left without an index. What is
/// still being written is young: a pack of the writing process, or a `git gc` by hand.
fn remove_strays(packs_dir: &Path) -> Result<(), StoreError> {
    let what = "removing half-made packs";
    for entry in fs::read_dir(packs_dir).map_err(io_error(what))? {
        let path = entry.map_err(io_error(what))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let half = name.starts_with("pack-") && !path.with_extension("idx").exists();
        if (half || name.starts_with("tmp_")) && age(&path) >= HALF_MADE {
            // Whoever else removed it first was right.
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error(what)(e));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn age(path: &Path) -> Duration {
    fs::metadata(path)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|time| SystemTime::now().duration_since(time).ok())
        .unwrap_or_default()
}

/// The names of all packs, `pack-<hex>`.
fn list(packs_dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(packs_dir).map_err(io_error("listing packs"))? {
        let name = entry.map_err(io_error("listing packs"))?.file_name();
        if let Some(name) = name.to_string_lossy().strip_suffix(".idx") {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The ids in an index of version 2 (`gitformat-pack`), sorted.
fn index_ids(path: &Path) -> Result<Vec<Oid>, StoreError> {
    let what = || format!("reading {}", path.display());
    let broken = || StoreError::Io {
        what: what(),
        source: std::io::Error::from(std::io::ErrorKind::InvalidData),
    };
    let mut file = File::open(path).map_err(io_error(what()))?;
    let mut head = [0u8; 8 + 256 * 4];
    file.read_exact(&mut head).map_err(io_error(what()))?;
    let count = match head {
        [0xff, b't', b'O', b'c', 0, 0, 0, 2, .., a, b, c, d] => u32::from_be_bytes([a, b, c, d]),
        _ => return Err(broken()),
    };
    let mut ids = Vec::new();
    file.take(u64::from(count) * 32)
        .read_to_end(&mut ids)
        .map_err(io_error(what()))?;
    let (ids, rest) = ids.as_chunks::<32>();
    if ids.len() != count as usize || !rest.is_empty() {
        return Err(broken());
    }
    Ok(ids.iter().map(|id| Oid::from_bytes(*id)).collect())
}

/// Objects for a new pack, in the order of their ids, each with the file name by which git finds good deltas.
pub(super) struct Contents {
    pub objects: Vec<(Oid, u8)>,
    /// The names; the first is none.
    names: Vec<String>,
}

impl Contents {
    /// Everything in some packs, without names.
    pub fn of(packs: &[&Pack]) -> Self {
        let ids = packs.iter().flat_map(|pack| &pack.objects);
        let mut objects: Vec<(Oid, u8)> = ids.map(|id| (*id, 0)).collect();
        objects.sort_unstable();
        objects.dedup();
        Self {
            objects,
            names: vec![String::new()],
        }
    }

    /// Names an object, if it is one of them.
    pub fn name(&mut self, id: &Oid, name: &str) {
        let Ok(at) = self.objects.binary_search_by_key(id, |(id, _)| *id) else {
            return;
        };
        let known = self.names.iter().position(|n| n == name);
        let known = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        // The grammar has a handful of file names.
        self.objects[at].1 = u8::try_from(known).unwrap_or(0);
    }

    fn ids(&self) -> impl Iterator<Item = Oid> {
        self.objects.iter().map(|(id, _)| *id)
    }
}
