//! The records of the registry and of the chain's head, and how records stand in the state: as canonical JSON.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest, PublicKey, Purpose, json};
use instar_ledger::{DeviceId, Keys, Oid};
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

/// A registered key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Whose it is.
    pub operator: String,
    /// Its one purpose.
    pub purpose: Purpose,
    /// The validator that it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator: Option<String>,
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
    /// The newest incarnation of its lane of which anything is merged; 0 before.
    pub incarnation: u32,
    /// The key that signs its lane commits.
    pub lane_key: PublicKey,
    /// Its name: the principal in the allowed-signers file.
    pub name: String,
    /// Whose it is.
    pub operator: String,
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
