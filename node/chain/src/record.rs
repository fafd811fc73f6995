//! The records of the registry and of the chain's head, and how records stand in the state: as canonical JSON.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest, PublicKey, Purpose, json};
use instar_ledger::{DeviceId, ForkPart, Keys, Oid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::view::{MAX_VALUE_BYTES, Overlay, StateError, StateView};

/// The newest height and its time. It stands in the state, so that no rule has to trust a header for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The height; 0 is genesis.
    pub height: u64,
    /// The block's time in milliseconds since 1970.
    pub time_ms: u64,
}

/// What never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainRecord {
    /// The chain's id.
    pub chain: ChainId,
    /// The consensus kernel.
    pub kernel: u32,
    /// A name for people.
    pub name: String,
    /// The protocol number.
    pub protocol: u32,
}

/// A registered key. It stays registered when it is retired, so that nobody can register it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Of a lane key that replaced another one: its device, whose id comes from its first key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Whose it is.
    pub operator: String,
    /// Its one purpose.
    pub purpose: Purpose,
    /// The height from which it signs nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<u64>,
    /// The validator that it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator: Option<String>,
}

impl KeyRecord {
    /// A key of an operator that belongs to no validator.
    pub(crate) fn new(operator: &str, purpose: Purpose) -> Self {
        Self {
            device: None,
            operator: operator.to_owned(),
            purpose,
            retired: None,
            validator: None,
        }
    }
}

/// An operator, once governance has changed anything: genesis says it only through keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorRecord {
    /// Its account keys that are not retired.
    pub accounts: Vec<PublicKey>,
    /// How many devices it has that are not retired.
    pub devices: u64,
    /// The height at which it was let go. Its name is never used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
}

/// A validator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidatorRecord {
    /// Its device, whose lane its node appends to.
    pub device: DeviceId,
    /// Its keys.
    pub keys: Keys,
    /// Its name, unique.
    pub name: String,
    /// Whose it is.
    pub operator: String,
    /// Its voting power.
    pub power: u64,
}

/// A registered device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRecord {
    /// Since when, and why, nothing of its present key's lanes takes effect any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closed>,
    /// The newest incarnation of its lane of which anything is merged; 0 before.
    pub incarnation: u32,
    /// The key that signs its lane commits.
    pub lane_key: PublicKey,
    /// Its name: the principal in the allowed-signers file.
    pub name: String,
    /// The keys that it had before, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older_keys: Vec<OlderKey>,
    /// Whose it is.
    pub operator: String,
}

/// A fork of this chain that a motion merges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkRecord {
    /// Its last block that is merged; its genesis before the first.
    pub head: Oid,
    /// The height of that block.
    pub height: u64,
    /// The newest motion about it that took effect.
    pub motion: Digest,
    /// The slices that are still due.
    pub parts: Vec<ForkPart>,
    /// The height at which the newest slice was merged, or the newest motion took effect.
    pub since: u64,
}

/// Why nothing of a lane takes effect any more. The words are the rules in receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClosedBy {
    /// The device was retired.
    DeviceRetired,
    /// The device got another lane key.
    LaneKeyReplaced,
    /// The device said two things at one place of a lane.
    LaneQuarantined,
}

impl ClosedBy {
    /// The rule in receipts.
    pub fn rule(self) -> &'static str {
        match self {
            Self::DeviceRetired => "device-retired",
            Self::LaneKeyReplaced => "lane-key-replaced",
            Self::LaneQuarantined => "lane-quarantined",
        }
    }
}

/// The end of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closed {
    /// Why.
    pub by: ClosedBy,
    /// The entry that proves it, where it is a quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Digest>,
    /// The block from which on it holds.
    pub since: u64,
}

/// A lane key that a device had before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OlderKey {
    /// The end of its lanes.
    pub closed: Closed,
    /// The key.
    pub key: PublicKey,
    /// The last incarnation that was its own.
    pub last: u32,
}

impl DeviceRecord {
    /// A device of which nothing is merged yet.
    pub(crate) fn new(lane_key: PublicKey, name: &str, operator: &str) -> Self {
        Self {
            closed: None,
            incarnation: 0,
            lane_key,
            name: name.to_owned(),
            older_keys: Vec::new(),
            operator: operator.to_owned(),
        }
    }

    fn older(&self, incarnation: u32) -> Option<&OlderKey> {
        self.older_keys.iter().find(|k| incarnation <= k.last)
    }

    /// The key that signs an incarnation of its lane: each has exactly one.
    pub fn key_of(&self, incarnation: u32) -> PublicKey {
        self.older(incarnation).map_or(self.lane_key, |k| k.key)
    }

    /// Since when, and why, nothing of an incarnation takes effect any more.
    pub fn closed(&self, incarnation: u32) -> Option<Closed> {
        self.older(incarnation)
            .map_or(self.closed, |k| Some(k.closed))
    }

    /// All lane keys that it has or had, oldest first: what is merged was signed by one of them.
    pub fn lane_keys(&self) -> impl Iterator<Item = PublicKey> + '_ {
        let older = self.older_keys.iter().map(|k| k.key);
        older.chain(std::iter::once(self.lane_key))
    }

    /// Whether it is retired for ever.
    pub fn is_retired(&self) -> bool {
        self.closed.is_some_and(|c| c.by == ClosedBy::DeviceRetired)
    }
}

/// Up to where a lane is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneMark {
    /// The last merged commit.
    pub head: Oid,
    /// Its sequence number.
    pub seq: u64,
}

/// A registered dapp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DappRecord {
    /// The first height at which its entries are taken again, after it was left out of a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_until: Option<u64>,
}

/// What runs in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotRecord {
    /// The release's number; 0 where the slot is empty.
    pub number: u64,
    /// The release's root CID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Since which height it runs.
    pub since: u64,
}

/// Who let a release in, where nobody voted on it.
pub const GENESIS_ADMITTED: &str = "genesis-admitted";

/// One release of a slot's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryEntry {
    /// The id of the proposal that brought it, or [`GENESIS_ADMITTED`].
    pub by: String,
    /// Since which height it ran.
    pub height: u64,
    /// Its number.
    pub number: u64,
    /// Its root CID.
    pub release: String,
    /// The build round that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<Digest>,
}

/// When something is over: both its height and its block time must have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// The first height at which it may be over.
    pub height: u64,
    /// The first block time at which it may be over, in milliseconds.
    pub time_ms: u64,
}

impl Deadline {
    /// Whether it is over at this height and time.
    pub fn has_passed(&self, height: u64, time_ms: u64) -> bool {
        height >= self.height && time_ms >= self.time_ms
    }
}

fn corrupt(key: &str, why: impl ToString) -> StateError {
    StateError::Corrupt {
        key: key.to_owned(),
        why: why.to_string(),
    }
}

/// The record under `key`, if there is one.
pub(crate) fn read<T: DeserializeOwned>(
    view: &dyn StateView,
    key: &str,
) -> Result<Option<T>, StateError> {
    view.get(key)?.map(|bytes| decode(key, &bytes)).transpose()
}

/// The record under `key`, which genesis has put there.
pub(crate) fn expect<T: DeserializeOwned>(
    view: &dyn StateView,
    key: &str,
) -> Result<T, StateError> {
    read(view, key)?.ok_or_else(|| corrupt(key, "genesis sets this key, it is missing"))
}

/// All records below `prefix`, by the rest of their keys; at most `limit`.
pub(crate) fn read_all<T: DeserializeOwned>(
    view: &dyn StateView,
    prefix: &str,
    limit: usize,
) -> Result<BTreeMap<String, T>, StateError> {
    view.range(prefix, limit)?
        .into_iter()
        .map(|(key, bytes)| Ok((key[prefix.len()..].to_owned(), decode(&key, &bytes)?)))
        .collect()
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StateError> {
    json::from_slice(bytes, MAX_VALUE_BYTES).map_err(|e| corrupt(key, e))
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize>(key: &str, record: &T) -> Result<Vec<u8>, StateError> {
    let bytes = json::to_vec(record).map_err(|e| corrupt(key, e))?;
    if bytes.len() > MAX_VALUE_BYTES {
        return Err(corrupt(key, format!("{} bytes are too many", bytes.len())));
    }
    Ok(bytes)
}

/// Sets the record under `key`.
pub(crate) fn write<T: Serialize>(
    state: &mut Overlay<'_>,
    key: &str,
    record: &T,
) -> Result<(), StateError> {
    let bytes = encode(key, record)?;
    state.put(key, bytes);
    Ok(())
}
