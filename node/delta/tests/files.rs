//! What is true of a delta from any file to any other.
#![allow(clippy::unwrap_used)]

mod support;

use instar_delta::make;
use proptest::prelude::*;
use support::{noise, program, rebuild, wanted};

fn there(old: &[u8], new: &[u8]) -> usize {
    let delta = make(old, new).unwrap();
    let out = rebuild(old, &delta, wanted(new)).unwrap();
    assert!(out == new, "what came out is what went in");
    delta.len()
}

#[test]
fn the_ends_of_the_range() {
    let some = noise(1, 5000);
    assert!(there(&[], &[]) < 200);
    assert!(there(&some, &[]) < 200);
    assert!(there(&some, &some) < 200);
    assert!(there(&[], &some) < 5300);
    there(&[7], &[7, 7]);
    there(&some, &vec![0; 300_000]);
    assert!(there(&vec![0; 300_000], &vec![0; 700_001]) < 1000);
}

#[test]
fn a_copy_longer_than_a_piece_and_a_literal_longer_than_one() {
    let old = noise(2, 300_000);
    let mut new = old.clone();
    new.splice(150_000..150_000, noise(3, 200_000));
    new[70_000] ^= 1;
    let size = there(&old, &new);
    assert!((200_000..212_000).contains(&size), "{size}");
}

#[test]
fn a_program_that_shifts_costs_little() {
    let all: Vec<u64> = (0..3000).collect();
    let fewer: Vec<u64> = all.iter().copied().filter(|n| n % 100 != 50).collect();
    let (old, new) = (program(&fewer), program(&all));
    let known = there(&old, &new);
    // The same bytes, but for the four that say that this is a program.
    let (mut plain_old, mut plain_new) = (old, new);
    plain_old[..4].copy_from_slice(b"data");
    plain_new[..4].copy_from_slice(b"data");
    let unknown = there(&plain_old, &plain_new);
    assert!(
        known * 4 < unknown,
        "{known} as a program, {unknown} as bytes"
    );
}

#[test]
fn a_delta_is_a_function_of_its_files() {
    let (old, new) = (program(&[1, 2, 3, 5]), program(&[1, 2, 3, 4, 5]));
    assert_eq!(make(&old, &new).unwrap(), make(&old, &new).unwrap());
}

/// What happens to a file between versions.
#[derive(Clone, Debug)]
enum Edit {
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Overwrite(usize, Vec<u8>),
    Move(usize, usize, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let edit = prop_oneof![
        (any::<usize>(), bytes()).prop_map(|(a, b)| Edit::Insert(a, b)),
        (any::<usize>(), 0usize..300).prop_map(|(a, n)| Edit::Remove(a, n)),
        (any::<usize>(), bytes()).prop_map(|(a, b)| Edit::Overwrite(a, b)),
        (any::<usize>(), any::<usize>(), 0usize..2000).prop_map(|(a, b, n)| Edit::Move(a, b, n)),
    ];
    proptest::collection::vec(edit, 0..12)
}

fn edited(mut file: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let len = file.len();
        match edit {
            Edit::Insert(at, bytes) => {
                let at = at % (len + 1);
                file.splice(at..at, bytes.iter().copied());
            }
            Edit::Remove(at, n) => {
                let at = at % (len + 1);
                file.drain(at..(at + n).min(len));
            }
            Edit::Overwrite(at, bytes) => {
                let at = at % (len + 1);
                for (to, from) in file[at..].iter_mut().zip(bytes) {
                    *to = *from;
                }
            }
            Edit::Move(from, to, n) => {
                let from = from % (len + 1);
                let part: Vec<u8> = file.drain(from..(from + n).min(len)).collect();
                let to = to % (file.len() + 1);
                file.splice(to..to, part);
            }
        }
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_file_comes_out(old in proptest::collection::vec(any::<u8>(), 0..3000), new in proptest::collection::vec(any::<u8>(), 0..3000)) {
        there(&old, &new);
    }

    #[test]
    fn any_edit_comes_out(seed in any::<u64>(), len in 0usize..20_000, edits in edits()) {
        let old = noise(seed, len);
        there(&old, &edited(old.clone(), &edits));
    }

    /// Edits break the layout of a program anywhere: its headers, its tables, its code.
    #[test]
    fn any_edit_of_a_program_comes_out(keep in proptest::collection::vec(0u64..400, 1..300), edits in edits(), broken_old in any::<bool>()) {
        let all: Vec<u64> = (0..400).collect();
        let keep: std::collections::BTreeSet<u64> = keep.into_iter().collect();
        let keep: Vec<u64> = keep.into_iter().collect();
        let (old, new) = (program(&keep), program(&all));
        if broken_old {
            there(&edited(old, &edits), &new);
        } else {
            there(&old, &edited(new, &edits));
        }
    }
}
