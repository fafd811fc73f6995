//! Any bytes as a delta, or as the object of a release: refused by name, or the wanted file, within the bounds.
//!
//! The bytes are tried as they are, and with a header that fits: what a fuzzer would need hours to find out (sizes, sums,
//! hashes) is filled in, so that it gets to the plan, the corrections and the literals.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_delta::coder::Decoder;
use instar_delta::header::{HEADER_BYTES, Header};
use instar_delta::plan::{Plan, Sizes};
use instar_delta::source::Part;
use instar_delta::{Wanted, apply, release};
use sha2::{Digest, Sha256};

const OLD: &[u8] = include_bytes!("../vectors/old");
/// No new file is larger here, so that a run takes milliseconds.
const MAX_NEW_BYTES: u64 = 1 << 16;

/// Fails on anything but the wanted file or a named error.
pub fn run(data: &[u8]) {
    if let Ok((list, start)) = release::read(&data) {
        let bodies: u64 = list.files.iter().map(|file| file.delta).sum();
        assert_eq!(start + bodies, data.len() as u64);
    }
    if let Ok(header) = instar_delta::apply::header(&data)
        && header.sizes.new <= MAX_NEW_BYTES
    {
        rebuild(data, header);
    }
    if let Some((data, header)) = fitted(data) {
        rebuild(&data, header);
    }
}

fn rebuild(delta: &[u8], header: Header) {
    let wanted = Wanted {
        bytes: header.sizes.new,
        sha256: header.new_sha256,
    };
    let mut out = Vec::new();
    let made = apply(&OLD, &delta, wanted, &mut out);
    assert!(out.len() as u64 <= wanted.bytes);
    if made.is_ok() {
        let digest: [u8; 32] = Sha256::digest(&out).into();
        assert_eq!((out.len() as u64, digest), (wanted.bytes, wanted.sha256));
    }
}

/// The same parts behind a header that fits them.
fn fitted(data: &[u8]) -> Option<(Vec<u8>, Header)> {
    let (head, parts) = data.split_at_checked(HEADER_BYTES)?;
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
    let all = parts.len() as u64;
    let structure = number(88) % (all + 1);
    let corrections = number(96) % (all - structure + 1);
    let sizes = Sizes {
        old: OLD.len() as u64,
        new: number(48) % MAX_NEW_BYTES,
    };
    let mut bits = Decoder::new(Part::new(&parts, 0, structure));
    let plan = Plan::default().code(&mut bits, sizes).ok()?;
    let header = Header {
        sizes,
        old_sha256: Sha256::digest(OLD).into(),
        new_sha256: head[56..88].try_into().unwrap(),
        structure,
        corrections,
        literals: all - structure - corrections,
        literal_bytes: plan.commands.iter().map(|command| command.extra).sum(),
    };
    let mut fitted = header.to_bytes();
    fitted.extend_from_slice(parts);
    Some((fitted, header))
}
