//! Lanes: a device's own append-only branch.

use std::fmt;
use std::str::FromStr;

use instar_attest::digest::HexError;
use instar_attest::{Digest, PublicKey};
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::oid::Oid;

/// The tag of a device's id.
pub const DEVICE_DOMAIN: &str = "instar/device/v1";
/// How many entries one lane commit may carry.
pub const MAX_ENTRIES_A_COMMIT: usize = 4096;
/// The largest `entries.jsonl`, in bytes: a lane commit fits a gossip message of 4 MiB with room to spare.
pub const MAX_ENTRIES_BYTES: usize = 1024 * 1024;

/// A device's id: it stays when the device's keys are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(Digest);

impl DeviceId {
    /// The id of the device whose first lane key is `key`.
    pub fn of(key: &PublicKey) -> Self {
        Self(Digest::tagged(DEVICE_DOMAIN, key.as_bytes()))
    }

    /// Takes a digest as it is.
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The first eight hex digits, for people.
    pub fn short(&self) -> String {
        self.0.to_hex()[..8].to_owned()
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DeviceId {
    type Err = HexError;
    fn from_str(text: &str) -> Result<Self, HexError> {
        text.parse().map(Self)
    }
}

/// One incarnation of a device's lane. A device whose high-water mark is lost opens the next incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lane {
    /// Whose lane it is.
    pub device: DeviceId,
    /// Counts from 1.
    pub incarnation: u32,
}

/// The text is not `<device>/<incarnation>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a lane: 64 hex digits, a slash, and a number from 1")]
pub struct LaneNameError(pub String);

impl Lane {
    /// The full name of the branch.
    pub fn ref_name(&self) -> String {
        format!("refs/lanes/{}/{}", self.device, self.incarnation)
    }
}

/// `<device>/<incarnation>`, as in the trailer `Lane:` and below `refs/lanes/`.
impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.incarnation)
    }
}

impl FromStr for Lane {
    type Err = LaneNameError;
    fn from_str(text: &str) -> Result<Self, LaneNameError> {
        let refused = || LaneNameError(text.chars().take(120).collect());
        let (device, number) = text.split_once('/').ok_or_else(refused)?;
        let lane = Self {
            device: device.parse().map_err(|_| refused())?,
            incarnation: number.parse().map_err(|_| refused())?,
        };
        // One spelling only: no leading zeros, no sign, and incarnations count from 1.
        if lane.incarnation == 0 || lane.to_string() != text {
            return Err(refused());
        }
        Ok(lane)
    }
}

/// A lane commit, as its exact bytes say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneCommit {
    /// The commit's id.
    pub id: Oid,
    /// The lane that it stands in.
    pub lane: Lane,
    /// Counts from 1 in each incarnation.
    pub seq: u64,
    /// The commit before it; the genesis commit for `seq` 1.
    pub parent: Oid,
    /// The device's own clock, in seconds since 1970; nothing in the state machine reads it.
    pub time_s: u64,
    /// The batch, in order.
    pub entries: Vec<Entry>,
}

/// What a block merges of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneRange {
    /// Whose lane it is.
    pub device: DeviceId,
    /// The first sequence number that this block merges.
    pub from: u64,
    /// The commit of sequence number `to`.
    pub head: Oid,
    /// The lane's incarnation.
    pub incarnation: u32,
    /// The last sequence number that this block merges.
    pub to: u64,
}

impl LaneRange {
    /// The lane that the range is of.
    pub fn lane(&self) -> Lane {
        Lane {
            device: self.device,
            incarnation: self.incarnation,
        }
    }
}

/// Where `lane` stands in the merge order of a block with this parent: devices in the order of their ids, starting at
/// the first that is not below the parent's id and wrapping around, so that a low id gives no advantage. Sort by it.
pub fn merge_key(parent: &Oid, lane: &Lane) -> (bool, Lane) {
    (lane.device.as_bytes() < parent.as_bytes(), *lane)
}
