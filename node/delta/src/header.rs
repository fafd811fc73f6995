//! The fixed start of a delta of one file.

use crate::error::{DeltaError, MAX_FILE_BYTES, MAX_STRUCTURE_BYTES, bounded};
use crate::plan::Sizes;

/// The first bytes; the last of them is the version.
pub const MAGIC: [u8; 8] = *b"INSDLTA\x01";

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8 + 2 * (8 + 32) + 4 * 8;

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of both files.
    pub sizes: Sizes,
    /// SHA-256 of the old file.
    pub old_sha256: [u8; 32],
    /// SHA-256 of the new file.
    pub new_sha256: [u8; 32],
    /// Bytes of the coded plan.
    pub structure: u64,
    /// Bytes of the coded corrections.
    pub corrections: u64,
    /// Bytes of the compressed literals.
    pub literals: u64,
    /// Bytes of the literals.
    pub literal_bytes: u64,
}

impl Header {
    /// The header in bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        for (size, sha256) in [
            (self.sizes.old, self.old_sha256),
            (self.sizes.new, self.new_sha256),
        ] {
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&sha256);
        }
        for part in [
            self.structure,
            self.corrections,
            self.literals,
            self.literal_bytes,
        ] {
            out.extend_from_slice(&part.to_le_bytes());
        }
        out
    }

    /// Reads a header, and checks it against the bounds and the bytes that there are.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES], delta_len: u64) -> Result<Self, DeltaError> {
        if bytes[..8] != MAGIC {
            return Err(DeltaError::NotADelta(
                "its first eight bytes are other ones",
            ));
        }
        let number = |at: usize| {
            u64::from_le_bytes(
                bytes[at..at + 8]
                    .try_into()
                    .expect("the slice has eight bytes"),
            )
        };
        let digest = |at: usize| -> [u8; 32] {
            bytes[at..at + 32]
                .try_into()
                .expect("the slice has 32 bytes")
        };
        let header = Self {
            sizes: Sizes {
                old: bounded("bytes of old file", number(8), MAX_FILE_BYTES)?,
                new: bounded("bytes of new file", number(48), MAX_FILE_BYTES)?,
            },
            old_sha256: digest(16),
            new_sha256: digest(56),
            structure: bounded("bytes of structure", number(88), MAX_STRUCTURE_BYTES)?,
            corrections: bounded("bytes of corrections", number(96), MAX_FILE_BYTES)?,
            literals: bounded("bytes of compressed literals", number(104), MAX_FILE_BYTES)?,
            literal_bytes: number(112),
        };
        bounded("bytes of literals", header.literal_bytes, header.sizes.new)?;
        match (HEADER_BYTES as u64 + header.structure + header.corrections + header.literals)
            .cmp(&delta_len)
        {
            std::cmp::Ordering::Equal => Ok(header),
            std::cmp::Ordering::Greater => Err(DeltaError::Truncated("parts")),
            std::cmp::Ordering::Less => {
                Err(DeltaError::Malformed("there are bytes after its last part"))
            }
        }
    }
}
