//! Any bytes as a pack from a peer: read within its bounds, and taken in by a store, all of it or nothing.
//!
//! No fuzzer finds a checksum, so a pack is also read with the right one. Input that does not begin as a pack is a list of
//! objects (kind, length in two bytes, content) of which one is made, because no fuzzer finds the sums of compressed
//! bytes either.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::sync::{LazyLock, Mutex};

use instar_attest::Digest;
use instar_ledger::grammar::{Kind, MAX_COMMIT_BYTES, MAX_TREE_BYTES, Object};
use instar_ledger::pack::{self, MAX_INFLATED_BYTES, MAX_PACK_OBJECTS, PackError};
use instar_ledger::receipt::MAX_RECEIPTS_BYTES;
use instar_ledger::{Genesis, Imported, Store};

/// Objects that a pack is made of: compressing each costs more than all else here.
const MAX_MADE: usize = 32;

/// A store of the vectors' chain, whose lane commit is in the corpus. The folder goes with it.
static STORE: LazyLock<Mutex<(Store, tempfile::TempDir)>> = LazyLock::new(|| {
    let genesis = Genesis::from_bytes(include_bytes!("../vectors/genesis.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::create(&folder.path().join("ledger.git"), &genesis).unwrap();
    Mutex::new((store, folder))
});

/// Fails where a bound does not hold, objects change, or a store takes in a part. Says whether the pack can be read.
pub fn run(data: &[u8]) -> bool {
    if !data.starts_with(b"PACK") {
        return made(data);
    }
    let accepted = read(data).is_some();
    if let Some((body, _)) = data.split_last_chunk::<32>() {
        read(&[body, Digest::of(body).as_bytes()].concat());
    }
    accepted
}

/// Reads a pack and takes it in.
fn read(bytes: &[u8]) -> Option<Vec<Object>> {
    if let Some(less) = bytes.len().checked_sub(1) {
        let over = pack::read(bytes, less);
        assert!(matches!(over, Err(PackError::TooLarge { .. })));
    }
    let objects = pack::read(bytes, bytes.len()).ok()?;
    assert!(objects.len() <= MAX_PACK_OBJECTS as usize);
    let inflated: usize = objects.iter().map(|o| o.bytes.len()).sum();
    assert!(inflated as u64 <= MAX_INFLATED_BYTES);
    for object in &objects {
        assert!(object.bytes.len() <= most(object.kind));
        assert_eq!(object.id, Object::new(object.kind, object.bytes.clone()).id);
    }
    let again = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
    assert_eq!(pack::read(&again, again.len()).unwrap(), objects);
    taken(bytes, &objects);
    Some(objects)
}

fn most(kind: Kind) -> usize {
    match kind {
        Kind::Commit => MAX_COMMIT_BYTES,
        Kind::Tree => MAX_TREE_BYTES,
        Kind::Blob => MAX_RECEIPTS_BYTES,
    }
}

/// What is taken in was in the pack, and is known from then on; what is refused leaves nothing behind.
fn taken(bytes: &[u8], objects: &[Object]) {
    let (store, _) = &mut *STORE.lock().unwrap();
    let before = store.import_pack(bytes, bytes.len());
    let after = store.import_pack(bytes, bytes.len());
    match before {
        Ok(imported) => {
            let lanes = imported.lane_commits.iter().map(|c| c.id);
            for id in lanes.chain(imported.blocks.iter().copied()) {
                assert!(objects.iter().any(|o| o.id == id && o.kind == Kind::Commit));
            }
            assert_eq!(after.unwrap(), Imported::default());
        }
        Err(_) => assert!(after.is_err()),
    }
}

/// Makes a pack of a list of objects. It must be read, unless one of them is over its bound.
fn made(mut data: &[u8]) -> bool {
    let mut list = Vec::new();
    while let Some(([kind, low, high], rest)) = data.split_first_chunk()
        && list.len() < MAX_MADE
    {
        let kind = [Kind::Commit, Kind::Tree, Kind::Blob][usize::from(*kind) % 3];
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        list.push((kind, content));
        data = rest;
    }
    let objects = read(&pack::write(list.iter().copied()));
    let bounded = list
        .iter()
        .all(|(kind, content)| content.len() <= most(*kind));
    assert_eq!(objects.is_some(), bounded);
    let objects = objects.unwrap_or_default();
    let same = |(object, (kind, content)): (&Object, &(Kind, &[u8]))| {
        object.kind == *kind && object.bytes == *content
    };
    assert!(objects.iter().zip(&list).all(same));
    bounded
}
