//! Making and opening a store, and what a crash left in its journal.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use instar_attest::{ChainId, json};

use super::objects::{Objects, our_id};
use super::{
    GENESIS_REF, MAX_PACKS, OpenOptions, PRIVATE_DIR, Store, StoreError, TIP_REF, TRUNK_REF,
    Writer, io_error,
};
use super::{base, blocks, flush, lanes, lend, packs};
use crate::certificate::Certificate;
use crate::genesis::{Genesis, GenesisFork};
use crate::grammar::{self, Kind};
use crate::journal::{Journal, MAX_RECORD_BYTES, RecordKind, Records};
use crate::mark::{Mark, MarkFile};
use crate::oid::Oid;
use crate::pack;

/// How long a lock may be taken still by a writer that is going.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Between two tries.
const LOCK_POLL: Duration = Duration::from_millis(10);

impl Store {
    /// Makes a new chain's repository. The folder must not exist or be empty.
    pub fn create(path: &Path, genesis: &Genesis) -> Result<(Self, ChainId), StoreError> {
        Self::create_with(path, genesis, &OpenOptions::default())
    }

    /// As [`Store::create`], with options.
    pub fn create_with(
        path: &Path,
        genesis: &Genesis,
        options: &OpenOptions,
    ) -> Result<(Self, ChainId), StoreError> {
        let objects = grammar::genesis_objects(genesis)?;
        let chain = ChainId::from(objects[0].id);
        // Looked for first, so that nothing is left behind where it is missing.
        let forked_at = genesis.fork.as_ref().map(GenesisFork::block);
        let mother = forked_at
            .map(|block| mother_with(options.mother.as_deref(), &block))
            .transpose()?;
        fs::create_dir_all(path).map_err(io_error(format!("making {}", path.display())))?;
        let mut entries = fs::read_dir(path).map_err(io_error(path.display().to_string()))?;
        if entries.next().is_some() {
            return Err(not_a_ledger(path, "the folder is not empty"));
        }
        let repo = git2::Repository::init_opts(
            path,
            git2::RepositoryInitOptions::new()
                .bare(true)
                .no_reinit(true)
                .external_template(false)
                .object_format(git2::ObjectFormat::Sha256)
                .initial_head("trunk"),
        )?;
        let mut config = repo.config()?;
        // Packs are this store's own work, and reflogs would name people.
        config.set_bool("gc.auto", false)?;
        config.set_bool("core.logAllRefUpdates", false)?;
        // A clone over stateless HTTP may ask for a tip that has moved on since it was advertised.
        config.set_bool("uploadpack.allowAnySHA1InWant", true)?;
        if let (Some(mother), Some(block)) = (&mother, &forked_at) {
            lend::borrow(path, mother)?;
            // She may have let go of it before she was told.
            if let Err(e) = mother_with(Some(mother), block) {
                let _ = fs::remove_dir_all(path);
                return Err(e);
            }
        }
        fs::create_dir(path.join(PRIVATE_DIR)).map_err(io_error("making the private folder"))?;
        let mut store = Self {
            path: path.into(),
            chain,
            genesis: genesis.clone(),
            // Opened again, so that the library sees the mother's objects.
            objects: Objects::new(open_repository(path)?),
            writer: Some(open_writer(path, options)?.0),
            lanes: BTreeMap::new(),
            first: 0,
            trunk: vec![chain.into()],
            tip: None,
            verified: Default::default(),
        };
        store.objects.add(objects);
        store.flush()?;
        Ok((store, chain))
    }

    /// Opens the store of this node for writing, without a lane of its own.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// Opens the store of this node for writing, and replays what a crash left in the journal.
    pub fn open_with(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        if !path.join(PRIVATE_DIR).is_dir() {
            return Err(not_a_ledger(
                path,
                "it has no folder `instar`; a clone is opened with open_clone",
            ));
        }
        let (writer, records) = open_writer(path, options)?;
        flush::remove_temporary(path)?;
        lend::tell_again(path);
        // Whoever was reading from the process before is gone, and so must be what it let go: an object that comes again is
        // kept only where it is not there.
        packs::bury_all(path)?;
        let refs = flush::read_packed_refs(path)?;
        let objects = Objects::new(open_repository(path)?);
        let trunk_head = *refs
            .get(TRUNK_REF)
            .ok_or_else(|| not_a_ledger(path, "it has no trunk"))?;
        let cut = base::read_shallow(path)?;
        let (trunk, heights_on_disk) = blocks::load_heights(path, &objects, trunk_head, &cut)?;
        let genesis = refs.get(GENESIS_REF).copied();
        let tip = refs.get(TIP_REF).copied();
        let mut store = Self::assemble(path, objects, trunk, genesis, tip)?;
        for (name, head) in &refs {
            if let Some(lane) = name.strip_prefix("refs/lanes/") {
                let lane = lane
                    .parse()
                    .map_err(|_| not_a_ledger(path, &format!("{name} is no lane")))?;
                let seq = store.signed_lane_commit(head)?.payload.seq;
                store.lanes.insert(lane, (*head, seq));
            }
        }
        store.writer = Some(Writer {
            heights_on_disk,
            ..writer
        });
        store.replay(records)?;
        store.flush()?;
        // Always a new generation, even after a journal of which nothing counted: behind its torn first record there may
        // be whole ones, and they must not come back behind the next.
        let journal = &mut store.writer()?.journal;
        journal
            .reset()
            .map_err(io_error("starting the journal over"))?;
        Ok(store)
    }

    /// Opens any clone for reading, for example one that an auditor made with stock git. Nothing in it is trusted:
    /// whatever is read is checked against the grammar.
    pub fn open_clone(path: &Path) -> Result<Self, StoreError> {
        let repo = open_repository(path)?;
        let find = |names: [&str; 2]| {
            names
                .iter()
                .find_map(|name| repo.refname_to_id(name).ok().and_then(our_id))
        };
        let tip = find([TIP_REF, "refs/remotes/origin/tip"]);
        let trunk = find([TRUNK_REF, "refs/remotes/origin/trunk"]);
        let genesis = find([GENESIS_REF, "refs/remotes/origin/genesis"]);
        let cut = base::read_shallow(repo.path())?;
        let objects = Objects::new(repo);
        // The tip is authoritative: its parent is the head, even if the trunk was read a moment before it moved.
        let head = match tip {
            Some(tip) => blocks::parent_of_tip(&objects, &tip)?,
            None => trunk.ok_or_else(|| not_a_ledger(path, "it has no branch trunk"))?,
        };
        let trunk = blocks::walk_trunk(&objects, head, &cut)?;
        Self::assemble(path, objects, trunk, genesis, tip)
    }

    fn assemble(
        path: &Path,
        objects: Objects,
        trunk: Vec<Oid>,
        genesis: Option<Oid>,
        tip: Option<Oid>,
    ) -> Result<Self, StoreError> {
        // Only a ledger that begins in the middle has a branch for genesis.
        let root = genesis.unwrap_or(trunk[0]);
        let genesis = read_genesis(&objects, &root)?;
        let mut store = Self {
            path: path.into(),
            chain: root.into(),
            genesis,
            objects,
            writer: None,
            lanes: BTreeMap::new(),
            first: 0,
            trunk,
            tip: None,
            verified: Default::default(),
        };
        if store.trunk[0] != root {
            store.first = store.header(&store.trunk[0])?.height;
        }
        store.tip = tip.map(|tip| store.read_tip(&tip)).transpose()?;
        Ok(store)
    }

    fn replay(&mut self, records: Records) -> Result<(), StoreError> {
        let mut own = None;
        for (kind, payload) in records {
            match kind {
                RecordKind::Objects | RecordKind::OwnCommit => {
                    let objects = pack::read(&payload, MAX_RECORD_BYTES as usize)?;
                    if kind == RecordKind::OwnCommit {
                        own = objects.first().map(|o| o.id);
                    }
                    let new: Vec<_> = objects
                        .into_iter()
                        .filter(|o| !self.objects.contains(&o.id))
                        .collect();
                    self.objects.add(new);
                    if let Some(id) = own.take() {
                        self.replay_own(id)?;
                    }
                }
                RecordKind::Lane => {
                    let (lane, head, seq) = lanes::lane_record(&payload)?;
                    self.lanes.insert(lane, (head, seq));
                }
                RecordKind::Final => {
                    let certificate = Certificate::from_bytes(&payload)
                        .map_err(|e| StoreError::Draft(e.into()))?;
                    // A crash within a flush leaves records of what the refs have already.
                    let (head, _) = self.head();
                    if certificate.height > head {
                        self.move_trunk(&certificate)?;
                    } else if certificate.height == head {
                        self.tip = Some(certificate);
                    }
                }
            }
        }
        Ok(())
    }

    /// An own commit in the journal may lack its mark, if the crash came between the two: its signature has not left,
    /// so it becomes the lane's head together with its mark, or not at all.
    fn replay_own(&mut self, id: Oid) -> Result<(), StoreError> {
        let payload = self.signed_lane_commit(&id)?.payload;
        let before = self.lanes.get(&payload.lane).map_or(0, |(_, seq)| *seq);
        if payload.seq <= before {
            return Ok(());
        }
        let chain = self.chain;
        if let Some(file) = self.writer()?.mark.as_mut()
            && file.mark().lane == payload.lane
            && file.mark().seq + 1 == payload.seq
        {
            file.advance(Mark {
                chain,
                commit: Some(id),
                lane: payload.lane,
                seq: payload.seq,
            })?;
        }
        self.lanes.insert(payload.lane, (id, payload.seq));
        Ok(())
    }
}

/// Takes the lock, also when the writer before is only just gone: a process that it was starting at that moment holds
/// a copy of its lock until it has become another program.
fn take_lock(lock: &fs::File) -> Result<(), fs::TryLockError> {
    let start = Instant::now();
    loop {
        match lock.try_lock() {
            Err(fs::TryLockError::WouldBlock) if start.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_POLL);
            }
            taken => return taken,
        }
    }
}

fn open_writer(path: &Path, options: &OpenOptions) -> Result<(Writer, Records), StoreError> {
    let dir = path.join(PRIVATE_DIR);
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))
        .map_err(io_error("opening the lock"))?;
    take_lock(&lock).map_err(|_| StoreError::Locked(path.into()))?;
    let (journal, records) =
        Journal::open(&dir.join("journal")).map_err(io_error("opening the journal"))?;
    // A mark that can't be opened is no reason not to follow the chain: appending will say what is wrong.
    let mark = options
        .lane_mark
        .as_deref()
        .and_then(|path| MarkFile::open(path).ok());
    let writer = Writer {
        journal,
        mark,
        mark_path: options.lane_mark.clone(),
        flushed_at: Instant::now(),
        heights_on_disk: 0,
        // The packs of before are unknown, so that the first one written looks after them.
        packs_written: MAX_PACKS,
        maintenance: None,
        _lock: lock,
    };
    Ok((writer, records))
}

/// The mother's repository, in which the block is that the fork stands on.
fn mother_with(mother: Option<&Path>, block: &Oid) -> Result<PathBuf, StoreError> {
    let missing = || StoreError::NoMother {
        block: *block,
        path: mother.unwrap_or(Path::new("any named repository")).into(),
    };
    let repo = open_repository(mother.ok_or_else(missing)?).map_err(|_| missing())?;
    // A ledger that begins in the middle has the block, and not what it stands on.
    if repo.is_shallow() {
        return Err(missing());
    }
    let path = repo.path().to_owned();
    Objects::new(repo)
        .read(block, Kind::Commit)
        .map_err(|_| missing())?;
    Ok(path)
}

/// Opens exactly this folder: no search in parents, no configuration of the user.
pub(super) fn open_repository(path: &Path) -> Result<git2::Repository, StoreError> {
    // Of what it has read libgit2 would keep up to a quarter of a gigabyte; a ledger reads most objects once. Its windows
    // into packs stay as they are: with small ones its indexer refuses good packs.
    git2::opts::enable_caching(false);
    let none: [&str; 0] = [];
    let repo = git2::Repository::open_ext(path, git2::RepositoryOpenFlags::NO_SEARCH, none)?;
    if repo.object_format() != git2::ObjectFormat::Sha256 {
        return Err(not_a_ledger(path, "its objects are not SHA-256"));
    }
    Ok(repo)
}

fn read_genesis(objects: &Objects, root: &Oid) -> Result<Genesis, StoreError> {
    grammar::read_genesis(root, |id, kind| objects.read(id, kind))
        .map(|(genesis, _)| genesis)
        .map_err(|error| lanes::at(root, error))
}

pub(super) fn not_a_ledger(path: &Path, why: &str) -> StoreError {
    StoreError::NotALedger {
        path: path.into(),
        why: why.into(),
    }
}

/// The canonical bytes of something of ours that is always canonical.
pub(super) fn record_bytes(value: &impl serde::Serialize) -> Vec<u8> {
    json::to_vec(value).expect("records hold hex and numbers below 2^53")
}
