//! Named, frozen ways to cut a file. A profile never changes: a better one gets a new name.

use std::fmt;

use fastcdc::v2020::{self, Normalization};

use crate::block::MAX_MADE_BLOCK_BYTES;

/// How a file becomes chunks, and chunks become a DAG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// FastCDC v2020 boundaries, raw leaves, CIDv1 with sha2-256, a balanced DAG of width 174.
    InstarCdcV1,
    /// What stock importers make by IPIP-499: chunks of 1 MiB, raw leaves, CIDv1 with sha2-256, a
    /// balanced DAG of width 1,024.
    UnixfsV1_2025,
}

/// The name does not belong to any profile known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no chunk profile is called {name:?}; known: instar-cdc-v1, unixfs-v1-2025")]
pub struct UnknownProfile {
    /// The name that was asked for.
    pub name: String,
}

/// The parameters of a FastCDC cut, all in bytes and all even: the cutter steps two bytes at a
/// time and would silently shift an odd boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CdcParameters {
    pub min_bytes: usize,
    pub avg_bytes: usize,
    pub max_bytes: usize,
    pub normalization: Normalization,
}

/// `instar-cdc-v1`, chosen by measurement (`docs/formats/chunks.md` has the numbers) and frozen.
pub(crate) const INSTAR_CDC_V1: CdcParameters = CdcParameters {
    min_bytes: 8 * 1024,
    avg_bytes: 32 * 1024,
    max_bytes: 128 * 1024,
    normalization: Normalization::Level2,
};

const _: () = {
    let p = INSTAR_CDC_V1;
    assert!(p.min_bytes.is_multiple_of(2) && p.avg_bytes.is_multiple_of(2));
    assert!(p.max_bytes.is_multiple_of(2) && p.max_bytes <= MAX_MADE_BLOCK_BYTES);
    assert!(FIXED_BYTES <= MAX_MADE_BLOCK_BYTES && FIXED_FOLDER_BYTES <= MAX_MADE_BLOCK_BYTES);
};

/// Most links in one file node of `instar-cdc-v1`. 174 is what stock importers have used for a
/// decade.
pub const FILE_WIDTH: usize = 174;

/// `unixfs-v1-2025`: bytes of a chunk, and most links in one file node.
const FIXED_BYTES: usize = 1024 * 1024;
const FIXED_WIDTH: usize = 1024;
/// `unixfs-v1-2025`: a directory node of more bytes would be sharded.
const FIXED_FOLDER_BYTES: usize = 256 * 1024;

impl Profile {
    /// All profiles, the default first.
    pub const ALL: [Self; 2] = [Self::InstarCdcV1, Self::UnixfsV1_2025];

    /// The name that stands in `release.json` as `chunk_profile`.
    pub fn name(self) -> &'static str {
        match self {
            Self::InstarCdcV1 => "instar-cdc-v1",
            Self::UnixfsV1_2025 => "unixfs-v1-2025",
        }
    }

    /// The profile of that name.
    pub fn from_name(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| UnknownProfile {
                name: name.chars().take(64).collect(),
            })
    }

    /// No chunk is longer. A cutter that sees this much of a file, or its end, can cut.
    pub fn max_chunk_bytes(self) -> usize {
        match self {
            Self::InstarCdcV1 => INSTAR_CDC_V1.max_bytes,
            Self::UnixfsV1_2025 => FIXED_BYTES,
        }
    }

    /// Most links in one file node.
    pub fn file_width(self) -> usize {
        match self {
            Self::InstarCdcV1 => FILE_WIDTH,
            Self::UnixfsV1_2025 => FIXED_WIDTH,
        }
    }

    /// A directory node of more bytes isn't written: it would have to be sharded.
    pub fn max_folder_bytes(self) -> usize {
        match self {
            Self::InstarCdcV1 => MAX_MADE_BLOCK_BYTES,
            Self::UnixfsV1_2025 => FIXED_FOLDER_BYTES,
        }
    }

    /// Whether names that begin with a dot are left out of a folder unless they are asked for, as
    /// the profile has it.
    pub fn leaves_out_hidden(self) -> bool {
        self == Self::UnixfsV1_2025
    }

    /// Length of the first chunk of `rest`, which is all that is left of a file or at least
    /// [`Profile::max_chunk_bytes`] of it.
    pub fn cut(self, rest: &[u8]) -> usize {
        match self {
            Self::InstarCdcV1 => {
                let p = INSTAR_CDC_V1;
                let (strict, loose) = MASKS;
                let rest = &rest[..rest.len().min(p.max_bytes)];
                let (min, avg, max) = (p.min_bytes, p.avg_bytes, p.max_bytes);
                v2020::cut(rest, min, avg, max, strict, loose, strict << 1, loose << 1).1
            }
            Self::UnixfsV1_2025 => rest.len().min(FIXED_BYTES),
        }
    }
}

/// The masks that the normalization level gives, strict and loose; the vectors hold them.
const MASKS: (u64, u64) = (0x0000_d907_0353_7000, 0x0000_d903_0353_0000);

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masks_are_those_of_the_level() {
        let p = INSTAR_CDC_V1;
        assert_eq!(v2020::select_masks(p.avg_bytes, p.normalization), MASKS);
    }
}
