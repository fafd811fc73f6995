//! Background work: few packs instead of many, made small by stock git.
//!
//! A store begins it by itself, in a thread, after every [`MAX_PACKS`] packs; whoever keeps a store idle can call it. It
//! needs no open [`Store`](super::Store) and blocks none: it writes a new pack, waits until nobody can still be
//! reading the old ones, and then removes those.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use super::flush::{read_packed_refs, sync_dir};
use super::objects::git_id;
use super::open::open_repository;
use super::{PRIVATE_DIR, StoreError, TIP_REF, io_error};
use crate::grammar::{Loose, files_of};
use crate::oid::Oid;

/// More packs than this are rolled up.
pub const MAX_PACKS: usize = 24;
/// How long a pack whose objects stand in a newer one stays for those who read it: a clone in flight opens its packs
/// within this time.
pub const PACK_GRACE: Duration = Duration::from_secs(120);
/// How long old tips can be fetched, so that a clone in flight doesn't break.
pub const TIP_KEPT: Duration = Duration::from_secs(3600);

/// Blobs above this are not tried for deltas: large batches are mostly signatures, which have nothing in common.
const LARGE: &str = "core.bigFileThreshold=16k";

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaintainReport {
    /// Packs whose objects stand only there.
    pub packs: usize,
    /// Packs that were rolled into a new one.
    pub rolled_up: usize,
    /// Packs that were removed, after their grace.
    pub removed: usize,
    /// Old tips that were left out of the new pack.
    pub tips_dropped: usize,
}

struct Pack {
    name: String,
    objects: Vec<Oid>,
}

/// The packs of a repository, without those that wait for their grace to end.
pub(super) struct Packs {
    doomed_dir: PathBuf,
    packs_dir: PathBuf,
    private: PathBuf,
    all: Vec<Pack>,
}

/// Rolls small packs up when there are more than [`MAX_PACKS`]. Safe beside readers and beside the writing process;
/// a second call at the same time does nothing.
pub fn maintain(path: &Path) -> Result<MaintainReport, StoreError> {
    maintain_with(path, MAX_PACKS, PACK_GRACE, TIP_KEPT)
}

/// As [`maintain`], with other bounds.
pub fn maintain_with(
    path: &Path,
    max_packs: usize,
    grace: Duration,
    tip_kept: Duration,
) -> Result<MaintainReport, StoreError> {
    let mut report = MaintainReport::default();
    let lock = lock(path)?;
    if lock.try_lock().is_err() {
        return Ok(report);
    }
    let mut packs = Packs::of(path, grace, &mut report)?;
    report.packs = packs.all.len();
    if packs.all.len() <= max_packs {
        return Ok(report);
    }
    packs
        .all
        .sort_by(|a, b| (a.objects.len(), &a.name).cmp(&(b.objects.len(), &b.name)));
    let some: Vec<&Pack> = packs.all[..to_roll_up(&packs.all)].iter().collect();
    let names = roll_up_list(path, &packs.packs_dir, &some, tip_kept, &mut report)?;
    report.rolled_up = packs.replace(path, &some, &names)?;
    report.packs = report.packs + 1 - some.len();
    Ok(report)
}

/// What whoever writes packs anew has to lock.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    File::create(path.join(PRIVATE_DIR).join("maintain.lock")).map_err(io_error("opening the lock"))
}

impl Packs {
    /// Removes those whose grace is over, and reads the ids of the others.
    pub fn of(
        path: &Path,
        grace: Duration,
        report: &mut MaintainReport,
    ) -> Result<Self, StoreError> {
        let private = path.join(PRIVATE_DIR);
        let doomed_dir = private.join("doomed");
        fs::create_dir_all(&doomed_dir).map_err(io_error("making a folder for old packs"))?;
        let packs_dir = path.join("objects").join("pack");
        let doomed = bury(&doomed_dir, &packs_dir, grace, report)?;
        let all = list(&packs_dir)?
            .into_iter()
            .filter(|name| !doomed.contains(name))
            .map(|name| {
                let objects = index_ids(&packs_dir.join(format!("{name}.idx")))?;
                Ok(Pack { name, objects })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Self {
            doomed_dir,
            packs_dir,
            private,
            all,
        })
    }

    /// All objects; one that stands in two packs comes twice.
    pub fn objects(&self) -> impl Iterator<Item = &Oid> {
        self.all.iter().flat_map(|pack| &pack.objects)
    }

    /// Writes those packs anew, as one, that have something of what is `dead`, and without that. Says how many those were.
    pub fn without(
        &self,
        path: &Path,
        dead: impl Fn(&Oid) -> bool,
        tip_kept: Duration,
    ) -> Result<usize, StoreError> {
        let has_dead = |pack: &&Pack| pack.objects.iter().any(&dead);
        let some: Vec<&Pack> = self.all.iter().filter(has_dead).collect();
        let report = &mut MaintainReport::default();
        let mut names = roll_up_list(path, &self.packs_dir, &some, tip_kept, report)?;
        names.retain(|(id, _)| !dead(id));
        self.replace(path, &some, &names)
    }

    /// Puts one new pack of these objects beside some packs, and dooms those.
    fn replace(
        &self,
        path: &Path,
        packs: &[&Pack],
        names: &[(Oid, String)],
    ) -> Result<usize, StoreError> {
        let mut new = None;
        if !names.is_empty() {
            let name = pack_objects(path, &self.private, &self.packs_dir, names)?;
            let got = index_ids(&self.packs_dir.join(format!("{name}.idx")))?;
            // Nothing is given up before the new pack is seen to have it.
            let expected: BTreeSet<Oid> = names.iter().map(|(id, _)| *id).collect();
            if !got.iter().copied().eq(expected) {
                return Err(StoreError::NotALedger {
                    path: path.into(),
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
}

/// How many of the packs, smallest first, are rolled up: sizes then grow geometrically, so that an object is packed
/// again only about log2 of all times.
fn to_roll_up(packs: &[Pack]) -> usize {
    let mut sum = 0;
    let mut count = 2;
    for (i, pack) in packs.iter().enumerate() {
        if pack.objects.len() < 2 * sum {
            count = i + 1;
        }
        sum += pack.objects.len();
    }
    count.min(packs.len())
}

/// Removes packs whose grace is over, and gives the names of those that still wait.
fn bury(
    doomed_dir: &Path,
    packs_dir: &Path,
    grace: Duration,
    report: &mut MaintainReport,
) -> Result<BTreeSet<String>, StoreError> {
    let mut waiting = BTreeSet::new();
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
        report.removed += 1;
    }
    Ok(waiting)
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

/// What the new pack is to hold, with the file names by which git finds good deltas. Old tips are left out.
fn roll_up_list(
    path: &Path,
    packs_dir: &Path,
    packs: &[&Pack],
    tip_kept: Duration,
    report: &mut MaintainReport,
) -> Result<Vec<(Oid, String)>, StoreError> {
    let repo = open_repository(path)?;
    let odb = repo.odb()?;
    let tip = read_packed_refs(path)?.get(TIP_REF).copied();
    let mut names: HashMap<Oid, String> = HashMap::new();
    let mut dropped: BTreeSet<Oid> = BTreeSet::new();
    for pack in packs {
        let old = age(&packs_dir.join(format!("{}.idx", pack.name))) >= tip_kept;
        for id in &pack.objects {
            let object = odb.read(git_id(id))?;
            names.entry(*id).or_default();
            match object.kind() {
                git2::ObjectType::Tree => {
                    for (name, blob) in files_of(object.data()).unwrap_or_default() {
                        names.insert(blob, name.to_owned());
                    }
                }
                git2::ObjectType::Commit if old && Some(*id) != tip => {
                    if let Some(tree) = tip_tree_of(object.data()) {
                        dropped.extend([*id, tree]);
                        report.tips_dropped += 1;
                    }
                }
                _ => {}
            }
        }
    }
    let mine: BTreeSet<Oid> = packs.iter().flat_map(|p| &p.objects).copied().collect();
    Ok(mine
        .into_iter()
        .filter(|id| !dropped.contains(id))
        .map(|id| (id, names.remove(&id).unwrap_or_default()))
        .collect())
}

fn tip_tree_of(commit: &[u8]) -> Option<Oid> {
    let loose = Loose::read("tip", commit).ok()?;
    let is_tip = loose.message.starts_with("tip ")
        && commit
            .windows(26)
            .any(|w| w == b"author instar <tip@tip.ins");
    is_tip.then_some(loose.tree)
}

/// Makes the pack with stock git, makes it durable, and moves it in. Returns its name.
fn pack_objects(
    path: &Path,
    private: &Path,
    packs_dir: &Path,
    names: &[(Oid, String)],
) -> Result<String, StoreError> {
    let what = "git pack-objects";
    // A git that outlived a killed node may still write into its folder: it fails when that is gone.
    let rolling: PathBuf = private.join("rolling");
    let _ = fs::remove_dir_all(&rolling);
    let folder = rolling.join(std::process::id().to_string());
    fs::create_dir_all(&folder).map_err(io_error(what))?;
    let mut child = crate::http::git(path)
        .args(["-c", "pack.threads=1", "-c", LARGE, "pack-objects"])
        .args(["--quiet", "--delta-base-offset", "--window=5"])
        .arg(folder.join("pack"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(io_error(what))?;
    let mut input = child.stdin.take().expect("stdin was piped");
    // git reads the whole list before it writes anything, so this can't block on a full pipe of the other side.
    for (id, name) in names {
        writeln!(input, "{id} {name}").map_err(io_error(what))?;
    }
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
            .and_then(|()| fs::rename(&from, packs_dir.join(format!("{name}.{ending}"))))
            .map_err(io_error(what))?;
    }
    sync_dir(packs_dir)?;
    Ok(name)
}
