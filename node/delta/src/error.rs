//! What can be wrong with a delta, and the bounds that it is held to.

use std::io;

/// No file that a delta makes or starts from is larger: places in a file fit in 31 bits of the suffix array.
pub const MAX_FILE_BYTES: u64 = (1 << 31) - 1;

/// Most commands in a delta. They are all held while it is applied, at some 60 bytes each.
pub const MAX_COMMANDS: u64 = 1 << 18;

/// Most segments of a program. Real ones have under ten.
pub const MAX_SEGMENTS: u64 = 64;

/// Most ranges of known kind in a file.
pub const MAX_RANGES: u64 = 256;

/// Most marks of all ranges together, at 16 bytes each.
pub const MAX_MARKS: u64 = 1 << 18;

/// Most bytes of the part of a delta that is held whole: header and structure.
pub const MAX_STRUCTURE_BYTES: u64 = 4 * 1024 * 1024;

/// Why a delta was refused.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The bytes are not a delta of a version known here.
    #[error("this is not a delta of a version known here: {0}")]
    NotADelta(&'static str),
    /// It says something that can't be.
    #[error("the delta is damaged or hostile: {0}")]
    Malformed(&'static str),
    /// It asks for more than a bound allows.
    #[error("the delta claims {claimed} {what}, over the limit of {limit}")]
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// How much it claims.
        claimed: u64,
        /// The bound.
        limit: u64,
    },
    /// It ends before what it promises.
    #[error("the delta is cut off: its {0} end early")]
    Truncated(&'static str),
    /// The old file is another one.
    #[error("the delta starts from another file: it wants {wanted}, the old file is {found}")]
    WrongOld {
        /// What the delta says about the old file.
        wanted: String,
        /// What the old file is.
        found: String,
    },
    /// What came out is not what was promised.
    #[error(
        "what the delta made is not what it promised: {wanted} was wanted, {found} came out; nothing was kept"
    )]
    WrongNew {
        /// What was wanted.
        wanted: String,
        /// What came out.
        found: String,
    },
    /// A file is too large for this format.
    #[error("the {what} file has {bytes} bytes, over the limit of {MAX_FILE_BYTES}; ship it whole")]
    TooLarge {
        /// Which file.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// Reading or writing failed.
    #[error("{what} failed")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl DeltaError {
    /// For `map_err`: names what was being done.
    pub fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Refuses a claim over its bound.
pub fn bounded(what: &'static str, claimed: u64, limit: u64) -> Result<u64, DeltaError> {
    if claimed > limit {
        return Err(DeltaError::OverLimit {
            what,
            claimed,
            limit,
        });
    }
    Ok(claimed)
}
