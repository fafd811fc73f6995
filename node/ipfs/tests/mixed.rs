//! Mixed sources: honest, lying, slow, broken ones together; what breaks off resumes.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use instar_chunks::car::write_car;
use instar_chunks::import::{Content, ImportOptions};
use instar_chunks::{BlockStore, Blocks, Cid, Limits, missing};
use instar_ipfs::sources::{
    CarSource, Fetching, MixedError, Source, SourceError, Stream, fetch_mixed,
};

fn content(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

struct World {
    dir: tempfile::TempDir,
    full: Arc<BlockStore>,
    root: Cid,
}

impl World {
    fn new(len: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::create_dir_all(from.join("a")).unwrap();
        std::fs::write(from.join("a/large"), content(len)).unwrap();
        std::fs::write(from.join("small"), b"small").unwrap();
        let full = BlockStore::open(&dir.path().join("full")).unwrap();
        let root = full
            .import(Content::Path(&from), &ImportOptions::default(), None)
            .unwrap()
            .cid;
        Self {
            dir,
            full: Arc::new(full),
            root,
        }
    }

    fn empty(&self, name: &str) -> BlockStore {
        BlockStore::open(&self.dir.path().join(name)).unwrap()
    }

    fn source(&self, name: &'static str, kind: Kind) -> Box<dyn Source> {
        Box::new(Fake {
            name,
            kind,
            store: Arc::clone(&self.full),
            asked: AtomicUsize::new(0),
        })
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Honest,
    /// Every block is another.
    Liar,
    /// Takes longer for each block than anybody waits.
    Slow,
    /// Fails always.
    Broken,
    /// Doesn't have anything.
    Empty,
    /// Has the first so many, then fails.
    Dies(usize),
    /// Gives an archive that breaks off after so many bytes, and single blocks.
    Archive(usize),
    /// Gives an archive full of blocks that nobody asked for.
    Stuffed,
}

/// A source that does what it is told: not a mock of HTTP, but another answerer behind the seam.
struct Fake {
    name: &'static str,
    kind: Kind,
    store: Arc<BlockStore>,
    asked: AtomicUsize,
}

impl Source for Fake {
    fn name(&self) -> String {
        self.name.into()
    }

    fn parallel(&self) -> usize {
        3
    }

    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, SourceError> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
        match self.kind {
            Kind::Liar => Ok(Some(b"something else".to_vec())),
            Kind::Slow => {
                std::thread::sleep(Duration::from_secs(6));
                Ok(self.store.get(cid).unwrap())
            }
            Kind::Broken => Err(SourceError("out of order".into())),
            Kind::Empty => Ok(None),
            Kind::Dies(after) if asked >= after => Err(SourceError("gone".into())),
            _ => Ok(self.store.get(cid).unwrap()),
        }
    }

    fn stream(&self, root: &Cid) -> Option<Result<Stream, SourceError>> {
        let mut car = Vec::new();
        match self.kind {
            Kind::Archive(bytes) => {
                write_car(&*self.store, &[*root], &Limits::default(), &mut car).unwrap();
                car.truncate(bytes);
            }
            Kind::Stuffed => {
                let mut out = instar_chunks::car::CarWriter::new(&mut car, &[*root]).unwrap();
                for i in 0..100_u8 {
                    let bytes = [i; 1000];
                    let cid = instar_chunks::block::cid_of(instar_chunks::block::RAW, &bytes);
                    out.block(&cid, &bytes).unwrap();
                }
            }
            _ => return None,
        }
        Some(Ok(Box::new(std::io::Cursor::new(car))))
    }
}

fn fetch(
    world: &World,
    store: &BlockStore,
    sources: &[Box<dyn Source>],
) -> Result<instar_ipfs::sources::MixedReport, MixedError> {
    fetch_mixed(store, sources, &world.root, &Limits::default(), &|_, _| ())
}

#[test]
fn liars_and_broken_ones_are_dropped_and_named_and_the_rest_gives_it() {
    let world = World::new(3_000_000);
    let store = world.empty("s");
    let sources = [
        world.source("liar", Kind::Liar),
        world.source("broken", Kind::Broken),
        world.source("empty", Kind::Empty),
        world.source("honest", Kind::Honest),
    ];
    let report = fetch(&world, &store, &sources).unwrap();
    assert!(
        missing(&store, &world.root, &Limits::default())
            .unwrap()
            .is_empty()
    );
    assert_eq!(report.fetched_blocks, world.full.len().unwrap());
    let said = |n: usize| report.sources[n].dropped.clone().unwrap_or_default();
    assert!(said(0).contains("lied"), "{}", said(0));
    assert!(said(1).contains("out of order"), "{}", said(1));
    assert_eq!((said(2), said(3)), (String::new(), String::new()));
    assert_eq!(report.sources[3].blocks, report.fetched_blocks);
}

#[test]
fn a_slow_one_is_overtaken_dropped_and_named() {
    let world = World::new(3_000_000);
    let store = world.empty("s");
    let sources = [
        world.source("slow", Kind::Slow),
        world.source("honest", Kind::Honest),
    ];
    let report = fetch(&world, &store, &sources).unwrap();
    assert!(
        missing(&store, &world.root, &Limits::default())
            .unwrap()
            .is_empty()
    );
    let said = report.sources[0].dropped.clone().unwrap_or_default();
    assert_eq!(said, "it was too slow");
    assert_eq!(
        report.sources[0].blocks, 0,
        "its late blocks are not counted"
    );
    assert_eq!(report.sources[1].blocks, report.fetched_blocks);
    assert_eq!(report.sources[1].dropped, None);
}

#[test]
fn what_breaks_off_goes_on_where_it_was() {
    let world = World::new(9_000_000);
    let store = world.empty("s");
    let all = world.full.len().unwrap();
    let error = fetch(&world, &store, &[world.source("dies", Kind::Dies(200))]).unwrap_err();
    let MixedError::Nowhere { sources, .. } = &error else {
        panic!("{error}")
    };
    assert!(sources[0].dropped.as_ref().unwrap().contains("gone"));
    let kept = store.len().unwrap();
    assert!((190..=200).contains(&kept), "{kept} of {all} were kept");
    let report = fetch(&world, &store, &[world.source("honest", Kind::Honest)]).unwrap();
    assert_eq!(report.fetched_blocks, all - kept);
    // And a third time nothing is asked of anybody.
    let report = fetch(&world, &store, &[world.source("broken", Kind::Broken)]).unwrap();
    assert_eq!(report.fetched_blocks, 0);
    assert!(fetch(&world, &store, &[]).is_ok());
}

#[test]
fn an_archive_serves_as_far_as_it_goes() {
    let world = World::new(3_000_000);
    for (number, bytes) in [0, 30, 1_000_000, usize::MAX].into_iter().enumerate() {
        let store = world.empty(&format!("s{number}"));
        let report = fetch(&world, &store, &[world.source("a", Kind::Archive(bytes))]).unwrap();
        assert_eq!(report.fetched_blocks, world.full.len().unwrap(), "{bytes}");
    }
    // What nobody asked for is not kept.
    let store = world.empty("stuffed");
    let report = fetch(&world, &store, &[world.source("s", Kind::Stuffed)]).unwrap();
    assert_eq!(store.len().unwrap(), report.blocks as u64);
    assert_eq!(store.len().unwrap(), world.full.len().unwrap());
}

#[test]
fn nobody_has_it() {
    let world = World::new(100_000);
    let store = world.empty("s");
    let error = fetch(&world, &store, &[]).unwrap_err().to_string();
    assert!(error.contains("no source was named"), "{error}");
    let sources = [
        world.source("e", Kind::Empty),
        world.source("liar", Kind::Liar),
    ];
    let error = fetch(&world, &store, &sources).unwrap_err().to_string();
    assert!(error.contains("e: doesn't have it"), "{error}");
    assert!(error.contains("liar: dropped, it lied"), "{error}");
    assert!(store.is_empty().unwrap());
}

#[test]
fn a_file_as_a_source_and_a_path_alone() {
    let world = World::new(1_000_000);
    let path = world.dir.path().join("a.car");
    let file = std::fs::File::create(&path).unwrap();
    write_car(&*world.full, &[world.root], &Limits::default(), file).unwrap();
    let sources: [Box<dyn Source>; 1] = [Box::new(CarSource::open(&path).unwrap())];
    let store = world.empty("s");
    let fetching = Fetching::new(&store, &sources);
    let limits = Limits::default();
    let small = instar_chunks::read::resolve(&fetching, &world.root, "small", &limits).unwrap();
    fetch_mixed(&store, &sources, &small, &limits, &|_, _| ()).unwrap();
    assert_eq!(store.len().unwrap(), 2, "the root and the one file");
    assert_eq!(
        instar_chunks::read_file(&store, &small, 10).unwrap(),
        b"small"
    );
    fetch(&world, &store, &sources).unwrap();
    assert_eq!(store.len().unwrap(), world.full.len().unwrap());
}
