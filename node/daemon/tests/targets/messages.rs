//! Any bytes as what other nodes tell this one: a lane message, or the list of a snapshot's chunks.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_attest::json;
use instar_node::core::LaneMessage;
use instar_node::snapshots::{ChunkAt, SnapshotList};

/// Fails where something has two spellings. Says whether it was accepted.
pub fn run(data: &[u8]) -> bool {
    let lane = lane(data);
    let list = list(data);
    assert!(!(lane && list), "both at once");
    lane || list
}

fn lane(data: &[u8]) -> bool {
    let Ok((message, pack)) = LaneMessage::parse(data) else {
        return false;
    };
    let first = json::to_vec(&message).unwrap();
    assert_eq!([&first, b"\n".as_slice(), pack].concat(), data);
    true
}

fn list(data: &[u8]) -> bool {
    let Ok(list) = SnapshotList::from_bytes(data) else {
        return false;
    };
    assert_eq!(list.to_bytes().unwrap(), data);
    let places = list.chunks.iter().map(ChunkAt::place);
    let all_are_places = places.filter(Result::is_err).count() == 0;
    match (list.blocks(), list.offer()) {
        (Ok(blocks), Ok(offer)) => {
            assert!(all_are_places);
            assert_eq!(offer.chunks, list.chunks.len() as u64);
            assert_eq!(offer.bytes, list.bytes());
            assert!(blocks.contains(&offer.cid.parse().unwrap()));
        }
        (blocks, offer) => assert!(blocks.is_err() && offer.is_err()),
    }
    true
}
