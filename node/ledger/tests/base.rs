//! A ledger that begins with a snapshot's block: stock git takes it as a shallow repository, and it goes on.
#![allow(clippy::unwrap_used)]

mod support;

use instar_ledger::store::BaseCommit;
use instar_ledger::*;
use support::*;

const MAX: usize = 12 << 20;
const BASE: u64 = 4;

struct Begun {
    net: Net,
    /// What the new ledger begins with, in order.
    wanted: Vec<BaseCommit>,
    lanes: Vec<(Lane, Oid, u64)>,
    certificate: Certificate,
    new: Store,
}

/// A chain of six blocks, and an empty ledger that is to begin with the fourth. One lane stays at its first commit.
fn begun() -> Begun {
    let mut net = Net::new(4);
    for _ in 0..BASE {
        net.round(2);
    }
    let lanes = net.stores[0].lane_heads();
    let block = net.stores[0].head().1;
    for _ in 0..2 {
        net.round(3);
    }
    let certificate = net.stores[0].certificate_at(BASE).unwrap().unwrap();
    let heads = lanes
        .iter()
        .map(|(l, id, seq)| BaseCommit::Lane(*l, *id, *seq));
    let wanted = [BaseCommit::Block(block)]
        .into_iter()
        .chain(heads)
        .collect();
    let path = net.dir.path().join("new.git");
    let (new, chain) = Store::create(&path, net.stores[0].genesis()).unwrap();
    assert_eq!(chain, net.chain);
    Begun {
        net,
        wanted,
        lanes,
        certificate,
        new,
    }
}

fn pack(store: &Store, commits: &[BaseCommit]) -> Vec<u8> {
    let ids: Vec<Oid> = commits.iter().map(BaseCommit::id).collect();
    store.pack_commits(&ids, usize::MAX).unwrap().0
}

#[test]
fn a_ledger_begins_with_a_block_and_stock_git_is_content() {
    let Begun {
        net,
        wanted,
        lanes,
        certificate,
        mut new,
    } = begun();
    // In two pieces, as answers have room.
    let first = pack(&net.stores[0], &wanted[..2]);
    assert_eq!(new.import_base(&first, MAX, &wanted).unwrap(), 2);
    let rest = pack(&net.stores[0], &wanted[2..]);
    assert_eq!(new.import_base(&rest, MAX, &wanted[2..]).unwrap(), 3);
    new.begin_at(&certificate, &lanes).unwrap();
    assert_eq!(
        (new.base(), new.head()),
        (Some(BASE), (BASE, certificate.block))
    );

    let path = new.path().to_owned();
    drop(new);
    let mut new = Store::open(&path).unwrap();
    assert_eq!(
        (new.base(), new.head()),
        (Some(BASE), (BASE, certificate.block))
    );
    assert_eq!(new.lane_heads(), lanes);
    for height in BASE + 1..=BASE + 2 {
        let id = net.stores[0].block_at(height).unwrap();
        let bytes = net.stores[0].pack_block(&id).unwrap();
        new.import_pack(&bytes, MAX).unwrap();
        let certificate = net.stores[0].certificate_at(height).unwrap().unwrap();
        new.finalize(&id, &certificate).unwrap();
        // What it hands on is what it got.
        assert_eq!(new.pack_block(&id).unwrap(), bytes);
    }
    assert_eq!(new.lane_heads(), net.stores[0].lane_heads());
    assert_eq!(new.block_at(BASE - 1), None);
    assert_eq!(new.block_at(0), Some(net.chain.into()));
    assert!(new.signed_header(BASE).unwrap().is_some());
    assert!(new.signed_header(BASE - 1).unwrap().is_none());
    new.flush().unwrap();

    let clean = |repository: &std::path::Path| {
        let fsck = git(repository, &["fsck", "--strict", "--full"]).unwrap();
        assert!(
            !fsck.contains("warning") && !fsck.contains("error"),
            "{fsck}"
        );
    };
    clean(&path);
    let clone = net.dir.path().join("clone");
    let url = format!("file://{}", path.display());
    git(
        net.dir.path(),
        &["clone", "-q", &url, clone.to_str().unwrap()],
    )
    .unwrap();
    clean(&clone);
    assert_eq!(
        git(&clone, &["rev-parse", "--is-shallow-repository"])
            .unwrap()
            .trim(),
        "true"
    );
    let reader = Store::open_clone(&clone).unwrap();
    assert_eq!(reader.chain(), &net.chain);
    assert_eq!(
        (reader.base(), reader.head()),
        (Some(BASE), net.stores[0].head())
    );
    // Without the list of heights it is found again.
    drop(new);
    std::fs::remove_file(path.join("instar").join("heights")).unwrap();
    let new = Store::open(&path).unwrap();
    assert_eq!((new.base(), new.head()), (Some(BASE), net.stores[0].head()));
    // Packs are rolled up as in any other ledger.
    drop(new);
    let report = instar_ledger::store::maintain_with(
        &path,
        1,
        std::time::Duration::ZERO,
        std::time::Duration::ZERO,
    )
    .unwrap();
    assert!(report.rolled_up > 0, "{report:?}");
    clean(&path);
}

#[test]
fn what_a_source_adds_swaps_or_leaves_out_is_not_taken() {
    let Begun {
        net,
        wanted,
        lanes,
        certificate,
        mut new,
    } = begun();
    let source = &net.stores[0];
    // A commit more than was asked for.
    let more = BaseCommit::Block(source.head().1);
    let bytes = pack(source, &[wanted[0], more]);
    let refused = new.import_base(&bytes, MAX, &wanted[..1]);
    assert!(matches!(refused, Err(StoreError::Stray(_))), "{refused:?}");
    // The right commit under another sequence number, and another lane's.
    let BaseCommit::Lane(lane, id, seq) = wanted[1] else {
        panic!("lanes come after the block")
    };
    let bytes = pack(source, &wanted[1..2]);
    for wrong in [
        BaseCommit::Lane(lane, id, seq + 1),
        BaseCommit::Lane(lanes[1].0, id, seq),
    ] {
        let refused = new.import_base(&bytes, MAX, &[wrong]);
        assert!(
            matches!(refused, Err(StoreError::Linkage { .. })),
            "{refused:?}"
        );
    }
    // A block passed off as a lane's head, a pack that is too large, one that has nothing.
    let refused = new.import_base(
        &pack(source, &wanted[..1]),
        MAX,
        &[BaseCommit::Lane(lane, wanted[0].id(), seq)],
    );
    assert!(
        matches!(refused, Err(StoreError::Grammar { .. })),
        "{refused:?}"
    );
    let refused = new.import_base(&bytes, 10, &wanted[1..2]);
    assert!(matches!(refused, Err(StoreError::Pack(_))), "{refused:?}");
    let nothing = instar_ledger::pack::write([]);
    assert_eq!(new.import_base(&nothing, MAX, &wanted).unwrap(), 0);
    // A commit whose tree is left out.
    let commit = instar_ledger::pack::read(&bytes, MAX)
        .unwrap()
        .swap_remove(0);
    let alone = instar_ledger::pack::write([(commit.kind, commit.bytes.as_slice())]);
    let refused = new.import_base(&alone, MAX, &wanted[1..2]);
    assert!(
        matches!(refused, Err(StoreError::NotFound { .. })),
        "{refused:?}"
    );
    // It does not begin before all is there, and not twice.
    new.import_base(&pack(source, &wanted[..3]), MAX, &wanted)
        .unwrap();
    let refused = new.begin_at(&certificate, &lanes);
    assert!(
        matches!(refused, Err(StoreError::NotFound { .. })),
        "{refused:?}"
    );
    assert_eq!((new.base(), new.head().0), (None, 0));
    new.import_base(&pack(source, &wanted[3..]), MAX, &wanted[3..])
        .unwrap();
    new.begin_at(&certificate, &lanes).unwrap();
    assert!(new.begin_at(&certificate, &lanes).is_err());
}
