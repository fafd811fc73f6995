//! What holds for all inputs, not just for the examples.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use instar_attest::Digest;
use instar_ledger::grammar::{Kind, Object};
use instar_ledger::lane::merge_key;
use instar_ledger::store::maintain_with;
use instar_ledger::*;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use support::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn entries_are_read_as_they_were_signed(
        nonce in 0u64..(1 << 53),
        topic in "[a-z][a-z0-9.-]{0,63}",
        key_text in "[ -~]{0,8}",
        text in any::<String>(),
        number in -9_007_199_254_740_991i64..=9_007_199_254_740_991,
    ) {
        let chain = genesis("test").chain_id().unwrap();
        let body = json!({ key_text: [text, number] });
        let entry = Entry::sign(&chain, &key("account", 0), nonce, &topic, body).unwrap();
        let line = entry.to_line();
        prop_assert!(!line.contains('\n'));
        let read = Entry::parse(line.as_bytes(), &chain).unwrap();
        prop_assert_eq!(read.id(), entry.id());
        prop_assert_eq!(read, entry);
    }

    #[test]
    fn packs_are_read_as_they_were_written(blobs in vec(vec(any::<u8>(), 0..400), 0..20)) {
        let objects: Vec<_> = blobs.into_iter().map(|b| Object::new(Kind::Blob, b)).collect();
        let pack = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
        prop_assert_eq!(pack::read(&pack, pack.len()).unwrap(), objects);
    }

    #[test]
    fn bytes_from_anywhere_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let chain = genesis("test").chain_id().unwrap();
        prop_assert!(Entry::parse(&bytes, &chain).is_err());
        prop_assert!(pack::read(&bytes, 300).is_err());
        // Also behind a pack's own beginning and with a checksum that holds.
        let mut sealed = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
        sealed.extend(&bytes);
        sealed.extend(Digest::of(&sealed).as_bytes());
        prop_assert!(pack::read(&sealed, 400).is_err());
        prop_assert!(grammar::SignedLaneCommit::from_bytes(&bytes, &chain).is_err());
        prop_assert!(Certificate::from_bytes(&bytes).is_err());
    }

    /// The merge order is the order of ids, cut somewhere and put together again.
    #[test]
    fn merge_order_is_a_rotation(parent in any::<[u8; 32]>(), ids in vec(any::<[u8; 32]>(), 1..20)) {
        let mut lanes: Vec<_> = ids
            .iter()
            .map(|id| Lane { device: DeviceId::from_digest(Digest::from_bytes(*id)), incarnation: 1 })
            .collect();
        lanes.sort();
        lanes.dedup();
        let parent = Oid::from_bytes(parent);
        let mut merged = lanes.clone();
        merged.sort_by_key(|lane| merge_key(&parent, lane));
        let cut = lanes.iter().position(|l| l.device.as_bytes() >= parent.as_bytes()).unwrap_or(0);
        lanes.rotate_left(cut);
        prop_assert_eq!(merged, lanes);
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Round,
    Append,
    Flush,
    Reopen,
    Maintain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Round),
        2 => Just(Step::Append),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Maintain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Whatever is done in whatever order, a store says the same as one that was never closed, flushed or packed.
    #[test]
    fn store_keeps_what_it_was_told(steps in vec(step(), 1..24)) {
        let mut net = Net::new(2);
        for step in steps {
            let repo = repo_path(net.dir.path(), 0);
            match step {
                Step::Round => {
                    // Both stores have to know the lane's unmerged commits first.
                    let (head, seq) = net.stores[0].lane_head(&lane_of(0)).unwrap_or((net.chain.into(), 0));
                    if seq > 0 {
                        let known = net.stores[1].lane_head(&lane_of(0)).map_or(0, |(_, seq)| seq);
                        let pack = net.stores[0].pack_lane(&lane_of(0), known).unwrap();
                        net.stores[1].import_pack(&pack, 1 << 20).unwrap();
                        net.stores[1].set_lane(&lane_of(0), &head).unwrap();
                    }
                    net.round(1);
                }
                Step::Append => drop(net.append(0, 1)),
                Step::Flush => net.stores[0].flush().unwrap(),
                Step::Reopen => {
                    drop(net.stores.remove(0));
                    let store = Store::open_with(&repo, &options(net.dir.path(), 0)).unwrap();
                    net.stores.insert(0, store);
                }
                Step::Maintain => {
                    net.stores[0].flush().unwrap();
                    maintain_with(&repo, 1, Duration::ZERO, Duration::ZERO).unwrap();
                }
            }
            let [mine, theirs] = &net.stores[..] else { unreachable!() };
            prop_assert_eq!(mine.head(), theirs.head());
            prop_assert_eq!(mine.tip_certificate(), theirs.tip_certificate());
            for height in 1..=mine.head().0 {
                let id = mine.block_at(height).unwrap();
                prop_assert_eq!(mine.read_block(&id).unwrap(), theirs.read_block(&id).unwrap());
            }
            if let Some((head, seq)) = mine.lane_head(&lane_of(0)) {
                prop_assert_eq!(mine.lane_range(&head, 0).unwrap().len() as u64, seq);
            }
        }
        let said = git(net.stores[0].path(), &["fsck", "--strict", "--full"]).unwrap();
        prop_assert!(!said.contains("error") && !said.contains("missing"), "{}", said);
    }
}
