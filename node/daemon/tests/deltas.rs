//! Deltas between real peers on loopback: taken where they save something, believed by their address alone.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use instar_chunks::import::{Content, ImportOptions};
use instar_chunks::{BlockStore, Cid, Limits, export, missing};
use instar_delta::release::make_release;
use instar_ipfs::delta::{Deltas, Found};
use instar_ipfs::{Peer, PeerConfig, PeerId};
use instar_node::deltas::{Between, Maker, Old, Outcome, Wish, missing_bytes, obtain};

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Two releases whose program differs in a few bytes everywhere, so that no chunk of it stays.
struct Releases {
    dir: tempfile::TempDir,
    old: Cid,
    new: Cid,
    /// What leads from the one to the other.
    object: Vec<u8>,
}

impl Releases {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut program = noise(1, 1_500_000);
        let place = |name: &str| dir.path().join(name);
        for name in ["old", "new"] {
            fs::create_dir_all(place(name).join("linux")).unwrap();
            fs::write(place(name).join("linux/node"), &program).unwrap();
            fs::write(place(name).join("release.json"), name).unwrap();
            for at in (500..program.len()).step_by(5_000) {
                program[at] ^= 0x55;
            }
        }
        let object = make_release(&place("old"), &place("new")).unwrap().object;
        let cid = |name| {
            let path = place(name);
            instar_chunks::import::only_cid(Content::Path(&path), &ImportOptions::default())
                .unwrap()
                .cid
        };
        Self {
            old: cid("old"),
            new: cid("new"),
            object,
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

struct Node {
    peer: Peer,
    store: Arc<BlockStore>,
    dir: tempfile::TempDir,
}

impl Node {
    async fn start(seed: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(BlockStore::open(&dir.path().join("blocks")).unwrap());
        let peer = Peer::start(PeerConfig {
            seed: [seed; 32],
            listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
            store: store.clone(),
            dht: None,
        })
        .await
        .unwrap();
        Self { peer, store, dir }
    }

    fn hold(&self, path: &Path, pin: Option<&str>) {
        self.store
            .import(Content::Path(path), &ImportOptions::default(), pin)
            .unwrap();
    }

    async fn meet(&self, others: &[&Self]) {
        let mut connected = self.peer.watch_connected();
        for other in others {
            self.peer.connect(other.peer.addresses()[0].clone());
        }
        let all = connected.wait_for(|peers| peers.len() >= others.len());
        tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .unwrap()
            .unwrap();
    }

    async fn obtain(&self, wish: &Wish) -> Outcome {
        obtain(&self.peer, &self.store, wish, &Limits::default()).await
    }

    fn whole(&self, root: &Cid) -> bool {
        missing(&*self.store, root, &Limits::default())
            .unwrap()
            .is_empty()
    }
}

/// Offers these bytes to everybody, whatever they are.
struct Offers(Vec<u8>);

impl Deltas for Offers {
    fn find(&self, _: &Cid, _: &Cid, _: bool) -> Found {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&self.0).unwrap();
        Found::Here(file, self.0.len() as u64)
    }
}

/// Promises a little, and then has a file that is shorter than that.
struct Cuts;

impl Deltas for Cuts {
    fn find(&self, _: &Cid, _: &Cid, _: bool) -> Found {
        Found::Here(File::open("/dev/null").unwrap(), 900)
    }
}

fn wish(releases: &Releases, node: &Node, old: Old) -> Wish {
    Wish {
        piece: Duration::from_secs(2),
        ..Wish::new(releases.old, old, releases.new, node.dir.path())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_brings_the_release_and_not_its_blocks() {
    let releases = Releases::new();
    let server = Node::start(1).await;
    server.hold(&releases.path("old"), None);
    server.hold(&releases.path("new"), None);
    server
        .peer
        .offer_deltas(Arc::new(Offers(releases.object.clone())));
    for old in [Old::Path(releases.path("old")), Old::Held] {
        let node = Node::start(2).await;
        if matches!(old, Old::Held) {
            node.hold(&releases.path("old"), None);
        }
        node.meet(&[&server]).await;
        let outcome = node.obtain(&wish(&releases, &node, old)).await;
        let got = outcome.got.expect(&outcome.why_not);
        assert_eq!(got.peer, server.peer.id());
        assert_eq!(got.bytes, releases.object.len() as u64);
        assert!(got.instead_of > 20 * got.bytes, "{got:?}");
        assert!(node.whole(&releases.new));
        // Nothing is left to fetch, and what came reads as it should.
        let report = node
            .peer
            .fetch(&releases.new, &Limits::default())
            .await
            .unwrap();
        assert_eq!(report.fetched_blocks, 0);
        let out = node.dir.path().join("out");
        export(&*node.store, &releases.new, None, &out, &Limits::default()).unwrap();
        assert_eq!(
            fs::read(out.join("linux/node")).unwrap(),
            fs::read(releases.path("new").join("linux/node")).unwrap()
        );
        let left: Vec<_> = fs::read_dir(node.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("delta"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_are_named_and_the_honest_one_serves() {
    let releases = Releases::new();
    let honest = Node::start(1).await;
    honest.hold(&releases.path("new"), None);
    honest
        .peer
        .offer_deltas(Arc::new(Offers(releases.object.clone())));
    // Smaller than the honest one, so that both are tried first.
    let garbage = Node::start(2).await;
    garbage.peer.offer_deltas(Arc::new(Offers(noise(3, 800))));
    let cuts = Node::start(3).await;
    cuts.peer.offer_deltas(Arc::new(Cuts));
    let node = Node::start(9).await;
    node.meet(&[&honest, &garbage, &cuts]).await;
    let outcome = node
        .obtain(&wish(&releases, &node, Old::Path(releases.path("old"))))
        .await;
    assert_eq!(outcome.got.unwrap().peer, honest.peer.id());
    let named: Vec<PeerId> = outcome.refused.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(named, [garbage.peer.id(), cuts.peer.id()]);
    assert!(node.whole(&releases.new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_liars_alone_the_blocks_come() {
    let releases = Releases::new();
    let holder = Node::start(1).await;
    holder.hold(&releases.path("new"), None);
    // An honest delta, to something else; and one with a bit turned in the middle.
    let other = make_release(&releases.path("new"), &releases.path("old")).unwrap();
    let elsewhere = Node::start(2).await;
    elsewhere.peer.offer_deltas(Arc::new(Offers(other.object)));
    let mut turned = releases.object.clone();
    let at = turned.len() - turned.len() / 4;
    turned[at] ^= 0x10;
    let bent = Node::start(3).await;
    bent.peer.offer_deltas(Arc::new(Offers(turned)));
    let node = Node::start(9).await;
    node.meet(&[&holder, &elsewhere, &bent]).await;
    let outcome = node
        .obtain(&wish(&releases, &node, Old::Path(releases.path("old"))))
        .await;
    assert_eq!(outcome.got, None);
    assert_eq!(outcome.refused.len(), 2, "{outcome:?}");
    assert!(!node.whole(&releases.new));
    let report = node
        .peer
        .fetch(&releases.new, &Limits::default())
        .await
        .unwrap();
    assert!(report.sources.contains_key(&holder.peer.id()));
    assert!(node.whole(&releases.new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_for_where_nothing_can_be_saved() {
    let releases = Releases::new();
    let server = Node::start(1).await;
    server.hold(&releases.path("new"), None);
    // A "delta" of more bytes than the blocks have.
    server
        .peer
        .offer_deltas(Arc::new(Offers(noise(4, 2_000_000))));
    let node = Node::start(2).await;
    node.meet(&[&server]).await;
    let wish = wish(&releases, &node, Old::Path(releases.path("old")));
    let outcome = node.obtain(&wish).await;
    assert_eq!(outcome.got, None);
    assert!(
        outcome.why_not.contains("no peer has one under"),
        "{outcome:?}"
    );
    assert!(outcome.refused.is_empty());
    // The nodes came, the content did not; and what is missing is counted from them.
    let rest = missing_bytes(&*node.store, &releases.new, &Limits::default()).unwrap();
    assert_eq!(rest, 1_500_000 + 3);
    node.peer
        .fetch(&releases.new, &Limits::default())
        .await
        .unwrap();
    let outcome = node.obtain(&wish).await;
    assert!(outcome.why_not.contains("0 bytes"), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_maker_works_from_an_older_release_to_a_newer_one_of_a_slot() {
    let releases = Releases::new();
    let node = Node::start(1).await;
    node.hold(&releases.path("old"), Some("node"));
    node.hold(&releases.path("new"), Some("node/2"));
    // A program that makes nothing: what is tried here comes before it.
    let folder = node.dir.path().join("deltas");
    let maker = Maker::start(
        node.store.clone(),
        &folder,
        "/bin/false".into(),
        Between::Releases,
    )
    .unwrap();
    let why = async |have: &Cid, want: &Cid| {
        assert!(matches!(maker.find(have, want, true), Found::Making));
        tokio::time::timeout(Duration::from_secs(20), async {
            while !matches!(maker.find(have, want, true), Found::None) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
        maker.why_not(have, want).unwrap()
    };
    let find = |make| maker.find(&releases.old, &releases.new, make);
    assert!(
        matches!(find(false), Found::None),
        "nothing was asked to be made"
    );
    let absent = instar_chunks::block::cid_of(instar_chunks::block::RAW, b"absent");
    assert!(matches!(
        maker.find(&absent, &releases.new, true),
        Found::None
    ));
    // The right way round only the program is in the way; what failed is remembered.
    let right = why(&releases.old, &releases.new).await;
    assert!(right.starts_with("exit status: 1"), "{right}");
    let back = why(&releases.new, &releases.old).await;
    assert!(back.contains("no older and newer release"), "{back}");
    // Of another slot, and what nobody pinned.
    let part = |root: &Cid| {
        instar_chunks::read::resolve(&*node.store, root, "linux", &Limits::default()).unwrap()
    };
    node.store
        .pin("dapps/other/3", &part(&releases.old))
        .unwrap();
    node.store.unpin("node").unwrap();
    let other = why(&part(&releases.old), &part(&releases.new)).await;
    assert!(other.contains("no older and newer release"), "{other}");
    // Parts of releases are what nodes ask for.
    node.store.pin("node/1", &releases.old).unwrap();
    let file = |root: &Cid| {
        instar_chunks::read::resolve(&*node.store, root, "linux/node", &Limits::default()).unwrap()
    };
    let inside = why(&file(&releases.old), &file(&releases.new)).await;
    assert!(inside.starts_with("exit status: 1"), "{inside}");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}
