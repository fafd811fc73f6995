//! The state before the first block.

use std::collections::BTreeSet;

use instar_attest::release::{Release, Slot};
use instar_attest::{ChainId, PublicKey, Purpose, json};
use instar_ledger::{DeviceId, Genesis, GenesisRelease, entry::is_topic};
use serde_json::Value;

use crate::apply::{MAX_COUNT, validator_set};
use crate::build::{ReleaseRootError, release_root};
use crate::govern::is_name;
use crate::keys;
use crate::ops;
use crate::policy::{Policy, PolicyError};
use crate::record::{
    ChainRecord, DappRecord, DeviceRecord, GENESIS_ADMITTED, Head, HistoryEntry, KeyRecord,
    SlotRecord, ValidatorRecord, expect, read, write,
};
use crate::view::{MAX_VALUE_BYTES, MemoryState, Overlay, StateError, StateView, Writes, is_key};

/// Why no chain can start from a genesis.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The policy can't be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Two things have one name or key.
    #[error("{0} is given twice")]
    Twice(String),
    /// A name that can't stand in an allowed-signers file or on a screen.
    #[error("{0:?} is no name: 1 to 64 of a-z, A-Z, 0-9, '.', '-' and '_'")]
    Name(String),
    /// A dapp under a name that is a native topic, or no topic at all.
    #[error("{0:?} can't be the name of a dapp")]
    DappName(String),
    /// A number that is out of range.
    #[error("genesis: {0}")]
    Range(String),
    /// A release that is not what it says.
    #[error("the genesis release of slot {slot}: {why}")]
    Release {
        /// The slot.
        slot: String,
        /// What is wrong with it.
        why: String,
    },
    /// A dapp's state that can't be laid out.
    #[error("the genesis state of dapp {dapp} at {at:?}: {why}")]
    DappState {
        /// The dapp.
        dapp: String,
        /// The key.
        at: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A fork that does not fit its mother.
    #[error("the fork: {0}")]
    Fork(String),
    /// A record that does not fit.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The state before the first block of a chain that is no fork, as writes on nothing.
pub fn genesis_writes(genesis: &Genesis, chain: &ChainId) -> Result<Writes, GenesisError> {
    if let Some(fork) = &genesis.fork {
        return Err(wrong_fork(format!(
            "it begins with the state of chain {} at height {}, which is needed too",
            fork.mother(),
            fork.height()
        )));
    }
    let nothing = MemoryState::default();
    let mut state = Overlay::new(&nothing);
    begin(&mut state, genesis, chain)?;
    Ok(state.into_writes()?)
}

/// The state before the first block of a fork, as writes on nothing: what its own genesis says, and from `mother`, the
/// mother's state at the block that it stands on, the key spaces of the dapps that it takes over. Whoever calls has
/// compared the root of `mother` with the one in the genesis, as far as it is known.
pub fn fork_writes(
    genesis: &Genesis,
    chain: &ChainId,
    mother: &dyn StateView,
) -> Result<Writes, GenesisError> {
    let Some(fork) = &genesis.fork else {
        return Err(wrong_fork("its genesis names no mother"));
    };
    let (record, head): (ChainRecord, Head) =
        (expect(mother, keys::CHAIN)?, expect(mother, keys::HEAD)?);
    let at = &fork.header.header;
    if (record.chain, head.height, head.time_ms) != (at.chain, at.height, at.time_ms) {
        return Err(wrong_fork(format!(
            "it stands on height {} of chain {}, but the state is that of height {} of chain {}",
            at.height, at.chain, head.height, record.chain
        )));
    }
    let nothing = MemoryState::default();
    let mut state = Overlay::new(&nothing);
    begin(&mut state, genesis, chain)?;
    for dapp in &fork.dapps {
        take_over(&mut state, genesis, dapp, mother)?;
    }
    Ok(state.into_writes()?)
}

fn wrong_fork(why: impl Into<String>) -> GenesisError {
    GenesisError::Fork(why.into())
}

/// Takes a dapp over, in the release that wrote its state last: another one would find a state that it never migrated.
fn take_over(
    state: &mut Overlay<'_>,
    genesis: &Genesis,
    dapp: &str,
    mother: &dyn StateView,
) -> Result<(), GenesisError> {
    if state.get(&keys::dapp(dapp))?.is_none() {
        return Err(wrong_fork(format!("dapp {dapp} is not among its own")));
    }
    if genesis.accounts.contains_key(dapp) {
        return Err(wrong_fork(format!(
            "dapp {dapp} begins with the mother's state, so it has no accounts of its own"
        )));
    }
    let at = keys::slot(&format!("dapps/{dapp}"));
    let here: Option<SlotRecord> = read(&*state, &at)?;
    let there: Option<SlotRecord> = read(mother, &at)?;
    let runs = |slot: Option<SlotRecord>| slot.map(|s| (s.number, s.release));
    let (here, there) = (runs(here), runs(there));
    if there.is_none() || here != there {
        return Err(wrong_fork(format!(
            "dapp {dapp} must begin with the release that runs on the mother there"
        )));
    }
    for (key, value) in mother.range(&keys::dapp_space(dapp), usize::MAX)? {
        state.put(key, value);
    }
    Ok(())
}

/// What a genesis itself says.
fn begin(state: &mut Overlay<'_>, genesis: &Genesis, chain: &ChainId) -> Result<(), GenesisError> {
    if genesis.time_ms > MAX_COUNT {
        return Err(GenesisError::Range(format!("the time {}", genesis.time_ms)));
    }
    check_name(&genesis.chain_name)?;
    let record = ChainRecord {
        chain: *chain,
        kernel: genesis.kernel,
        name: genesis.chain_name.clone(),
        protocol: genesis.protocol,
    };
    write(state, keys::CHAIN, &record)?;
    let head = Head {
        height: 0,
        time_ms: genesis.time_ms,
    };
    write(state, keys::HEAD, &head)?;
    let policy = Policy::from_value(&genesis.policy)?;
    let names: Vec<(&str, &str)> = genesis
        .validators
        .iter()
        .map(|v| (v.name.as_str(), v.operator.as_str()))
        .collect();
    policy.check(&names)?;
    write(state, keys::POLICY, &policy)?;
    registry(state, genesis)?;
    slots(state, genesis)
}

fn check_name(name: &str) -> Result<(), GenesisError> {
    if !is_name(name) {
        return Err(GenesisError::Name(name.chars().take(80).collect()));
    }
    Ok(())
}

fn register(
    state: &mut Overlay<'_>,
    key: &PublicKey,
    purpose: Purpose,
    operator: &str,
    validator: Option<&str>,
) -> Result<(), GenesisError> {
    let at = keys::key(key);
    if state.get(&at)?.is_some() {
        return Err(GenesisError::Twice(format!("the key {key}")));
    }
    let record = KeyRecord {
        validator: validator.map(str::to_owned),
        ..KeyRecord::new(operator, purpose)
    };
    Ok(write(state, &at, &record)?)
}

fn registry(state: &mut Overlay<'_>, genesis: &Genesis) -> Result<(), GenesisError> {
    let mut validators = Vec::new();
    let mut names = BTreeSet::new();
    for v in &genesis.validators {
        check_name(&v.name)?;
        check_name(&v.operator)?;
        if !names.insert(&v.name) {
            return Err(GenesisError::Twice(format!("the validator {:?}", v.name)));
        }
        let keys = [
            (&v.keys.account, Purpose::Account),
            (&v.keys.builder, Purpose::Builder),
            (&v.keys.consensus, Purpose::Consensus),
            (&v.keys.lane, Purpose::Lane),
        ];
        for (key, purpose) in keys {
            register(state, key, purpose, &v.operator, Some(&v.name))?;
        }
        let device = DeviceId::of(&v.keys.lane);
        let record = DeviceRecord::new(v.keys.lane, &v.name, &v.operator);
        write(state, &keys::device(&device), &record)?;
        validators.push(ValidatorRecord {
            device,
            keys: v.keys.clone(),
            name: v.name.clone(),
            operator: v.operator.clone(),
            power: v.power,
        });
    }
    for operator in &genesis.operators {
        check_name(&operator.name)?;
        register(
            state,
            &operator.account,
            Purpose::Account,
            &operator.name,
            None,
        )?;
    }
    // Sorted, so that no rule depends on the order in which genesis names them.
    validators.sort_by_key(|v| v.keys.consensus);
    write(state, keys::VALIDATORS, &validators)?;
    validator_set(state)?;
    Ok(())
}

fn slots(state: &mut Overlay<'_>, genesis: &Genesis) -> Result<(), GenesisError> {
    let empty = SlotRecord {
        number: 0,
        release: None,
        since: 0,
    };
    write(state, &keys::slot(Slot::node().as_str()), &empty)?;
    for dapp in &genesis.dapps {
        let slot: Result<Slot, _> = format!("dapps/{}", dapp.name).parse();
        let Ok(slot) = slot else {
            return Err(GenesisError::DappName(dapp.name.clone()));
        };
        if ops::is_native(&dapp.name) || !is_topic(&dapp.name) {
            return Err(GenesisError::DappName(dapp.name.clone()));
        }
        if state.get(&keys::dapp(&dapp.name))?.is_some() {
            return Err(GenesisError::Twice(format!("the dapp {}", dapp.name)));
        }
        let record = DappRecord {
            suspended_until: None,
        };
        write(state, &keys::dapp(&dapp.name), &record)?;
        write(state, &keys::slot(slot.as_str()), &empty)?;
    }
    for release in &genesis.releases {
        admit(state, release)?;
    }
    for (dapp, value) in &genesis.accounts {
        if state.get(&keys::dapp(dapp))?.is_none() {
            return Err(GenesisError::DappName(dapp.clone()));
        }
        lay_out(state, dapp, "", value)?;
    }
    Ok(())
}

/// Nobody voted on these releases; everything else is checked as for any other.
fn admit(state: &mut Overlay<'_>, given: &GenesisRelease) -> Result<(), GenesisError> {
    let wrong = |why: String| GenesisError::Release {
        slot: given.slot.clone(),
        why,
    };
    let key = keys::slot(&given.slot);
    let slot: Option<SlotRecord> = read(&*state, &key)?;
    match slot {
        None => return Err(wrong("there is no such slot".into())),
        Some(slot) if slot.release.is_some() => {
            return Err(GenesisError::Twice(given.slot.clone()));
        }
        Some(_) => {}
    }
    let release =
        Release::parse(given.release_json.as_bytes()).map_err(|e| wrong(e.to_string()))?;
    let (text, root) =
        release_root(&release).map_err(|e: ReleaseRootError| wrong(e.to_string()))?;
    if root.as_str() != given.release {
        return Err(wrong(format!(
            "its files make the root {root}, not {}",
            given.release
        )));
    }
    if release.slot.as_str() != given.slot || release.number != given.number {
        return Err(wrong("release.json is for another slot or number".into()));
    }
    let record = SlotRecord {
        number: given.number,
        release: Some(given.release.clone()),
        since: 0,
    };
    let history = HistoryEntry {
        by: GENESIS_ADMITTED.to_owned(),
        height: 0,
        number: given.number,
        release: given.release.clone(),
        round: None,
    };
    state.put(keys::release(&given.release), text.into_bytes());
    write(state, &key, &record)?;
    Ok(write(
        state,
        &keys::history(&given.slot, given.number),
        &history,
    )?)
}

/// Lays out what a dapp starts with: an object's members go below its key, `/` between; a text stands as its bytes,
/// anything else as canonical JSON.
fn lay_out(
    state: &mut Overlay<'_>,
    dapp: &str,
    at: &str,
    value: &Value,
) -> Result<(), GenesisError> {
    let wrong = |why| GenesisError::DappState {
        dapp: dapp.to_owned(),
        at: at.to_owned(),
        why,
    };
    if let Value::Object(members) = value {
        for (name, value) in members {
            let key = if at.is_empty() {
                name.clone()
            } else {
                format!("{at}/{name}")
            };
            lay_out(state, dapp, &key, value)?;
        }
        return Ok(());
    }
    let bytes = match value {
        Value::String(text) => text.clone().into_bytes(),
        other => json::to_vec(other).map_err(|_| wrong("this is no canonical JSON"))?,
    };
    let key = format!("{}{at}", keys::dapp_space(dapp));
    if at.is_empty() || !is_key(&key) {
        return Err(wrong("this can't be a key"));
    }
    if bytes.len() > MAX_VALUE_BYTES {
        return Err(wrong("the value is too large"));
    }
    state.put(key, bytes);
    Ok(())
}
