//! Small programs, linked by hand, so that a new version shifts as real ones do.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;

use instar_delta::{DeltaError, Wanted, apply};
use sha2::{Digest, Sha256};

/// Where programs are loaded.
const BASE: u64 = 0x40_0000;

/// Pseudo-random bytes (SplitMix64): the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    (0..len.div_ceil(8))
        .flat_map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)).to_le_bytes()
        })
        .take(len)
        .collect()
}

/// A program of `functions`, each of which calls others and takes the address of a table of pointers to all of them.
/// Functions keep their number when others are left out.
pub fn program(functions: &[u64]) -> Vec<u8> {
    let text_offset = 0x1000u64;
    let mut starts = BTreeMap::new();
    let mut text_len = 0u64;
    let body = |n: u64| 40 + (n * 7 % 50);
    let len = |n: u64| body(n) + 4 * 5 + 7;
    for n in functions {
        starts.insert(*n, BASE + text_offset + text_len);
        text_len += len(*n);
    }
    let data_offset = (text_offset + text_len).next_multiple_of(16);
    let table = BASE + data_offset;
    let mut file = vec![0u8; text_offset as usize];
    for n in functions {
        // Bytes below 0x80 without opcodes that are looked for.
        file.extend(noise(*n, body(*n) as usize).iter().map(|b| b & 0x70 | 3));
        for k in 1..=4u64 {
            let callee = functions[((n * 31 + k * 17) % functions.len() as u64) as usize];
            let callee = starts.get(&(n + k)).copied().unwrap_or(starts[&callee]);
            let here = BASE + file.len() as u64 + 5;
            file.push(0xE8);
            file.extend((callee.wrapping_sub(here) as u32).to_le_bytes());
        }
        let here = BASE + file.len() as u64 + 7;
        file.extend([0x48, 0x8D, 0x05]);
        file.extend((table.wrapping_sub(here) as u32).to_le_bytes());
    }
    file.resize(data_offset as usize, 0);
    for start in starts.values() {
        file.extend(start.to_le_bytes());
    }
    let data_len = file.len() as u64 - data_offset;
    let names_offset = file.len() as u64;
    file.extend(b"\0.text\0.data.rel.ro\0.shstrtab\0");
    let sections_offset = file.len() as u64;
    let mut section = |name: u32, kind: u32, flags: u64, offset: u64, len: u64| {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        for word in [flags, BASE + offset, offset, len, 0, 0, 0] {
            file.extend(word.to_le_bytes());
        }
    };
    section(0, 0, 0, 0, 0);
    section(1, 1, 6, text_offset, text_len);
    section(7, 1, 3, data_offset, data_len);
    section(20, 3, 0, names_offset, 30);
    let image_len = file.len() as u64;
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(16, 0);
    head.extend(2u16.to_le_bytes());
    head.extend(62u16.to_le_bytes());
    head.extend(1u32.to_le_bytes());
    for word in [BASE + text_offset, 64, sections_offset] {
        head.extend(word.to_le_bytes());
    }
    head.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 4, 3] {
        head.extend(half.to_le_bytes());
    }
    head.extend(1u32.to_le_bytes());
    head.extend(7u32.to_le_bytes());
    for word in [0, BASE, BASE, image_len, image_len, 0x1000] {
        head.extend(word.to_le_bytes());
    }
    file[..head.len()].copy_from_slice(&head);
    file
}

/// What a caller wants who knows the file.
pub fn wanted(new: &[u8]) -> Wanted {
    Wanted {
        bytes: new.len() as u64,
        sha256: Sha256::digest(new).into(),
    }
}

/// Applies in memory.
pub fn rebuild(old: &[u8], delta: &[u8], wanted: Wanted) -> Result<Vec<u8>, DeltaError> {
    let mut out = Vec::new();
    apply(&old, &delta, wanted, &mut out)?;
    Ok(out)
}
