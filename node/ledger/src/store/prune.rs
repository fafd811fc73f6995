//! Letting go of what lies before a block. The ledger begins there then, as one does that came by a snapshot: the block with
//! its receipts, the heads of the lanes as they were merged there, genesis, and everything since.
//!
//! It takes three steps, of which only the second needs the open store. [`Pruning::plan`] finds out what is to go;
//! [`Store::begin_later`] moves the beginning, by one rename; [`Pruning::carry_out`] writes the packs anew without what went.
//! After a crash between them the ledger begins where it did or where it was to, with more on disk than it needs, which the
//! next pruning finds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use instar_attest::ChainId;

use super::base::{read_shallow, write_shallow};
use super::flush::sync_dir;
use super::lend::borrowers;
use super::maintain::rewrite_without;
use super::objects::git_id;
use super::open::open_repository;
use super::packs::{self, Packs};
use super::{PACK_GRACE, PRIVATE_DIR, Store, StoreError, io_error};
use crate::grammar::{self, Kind, Loose, SignedLaneCommit, files_of};
use crate::lane::Lane;
use crate::oid::Oid;

/// Between two rests. Nothing here is in a hurry, and blocks are.
const OBJECTS_AT_ONCE: usize = 256;
/// The longest rest.
const MAX_REST: Duration = Duration::from_millis(50);

/// The lanes as they are merged at a height.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The height.
    pub height: u64,
    /// The head and the sequence number of each lane, without those that nothing is merged of.
    pub lanes: BTreeMap<Lane, (Oid, u64)>,
}

/// What was let go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Objects.
    pub objects: usize,
    /// Packs that were written anew without them. The old ones are removed after [`super::PACK_GRACE`].
    pub packs: usize,
}

/// A pruning under way. As long as it lives no maintenance runs.
pub struct Pruning {
    path: PathBuf,
    height: u64,
    block: Oid,
    lanes: BTreeMap<Lane, (Oid, u64)>,
    dead: Arc<HashSet<Oid>>,
    /// Commits that stay and whose parents don't.
    edge: BTreeSet<Oid>,
    /// The packs that there were when it was planned.
    packs: Packs,
    _lock: File,
}

impl Store {
    /// What was merged of each lane at an earlier height, by what is merged of them at `later`.
    pub fn merged_before(&self, later: &Merged, height: u64) -> Result<Merged, StoreError> {
        let mut lanes = later.lanes.clone();
        for at in (height + 1..=later.height).rev() {
            let Some(id) = self.block_at(at) else {
                continue;
            };
            for range in self.header(&id)?.lanes {
                let lane = range.lane();
                if range.from == 1 {
                    lanes.remove(&lane);
                    continue;
                }
                let first = self.lane_commit_at(&range.head, range.from)?;
                let first = first.ok_or(StoreError::NotFound {
                    id: range.head,
                    kind: Kind::Commit,
                })?;
                let parent = self.signed_lane_commit(&first)?.payload.parent;
                lanes.insert(lane, (parent, range.from - 1));
            }
        }
        Ok(Merged { height, lanes })
    }

    /// Moves the beginning of this ledger to the block that a pruning was planned for. The light headers of before are the
    /// caller's to keep.
    ///
    /// # Errors
    /// [`StoreError::Lent`] if another repository has begun to read here.
    pub fn begin_later(&mut self, pruning: &mut Pruning) -> Result<(), StoreError> {
        let (height, block) = (pruning.height, pruning.block);
        if height <= self.first || self.block_at(height) != Some(block) {
            return Err(StoreError::NotNext {
                block,
                height,
                head: self.head().0,
            });
        }
        self.flush()?;
        pruning.spare_what_came_since()?;
        let mut cut = read_shallow(&self.path)?;
        cut.retain(|id| !pruning.dead.contains(id) && self.objects.contains(id));
        cut.extend(&pruning.edge);
        // A branch for genesis, which the trunk does not lead to any more; then the list of heights goes, which is made again
        // from the trunk; and with the file `shallow` the trunk ends at the block.
        let tip = self.tip_objects()?.map(|objects| objects[0].id);
        self.write_refs(tip, true)?;
        // From here on it is written whole, whatever fails.
        self.writer()?.heights_on_disk = 0;
        let heights = self.path.join(PRIVATE_DIR).join("heights");
        match fs::remove_file(&heights) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("removing the list of heights")(e));
            }
            _ => sync_dir(&self.path.join(PRIVATE_DIR))?,
        }
        // Last of all, and before anything can't be taken back: who borrows says so before reading.
        if let Some(borrower) = borrowers(&self.path).pop_first() {
            return Err(StoreError::Lent(borrower));
        }
        write_shallow(&self.path, &cut)?;
        let dead = Arc::clone(&pruning.dead);
        let packs = pruning.packs.with(|id| dead.contains(id)).into_iter();
        let files = packs.map(|pack| pruning.packs.index_of(pack)).collect();
        self.objects.let_go(dead, files);
        let gone = usize::try_from(height - self.first).unwrap_or(usize::MAX);
        self.trunk.drain(..gone);
        self.first = height;
        self.forget_verified();
        self.flush()
    }
}

impl Pruning {
    /// Finds out what a ledger that begins at `merged.height` does not need: its blocks below, and of each lane what is
    /// merged there but for the head. Commits of other chains stay. `reader` is a ledger that is open for reading, and the
    /// caller has seen that nobody borrows from it.
    pub fn plan(reader: &Store, merged: Merged) -> Result<Self, StoreError> {
        let path = reader.path().to_owned();
        let Merged { height, lanes } = merged;
        let block = reader.block_at(height).ok_or(StoreError::NotNext {
            block: Oid::from(*reader.chain()),
            height,
            head: reader.head().0,
        })?;
        let lock = packs::lock(&path)?;
        lock.lock().map_err(io_error("waiting for maintenance"))?;
        let mut pruning = Self {
            packs: Packs::of(&path, PACK_GRACE)?.0,
            path,
            height,
            block,
            lanes,
            dead: Arc::default(),
            edge: BTreeSet::new(),
            _lock: lock,
        };
        pruning.find(reader.chain())?;
        Ok(pruning)
    }

    /// The block that the ledger begins with then.
    pub fn block(&self) -> Oid {
        self.block
    }

    /// Its height.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// Three passes over all objects: which commits go; which of their trees no other commit has; and which of those trees'
    /// files no other tree has. So what is held in memory is what goes.
    fn find(&mut self, chain: &ChainId) -> Result<(), StoreError> {
        let repo = open_repository(&self.path)?;
        let odb = repo.odb()?;
        let ids = || self.packs.objects();
        let mut pace = Pace::new();
        let (mut commits, mut trees) = (HashSet::new(), HashSet::new());
        for id in ids() {
            pace.step();
            if odb.read_header(git_id(id))?.1 != git2::ObjectType::Commit {
                continue;
            }
            let object = odb.read(git_id(id))?;
            if let Some(tree) = self.goes(id, object.data(), chain) {
                commits.insert(*id);
                trees.insert(tree);
            }
        }
        let mut edge = BTreeSet::new();
        for id in ids() {
            pace.step();
            if commits.contains(id) || odb.read_header(git_id(id))?.1 != git2::ObjectType::Commit {
                continue;
            }
            let object = odb.read(git_id(id))?;
            let Ok(loose) = Loose::read("commit", object.data()) else {
                continue;
            };
            trees.remove(&loose.tree);
            if loose.parents.iter().any(|parent| commits.contains(parent)) {
                edge.insert(*id);
            }
        }
        let mut blobs: HashSet<Oid> = HashSet::new();
        for id in &trees {
            let object = odb.read(git_id(id))?;
            blobs.extend(
                files_of(object.data())
                    .unwrap_or_default()
                    .iter()
                    .map(|f| f.1),
            );
        }
        for id in ids() {
            pace.step();
            if trees.contains(id) || odb.read_header(git_id(id))?.1 != git2::ObjectType::Tree {
                continue;
            }
            let object = odb.read(git_id(id))?;
            for (_, blob) in files_of(object.data()).unwrap_or_default() {
                blobs.remove(&blob);
            }
        }
        commits.extend(trees);
        commits.extend(blobs);
        self.dead = Arc::new(commits);
        self.edge = edge;
        Ok(())
    }

    /// What was written since the plan was made can have the content of something that goes, which then is not in its own
    /// pack; and it can stand on it.
    fn spare_what_came_since(&mut self) -> Result<(), StoreError> {
        let (now, _) = Packs::of(&self.path, PACK_GRACE)?;
        let repo = open_repository(&self.path)?;
        let odb = repo.odb()?;
        let dead = Arc::make_mut(&mut self.dead);
        for id in now.newer_than(&self.packs) {
            match odb.read_header(git_id(id))?.1 {
                git2::ObjectType::Commit => {
                    let object = odb.read(git_id(id))?;
                    let Ok(loose) = Loose::read("commit", object.data()) else {
                        continue;
                    };
                    if loose.parents.iter().any(|parent| dead.contains(parent)) {
                        self.edge.insert(*id);
                    }
                    if dead.remove(&loose.tree) {
                        let tree = odb.read(git_id(&loose.tree))?;
                        for (_, blob) in files_of(tree.data()).unwrap_or_default() {
                            dead.remove(&blob);
                        }
                    }
                }
                git2::ObjectType::Tree => {
                    let object = odb.read(git_id(id))?;
                    for (_, blob) in files_of(object.data()).unwrap_or_default() {
                        dead.remove(&blob);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The tree of a commit that goes. Blocks that never became final go with those that did.
    fn goes(&self, id: &Oid, bytes: &[u8], chain: &ChainId) -> Option<Oid> {
        if let Ok(commit) = SignedLaneCommit::unverified(bytes, chain) {
            let payload = commit.payload;
            let (head, seq) = self.lanes.get(&payload.lane)?;
            return (payload.seq <= *seq && id != head).then_some(payload.tree);
        }
        let loose = Loose::read("commit", bytes).ok()?;
        let of_chain = loose.trailer("Chain")?.parse() == Ok(*chain);
        if !of_chain || grammar::is_genesis(bytes) {
            return None;
        }
        let (what, height) = loose.message.split_once(':')?.0.split_once(' ')?;
        let height: u64 = height.parse().ok()?;
        let goes = match what {
            "block" => height < self.height || (height == self.height && *id != self.block),
            "tip" => height < self.height,
            _ => false,
        };
        goes.then_some(loose.tree)
    }

    /// Writes those packs anew that have something that goes. Where this fails, nothing is lost: what was to go stays.
    pub fn carry_out(self) -> Result<Pruned, StoreError> {
        let packs = rewrite_without(&self.path, &self.packs, |id| self.dead.contains(id))?;
        Ok(Pruned {
            objects: self.dead.len(),
            packs,
        })
    }
}

/// Rests as long as it works.
struct Pace {
    since: Instant,
    steps: usize,
}

impl Pace {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            steps: 0,
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        if self.steps.is_multiple_of(OBJECTS_AT_ONCE) {
            std::thread::sleep(self.since.elapsed().min(MAX_REST));
            self.since = Instant::now();
        }
    }
}
