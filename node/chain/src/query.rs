//! Reading the state: typed, for the HTTP API, the command line, audits, and the upgrade module.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest, PublicKey, Purpose};
use instar_ledger::{DeviceId, ForkDue, Lane, Slice, ValidatorSet};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::block::BlockError;
use crate::build::Round;
use crate::govern::Motion;
use crate::keys;
use crate::policy::Policy;
use crate::record::{
    self, ChainRecord, DappRecord, DeviceRecord, ForkRecord, Head, HistoryEntry, KeyRecord,
    LaneMark, OperatorRecord, SlotRecord, ValidatorRecord,
};
use crate::upgrade::Proposal;
use crate::view::{StateError, StateView};

/// How many records a list has at most. A chain with several upgrades a day gets there after years.
pub const MAX_LISTED: usize = 10_000;
/// How many lanes a chain may have had, all incarnations counted, for a list of all of them.
pub const MAX_LANES: usize = 1 << 18;

/// What a slot holds and has held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// All its releases, the newest last.
    pub history: Vec<HistoryEntry>,
    /// The number of the release; 0 where the slot is empty.
    pub number: u64,
    /// The root CID of the release; empty where the slot is.
    pub release: String,
    /// Since which height it runs.
    pub since: u64,
}

/// The newest height and its time.
pub fn head(view: &dyn StateView) -> Result<Head, StateError> {
    record::expect(view, keys::HEAD)
}

/// What never changes.
pub fn chain(view: &dyn StateView) -> Result<ChainRecord, StateError> {
    record::expect(view, keys::CHAIN)
}

/// The rules for upgrades.
pub fn policy(view: &dyn StateView) -> Result<Policy, StateError> {
    record::expect(view, keys::POLICY)
}

/// The validators, sorted by consensus key.
pub fn validators(view: &dyn StateView) -> Result<Vec<ValidatorRecord>, StateError> {
    record::expect(view, keys::VALIDATORS)
}

/// The set that certifies the block after this state.
pub fn validator_set(view: &dyn StateView) -> Result<ValidatorSet, StateError> {
    crate::apply::validator_set(view)
}

/// What a key is registered for.
pub fn key(view: &dyn StateView, key: &PublicKey) -> Result<Option<KeyRecord>, StateError> {
    record::read(view, &keys::key(key))
}

/// The nonce of an author's next entry; 0 for one who has said nothing yet.
pub fn nonce(view: &dyn StateView, author: &PublicKey) -> Result<u64, StateError> {
    Ok(record::read(view, &keys::nonce(author))?.unwrap_or(0))
}

/// A registered device.
pub fn device(view: &dyn StateView, id: &DeviceId) -> Result<Option<DeviceRecord>, StateError> {
    record::read(view, &keys::device(id))
}

/// All registered devices.
pub fn devices(view: &dyn StateView) -> Result<BTreeMap<DeviceId, DeviceRecord>, StateError> {
    by_id(view, keys::DEVICES)
}

/// Up to where a lane is merged; nothing if none of it is.
pub fn lane(view: &dyn StateView, lane: &Lane) -> Result<Option<LaneMark>, StateError> {
    record::read(view, &keys::lane(lane))
}

/// Up to where each lane is merged, in the order of the state's keys.
pub fn lanes(view: &dyn StateView) -> Result<Vec<(Lane, LaneMark)>, StateError> {
    let marks: BTreeMap<String, LaneMark> = record::read_all(view, keys::LANES, MAX_LANES + 1)?;
    if marks.len() > MAX_LANES {
        return Err(StateError::Io(format!(
            "the state has more than {MAX_LANES} lanes"
        )));
    }
    marks
        .into_iter()
        .map(|(name, mark)| match name.parse() {
            Ok(lane) => Ok((lane, mark)),
            Err(_) => Err(StateError::Corrupt {
                key: format!("{}{name}", keys::LANES),
                why: "the key is no lane".into(),
            }),
        })
        .collect()
}

/// The key that signs a lane; nothing if its device is not registered.
pub fn lane_key(view: &dyn StateView, lane: &Lane) -> Result<Option<PublicKey>, StateError> {
    Ok(device(view, &lane.device)?.map(|d| d.key_of(lane.incarnation)))
}

/// The device that a lane key belongs to, registered or not, retired or not.
pub fn device_of(view: &dyn StateView, lane_key: &PublicKey) -> Result<DeviceId, StateError> {
    let known = key(view, lane_key)?.and_then(|k| k.device);
    Ok(known.unwrap_or_else(|| DeviceId::of(lane_key)))
}

/// Whether the block after this state may merge a lane. An error is why not, or that the state can't be read.
pub fn check_lane(view: &dyn StateView, lane: &Lane) -> Result<(), BlockError> {
    let next = head(view)?.height.saturating_add(1);
    crate::lanes::check_open(device(view, &lane.device)?.as_ref(), lane, next)
}

/// An operator, as people look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Its account keys that are not retired.
    pub accounts: Vec<PublicKey>,
    /// The ids of its devices that are not retired.
    pub devices: Vec<DeviceId>,
    /// The height at which it was let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
    /// The names of its validators.
    pub validators: Vec<String>,
}

/// All operators that there are or were, by name.
pub fn operators(view: &dyn StateView) -> Result<BTreeMap<String, Operator>, StateError> {
    let mut all: BTreeMap<String, Operator> = BTreeMap::new();
    for (key, known) in keys(view)? {
        let operator = all.entry(known.operator).or_default();
        if known.purpose == Purpose::Account && known.retired.is_none() {
            operator.accounts.push(key);
        }
    }
    for (id, device) in devices(view)? {
        if !device.is_retired() {
            all.entry(device.operator).or_default().devices.push(id);
        }
    }
    for validator in validators(view)? {
        let operator = all.entry(validator.operator).or_default();
        operator.validators.push(validator.name);
    }
    let records: BTreeMap<String, OperatorRecord> =
        record::read_all(view, keys::OPERATORS, MAX_LISTED)?;
    for (name, record) in records {
        all.entry(name).or_default().removed = record.removed;
    }
    Ok(all)
}

/// All registered keys, retired ones too.
pub fn keys(view: &dyn StateView) -> Result<BTreeMap<PublicKey, KeyRecord>, StateError> {
    by_id(view, keys::KEYS)
}

/// A motion.
pub fn motion(view: &dyn StateView, id: &Digest) -> Result<Option<Motion>, StateError> {
    record::read(view, &keys::motion(id))
}

/// All motions.
pub fn motions(view: &dyn StateView) -> Result<BTreeMap<Digest, Motion>, StateError> {
    by_id(view, keys::MOTIONS)
}

/// The forks that are or were merged.
pub fn forks(view: &dyn StateView) -> Result<BTreeMap<ChainId, ForkRecord>, StateError> {
    by_id(view, keys::FORKS)
}

/// What the block after this state may merge of forks, oldest motion first.
pub fn forks_due(view: &dyn StateView) -> Result<Vec<ForkDue>, StateError> {
    let mut all = Vec::new();
    for chain in crate::forks::open(view)? {
        all.extend(crate::forks::due(view, &chain)?);
    }
    Ok(all)
}

/// Whether the block after this state may merge a slice that is due, if it leaves no dapp out. An error is why not, or that
/// the state can't be read.
pub fn check_slice(view: &dyn StateView, slice: &Slice) -> Result<(), BlockError> {
    let next = head(view)?.height.saturating_add(1);
    crate::forks::offered(view, next, slice).map(drop)
}

/// The registered dapps, by name.
pub fn dapps(view: &dyn StateView) -> Result<BTreeMap<String, DappRecord>, StateError> {
    record::read_all(view, keys::DAPPS, MAX_LISTED)
}

/// All slots, by name.
pub fn slots(view: &dyn StateView) -> Result<BTreeMap<String, Slot>, StateError> {
    let records: BTreeMap<String, SlotRecord> = record::read_all(view, keys::SLOTS, MAX_LISTED)?;
    records
        .into_iter()
        .map(|(name, record)| {
            let history: BTreeMap<String, HistoryEntry> =
                record::read_all(view, &keys::history_of(&name), MAX_LISTED)?;
            let slot = Slot {
                history: history.into_values().collect(),
                number: record.number,
                release: record.release.unwrap_or_default(),
                since: record.since,
            };
            Ok((name, slot))
        })
        .collect()
}

/// What a slot holds; nothing if there is no such slot.
pub fn slot(view: &dyn StateView, name: &str) -> Result<Option<SlotRecord>, StateError> {
    record::read(view, &keys::slot(name))
}

/// The text of a release's `release.json`.
pub fn release_json(view: &dyn StateView, cid: &str) -> Result<Option<String>, StateError> {
    let key = keys::release(cid);
    view.get(&key)?
        .map(|bytes| {
            String::from_utf8(bytes).map_err(|e| StateError::Corrupt {
                key: key.clone(),
                why: e.to_string(),
            })
        })
        .transpose()
}

/// A build round.
pub fn round(view: &dyn StateView, id: &Digest) -> Result<Option<Round>, StateError> {
    record::read(view, &keys::round(id))
}

/// All build rounds.
pub fn rounds(view: &dyn StateView) -> Result<BTreeMap<Digest, Round>, StateError> {
    by_id(view, keys::ROUNDS)
}

/// A proposal.
pub fn proposal(view: &dyn StateView, id: &Digest) -> Result<Option<Proposal>, StateError> {
    record::read(view, &keys::proposal(id))
}

/// All proposals.
pub fn proposals(view: &dyn StateView) -> Result<BTreeMap<Digest, Proposal>, StateError> {
    by_id(view, keys::PROPOSALS)
}

/// The proposals that are not decided yet, oldest first.
pub fn open_proposals(view: &dyn StateView) -> Result<Vec<Proposal>, StateError> {
    let ids = crate::upgrade::open_ids(view)?;
    let read = |id: &Digest| record::expect(view, &keys::proposal(id));
    ids.iter().map(read).collect()
}

/// The build rounds that are not closed yet, oldest first.
pub fn open_rounds(view: &dyn StateView) -> Result<Vec<Round>, StateError> {
    let ids = crate::build::open_ids(view)?;
    let read = |id: &Digest| record::expect(view, &keys::round(id));
    ids.iter().map(read).collect()
}

/// The proposal whose rollout is the newest, whether it still goes on or not.
pub fn rollout(view: &dyn StateView) -> Result<Option<Proposal>, StateError> {
    let id: Option<Digest> = record::read(view, keys::ROLLOUT)?;
    match id {
        Some(id) => record::read(view, &keys::proposal(&id)),
        None => Ok(None),
    }
}

fn by_id<K, T>(view: &dyn StateView, prefix: &str) -> Result<BTreeMap<K, T>, StateError>
where
    K: std::str::FromStr + Ord,
    T: DeserializeOwned,
{
    let records: BTreeMap<String, T> = record::read_all(view, prefix, MAX_LISTED)?;
    records
        .into_iter()
        .map(|(id, record)| match id.parse() {
            Ok(id) => Ok((id, record)),
            Err(_) => Err(StateError::Corrupt {
                key: format!("{prefix}{id}"),
                why: "the key is no id".into(),
            }),
        })
        .collect()
}
