//! What a delta from anybody can't do.
#![allow(clippy::unwrap_used)]

mod support;

use instar_delta::align::Command;
use instar_delta::coder::Encoder;
use instar_delta::error::{MAX_COMMANDS, MAX_FILE_BYTES};
use instar_delta::fields::{Kind, Range};
use instar_delta::header::{HEADER_BYTES, Header};
use instar_delta::image::{Image, Segment};
use instar_delta::plan::{Plan, Sizes};
use instar_delta::{DeltaError, Wanted, make};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use support::{noise, program, rebuild, wanted};

fn pair() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let all: Vec<u64> = (0..200).collect();
    let fewer: Vec<u64> = (0..200).filter(|n| n % 9 != 0).collect();
    let (old, new) = (program(&fewer), program(&all));
    let delta = make(&old, &new).unwrap();
    (old, new, delta)
}

/// A header that fits, with any plan: the plan's own bounds are what is tested.
fn forged(old: &[u8], new_len: u64, plan: &Plan, literal_bytes: u64) -> (Vec<u8>, Wanted) {
    let sizes = Sizes {
        old: old.len() as u64,
        new: new_len,
    };
    let mut encoder = Encoder::default();
    // The encoder stops where a decoder would: what it wrote until then is the attack.
    let _ = plan.code(&mut encoder, sizes);
    let structure = encoder.finish();
    let header = Header {
        sizes,
        old_sha256: Sha256::digest(old).into(),
        new_sha256: [7; 32],
        structure: structure.len() as u64,
        corrections: 0,
        literals: 0,
        literal_bytes,
    };
    let mut delta = header.to_bytes();
    delta.extend(structure);
    (
        delta,
        Wanted {
            bytes: new_len,
            sha256: [7; 32],
        },
    )
}

fn copy(old: u64, len: u64, extra: u64) -> Plan {
    Plan {
        commands: vec![Command { old, len, extra }],
        ..Plan::default()
    }
}

#[test]
fn copies_from_outside_the_old_file() {
    let old = noise(1, 100);
    for (at, len) in [(50, 51), (101, 1), (u64::MAX, 2), (u64::MAX - 3, 10)] {
        let (delta, wanted) = forged(&old, len, &copy(at, len, 0), 0);
        let error = rebuild(&old, &delta, wanted).map(drop).unwrap_err();
        assert!(
            matches!(error, DeltaError::Malformed(why) if why.contains("outside the old file")),
            "{error}"
        );
    }
}

#[test]
fn commands_that_make_more_or_less_or_nothing() {
    let old = noise(1, 100);
    for (plan, says) in [
        (copy(0, 100, 0), "more than"),
        (copy(0, 10, 0), "less than"),
        (copy(0, 10, u64::MAX), "more than"),
        (copy(0, 0, 0), "nothing"),
        (Plan::default(), "less than"),
    ] {
        let (delta, wanted) = forged(&old, 50, &plan, 0);
        let error = rebuild(&old, &delta, wanted).map(drop).unwrap_err();
        assert!(
            matches!(error, DeltaError::Malformed(why) if why.contains(says)),
            "{error}"
        );
    }
}

#[test]
fn counts_over_their_bounds() {
    let old = noise(1, 100);
    let commands = vec![
        Command {
            old: 0,
            len: 1,
            extra: 0
        };
        MAX_COMMANDS as usize + 1
    ];
    let many = commands.len() as u64;
    let (delta, wanted) = forged(
        &old,
        many,
        &Plan {
            commands,
            ..Plan::default()
        },
        0,
    );
    let error = rebuild(&old, &delta, wanted).map(drop).unwrap_err();
    assert!(
        matches!(error, DeltaError::OverLimit { what: "commands", claimed, .. } if claimed == many),
        "{error}"
    );

    let range = Range {
        offset: 0,
        len: 100,
        kind: Kind::Jumps,
        marks: vec![(0, 101)],
        new_base: 0,
    };
    let (delta, wanted) = forged(
        &old,
        1,
        &Plan {
            ranges: vec![range],
            ..copy(0, 1, 0)
        },
        0,
    );
    let error = rebuild(&old, &delta, wanted).map(drop).unwrap_err();
    assert!(
        matches!(
            error,
            DeltaError::OverLimit {
                what: "entries of a mark",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn jump_tables_that_overlap_would_cost_their_product() {
    let old = noise(1, 4000);
    let marks = (0..1000).map(|i| (i, 900)).collect();
    let range = Range {
        offset: 0,
        len: 4000,
        kind: Kind::Jumps,
        marks,
        new_base: 0,
    };
    let (delta, wanted) = forged(
        &old,
        1,
        &Plan {
            ranges: vec![range],
            ..copy(0, 1, 0)
        },
        0,
    );
    let error = rebuild(&old, &delta, wanted).map(drop).unwrap_err();
    assert!(
        matches!(error, DeltaError::Malformed("jump tables overlap")),
        "{error}"
    );
}

#[test]
fn programs_that_wrap_around_or_lie_outside_their_file() {
    let old = noise(1, 100);
    let segment = |offset, address, len, memory_len| Segment {
        offset,
        address,
        len,
        memory_len,
    };
    for segments in [
        vec![segment(0, u64::MAX - 5, 10, 10)],
        vec![segment(0, 0, 10, 10), segment(0, 1 << 40, 10, 10)],
        vec![segment(0, 0, 10, u64::MAX)],
        vec![segment(99, 0, 2, 2)],
        vec![segment(u64::MAX, 0, 2, 2)],
        vec![segment(0, 0, 10, 9)],
    ] {
        let plan = Plan {
            old: Image::new(segments),
            ..copy(0, 1, 0)
        };
        let (delta, wanted) = forged(&old, 1, &plan, 0);
        let error = rebuild(&old, &delta, wanted).map(drop).unwrap_err();
        assert!(matches!(error, DeltaError::Malformed(_)), "{error}");
    }
}

#[test]
fn a_size_that_nobody_asked_for_is_refused_before_a_byte_is_written() {
    let (old, new, mut delta) = pair();
    delta[48..56].copy_from_slice(&MAX_FILE_BYTES.to_le_bytes());
    let mut out = Vec::new();
    let error = instar_delta::apply(&old.as_slice(), &delta.as_slice(), wanted(&new), &mut out)
        .map(drop)
        .unwrap_err();
    assert!(
        matches!(
            error,
            DeltaError::OverLimit {
                what: "bytes of new file",
                ..
            }
        ),
        "{error}"
    );
    assert!(out.is_empty());
    delta[48..56].copy_from_slice(&(MAX_FILE_BYTES + 1).to_le_bytes());
    let error = rebuild(&old, &delta, wanted(&new)).map(drop).unwrap_err();
    assert!(
        matches!(
            error,
            DeltaError::OverLimit {
                limit: MAX_FILE_BYTES,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn literals_that_expand_without_end() {
    // 800 bytes of LZMA that say 1 GiB of zeros, of which the commands want 1 MiB and the header promises that much.
    let old = noise(1, 100);
    let bomb = instar_delta::literals::compress(&vec![0; 64 << 20]).unwrap();
    let (mut delta, wanted) = forged(&old, 1 << 20, &copy(0, 0, 1 << 20), 1 << 20);
    delta[104..112].copy_from_slice(&(bomb.len() as u64).to_le_bytes());
    delta.extend(&bomb);
    let mut out = Vec::new();
    let error = instar_delta::apply(&old.as_slice(), &delta.as_slice(), wanted, &mut out)
        .map(drop)
        .unwrap_err();
    assert!(!matches!(error, DeltaError::Io { .. }), "{error}");
    assert!(out.len() <= 1 << 20, "no more is written than was wanted");
}

#[test]
fn every_cut_is_noticed() {
    let (old, new, delta) = pair();
    for len in (0..delta.len()).step_by(7).chain([delta.len() - 1]) {
        let error = rebuild(&old, &delta[..len], wanted(&new))
            .map(drop)
            .unwrap_err();
        assert!(matches!(error, DeltaError::Truncated(_)), "{len}: {error}");
    }
    // Cut inside, with a header that says so.
    for (field, len) in [(88, 10u64), (96, 5), (104, 3)] {
        let mut cut = delta.clone();
        let starts =
            [88usize, 96, 104].map(|f| u64::from_le_bytes(cut[f..f + 8].try_into().unwrap()));
        let mut at = HEADER_BYTES as u64;
        for (f, part) in [88, 96, 104].into_iter().zip(starts) {
            if f == field {
                cut.drain((at + len) as usize..(at + part) as usize);
            }
            at += part;
        }
        cut[field..field + 8].copy_from_slice(&len.to_le_bytes());
        assert!(rebuild(&old, &cut, wanted(&new)).is_err());
    }
}

#[test]
fn the_error_names_who_is_wrong() {
    let (old, new, delta) = pair();
    let mut other = old.clone();
    // The first function's first byte: no address, which would be foretold whatever it says.
    other[0x1000] ^= 0x10;
    let error = rebuild(&other, &delta, wanted(&new)).map(drop).unwrap_err();
    assert!(matches!(error, DeltaError::WrongOld { .. }), "{error}");
    assert!(matches!(
        rebuild(&old[1..], &delta, wanted(&new))
            .map(drop)
            .unwrap_err(),
        DeltaError::WrongOld { .. }
    ));
    let mut liar = delta.clone();
    liar[HEADER_BYTES + 40] ^= 0x40;
    let error = rebuild(&old, &liar, wanted(&new)).map(drop).unwrap_err();
    assert!(!matches!(error, DeltaError::WrongOld { .. }), "{error}");
    assert!(matches!(
        rebuild(&old, b"not a delta", wanted(&new))
            .map(drop)
            .unwrap_err(),
        DeltaError::Truncated("header")
    ));
    let mut version = delta;
    version[7] = 2;
    assert!(matches!(
        rebuild(&old, &version, wanted(&new)).map(drop).unwrap_err(),
        DeltaError::NotADelta(_)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever is done to a delta, there is an error or the right file; never a panic, never another file.
    #[test]
    fn damage_never_passes(flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..20), keep_header in any::<bool>()) {
        let (old, new, mut delta) = small();
        for (at, by) in flips {
            let skip = if keep_header { HEADER_BYTES } else { 0 };
            let at = skip + at.index(delta.len() - skip);
            delta[at] ^= by;
        }
        if let Ok(out) = rebuild(&old, &delta, wanted(&new)) {
            prop_assert_eq!(out, new);
        }
    }

    /// Structure and corrections of any bytes at all, under a header that fits.
    #[test]
    fn noise_under_a_good_header(seed in any::<u64>(), structure in 0u64..300, corrections in 0u64..300, literals in 0u64..300) {
        let (old, new, delta) = small();
        let mut delta = delta[..HEADER_BYTES].to_vec();
        delta[88..96].copy_from_slice(&structure.to_le_bytes());
        delta[96..104].copy_from_slice(&corrections.to_le_bytes());
        delta[104..112].copy_from_slice(&literals.to_le_bytes());
        delta.extend(noise(seed, (structure + corrections + literals) as usize));
        prop_assert!(rebuild(&old, &delta, wanted(&new)).is_err());
    }
}

fn small() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    use std::sync::OnceLock;
    static PAIR: OnceLock<(Vec<u8>, Vec<u8>, Vec<u8>)> = OnceLock::new();
    PAIR.get_or_init(pair).clone()
}
