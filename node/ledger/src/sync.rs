//! Final blocks as one node hands them to another over HTTP: certificates and packs, one after the other.
//!
//! Each block is its certificate's length and its pack's, as 32-bit big-endian numbers, then the two. What is read here
//! has a shape and nothing more: the certificate must be verified, and the pack goes through `Store::import_pack`.

use crate::certificate::{Certificate, CertificateError, MAX_CERTIFICATE_BYTES};

/// The largest answer. The largest block's pack fits with its certificate.
pub const MAX_SYNC_BYTES: usize = 12 << 20;
/// Blocks in one answer at most.
pub const MAX_SYNC_BLOCKS: usize = 256;
/// What stands before each block.
const LENGTHS: usize = 8;

/// A final block on its way to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedBlock {
    /// What made it final.
    pub certificate: Certificate,
    /// The block and the lane commits that it merges.
    pub pack: Vec<u8>,
}

/// Why an answer is refused.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// More bytes than [`MAX_SYNC_BYTES`].
    #[error("an answer of {0} bytes, at most {MAX_SYNC_BYTES} are read")]
    TooLarge(usize),
    /// More blocks than [`MAX_SYNC_BLOCKS`].
    #[error("more than {MAX_SYNC_BLOCKS} blocks in one answer")]
    TooMany,
    /// It ends in the middle of a block.
    #[error("the answer ends in the middle of block {0}")]
    Short(usize),
    /// A certificate that is none.
    #[error("block {at}: {source}")]
    Certificate {
        /// Its place in the answer.
        at: usize,
        /// What is wrong.
        source: CertificateError,
    },
}

/// Adds a block to an answer, if it has room for it; the first always has.
pub fn push(out: &mut Vec<u8>, certificate: &[u8], pack: &[u8]) -> bool {
    let more = LENGTHS + certificate.len() + pack.len();
    let (Ok(c), Ok(p)) = (u32::try_from(certificate.len()), u32::try_from(pack.len())) else {
        return false;
    };
    if !out.is_empty() && out.len() + more > MAX_SYNC_BYTES {
        return false;
    }
    out.extend(c.to_be_bytes());
    out.extend(p.to_be_bytes());
    out.extend(certificate);
    out.extend(pack);
    true
}

/// Reads an answer.
pub fn read(mut bytes: &[u8]) -> Result<Vec<SyncedBlock>, SyncError> {
    if bytes.len() > MAX_SYNC_BYTES {
        return Err(SyncError::TooLarge(bytes.len()));
    }
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        let at = blocks.len();
        if at == MAX_SYNC_BLOCKS {
            return Err(SyncError::TooMany);
        }
        let certificate_len = number(&mut bytes).ok_or(SyncError::Short(at))?;
        let pack_len = number(&mut bytes).ok_or(SyncError::Short(at))?;
        if certificate_len > MAX_CERTIFICATE_BYTES {
            return Err(SyncError::TooLarge(certificate_len));
        }
        let certificate = take(&mut bytes, certificate_len).ok_or(SyncError::Short(at))?;
        let pack = take(&mut bytes, pack_len).ok_or(SyncError::Short(at))?;
        let certificate = Certificate::from_bytes(certificate)
            .map_err(|source| SyncError::Certificate { at, source })?;
        blocks.push(SyncedBlock {
            certificate,
            pack: pack.to_vec(),
        });
    }
    Ok(blocks)
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    usize::try_from(u32::from_be_bytes(*first)).ok()
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oid::Oid;

    fn certificate(height: u64) -> Certificate {
        Certificate {
            block: Oid::from_bytes([7; 32]),
            height,
            round: 0,
            signatures: Vec::new(),
        }
    }

    fn answer() -> Vec<u8> {
        let mut out = Vec::new();
        for height in 1..4 {
            let bytes = certificate(height).to_bytes().unwrap();
            assert!(push(&mut out, &bytes, &[height as u8; 5]));
        }
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let blocks = read(&answer()).unwrap();
        assert_eq!(blocks.len(), 3);
        assert_eq!(blocks[2].certificate, certificate(3));
        assert_eq!(blocks[1].pack, [2; 5]);
    }

    #[test]
    fn an_answer_cut_anywhere_is_refused_or_ends_at_a_block() {
        let whole = answer();
        let step = whole.len() / 3;
        for end in 0..whole.len() {
            match read(&whole[..end]) {
                Ok(blocks) => assert_eq!(end, blocks.len() * step),
                Err(e) => assert!(matches!(e, SyncError::Short(_)), "{e}"),
            }
        }
    }

    #[test]
    fn a_claim_of_gigabytes_allocates_nothing() {
        let mut bytes = Vec::new();
        bytes.extend(2u32.to_be_bytes());
        bytes.extend(u32::MAX.to_be_bytes());
        bytes.extend(b"{}");
        assert!(matches!(read(&bytes), Err(SyncError::Short(0))));
        bytes[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(read(&bytes), Err(SyncError::TooLarge(_))));
    }

    #[test]
    fn room_ends_where_the_bound_is() {
        let mut out = Vec::new();
        assert!(push(&mut out, b"{}", &vec![0; MAX_SYNC_BYTES - 10]));
        assert!(!push(&mut out, b"{}", b""));
    }
}
