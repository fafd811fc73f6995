//! Named, frozen ways to cut a file. A profile never changes: a better one gets a new name.

use std::fmt;

use fastcdc::v2020::Normalization;

/// How a file becomes chunks, and chunks become a DAG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// FastCDC v2020 boundaries, raw leaves, CIDv1 with sha2-256, a balanced DAG of width 174.
    InstarCdcV1,
}

/// The name does not belong to any profile known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no chunk profile is called {name:?}; known: instar-cdc-v1")]
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
    assert!(p.max_bytes.is_multiple_of(2) && p.max_bytes <= crate::block::MAX_BLOCK_BYTES);
};

/// Most links in one file node. 174 is what stock importers have used for a decade.
pub const FILE_WIDTH: usize = 174;

impl Profile {
    /// The name that stands in `release.json` as `chunk_profile`.
    pub fn name(self) -> &'static str {
        match self {
            Self::InstarCdcV1 => "instar-cdc-v1",
        }
    }

    /// The profile of that name.
    pub fn from_name(name: &str) -> Result<Self, UnknownProfile> {
        match name {
            "instar-cdc-v1" => Ok(Self::InstarCdcV1),
            _ => Err(UnknownProfile {
                name: name.chars().take(64).collect(),
            }),
        }
    }

    pub(crate) fn cdc(self) -> CdcParameters {
        match self {
            Self::InstarCdcV1 => INSTAR_CDC_V1,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
