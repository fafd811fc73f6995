//! The registry while a change is made: on a copy, so that a change which a rule refuses leaves nothing behind.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest, PublicKey, Purpose, Signature};

use super::names::is_name;
use super::ops::Change;
use super::{balance, devices, forks, key_proof_bytes, operators, replace, validators};
use crate::keys;
use crate::machine::{Machine, Op, ensure, refuse};
use crate::policy::Policy;
use crate::record::{self, KeyRecord, OperatorRecord, ValidatorRecord};
use crate::view::{Overlay, StateError, Writes};

/// How many keys genesis can have registered: its file is bounded, and no key takes less than 70 bytes of it.
const MAX_GENESIS_KEYS: usize = 65_536;
/// How many accounts one operator may have.
const MAX_ACCOUNTS: usize = 16;

/// The registry, with changes that nobody has seen yet.
pub(super) struct Registry<'a> {
    pub state: Overlay<'a>,
    pub chain: ChainId,
    pub height: u64,
    policy: &'a Policy,
}

impl<'a> Registry<'a> {
    /// The registry of the block in the making.
    pub fn over(m: &'a Machine<'_>) -> Self {
        Self {
            state: Overlay::new(&m.state),
            chain: m.chain,
            height: m.height,
            policy: &m.policy,
        }
    }

    /// Makes a motion's change, or says by which rule it can't be made.
    pub fn change(&mut self, change: &Change, motion: &Digest) -> Op<()> {
        self.index()?;
        let before = self.validators()?;
        match change {
            Change::OperatorAdd(op) => operators::add(self, op),
            Change::OperatorRemove(op) => operators::remove(self, &op.name),
            Change::DeviceAdd(op) => devices::add(self, op),
            Change::DeviceRetire(op) => devices::retire(self, &op.device),
            Change::ValidatorAdd(op) => validators::add(self, op),
            Change::ValidatorRemove(op) => validators::remove(self, &op.name),
            Change::ValidatorPower(op) => validators::power(self, op),
            Change::KeyReplace(op) => replace::key(self, op),
            Change::ForkMerge(op) => forks::merge(self, op, motion),
        }?;
        let after = self.validators()?;
        if after != before {
            balance::check(&before, &after, self.policy)?;
        }
        Ok(())
    }

    /// What the change comes to.
    pub fn into_writes(self) -> Result<Writes, StateError> {
        self.state.into_writes()
    }

    /// Genesis keeps operators and names only where their keys and validators are. The first change writes them out, so
    /// that no later one has to search.
    fn index(&mut self) -> Result<(), StateError> {
        if record::read::<bool>(&self.state, keys::INDEXED)?.is_some() {
            return Ok(());
        }
        let known: BTreeMap<String, KeyRecord> =
            record::read_all(&self.state, keys::KEYS, MAX_GENESIS_KEYS)?;
        let mut operators: BTreeMap<String, OperatorRecord> = BTreeMap::new();
        for (key, known) in known {
            let operator = operators.entry(known.operator).or_default();
            match (known.purpose, key.parse()) {
                (Purpose::Account, Ok(key)) => operator.accounts.push(key),
                // Each lane key of genesis is that of one device.
                (Purpose::Lane, _) => operator.devices += 1,
                _ => {}
            }
        }
        for (name, operator) in operators {
            record::write(&mut self.state, &keys::operator(&name), &operator)?;
        }
        for validator in self.validators()? {
            record::write(&mut self.state, &keys::name(&validator.name), &true)?;
        }
        record::write(&mut self.state, keys::INDEXED, &true)
    }

    /// An operator who has not been let go.
    pub fn operator(&self, name: &str) -> Op<OperatorRecord> {
        match self.find_operator(name)? {
            Some(operator) => Ok(operator),
            None => refuse("unknown-operator", format!("there is no operator {name:?}")),
        }
    }

    /// As [`Registry::operator`], if there is one. A name that was let go is refused: names are never used again.
    pub fn find_operator(&self, name: &str) -> Op<Option<OperatorRecord>> {
        check_name(name)?;
        let operator: Option<OperatorRecord> = record::read(&self.state, &keys::operator(name))?;
        if let Some(height) = operator.as_ref().and_then(|o| o.removed) {
            let detail = format!("operator {name} was let go at height {height}");
            return refuse("operator-removed", detail);
        }
        Ok(operator)
    }

    pub fn save_operator(&mut self, name: &str, operator: &OperatorRecord) -> Op<()> {
        ensure(
            operator.accounts.len() <= MAX_ACCOUNTS,
            "too-many-accounts",
            || format!("an operator has at most {MAX_ACCOUNTS} accounts"),
        )?;
        Ok(record::write(
            &mut self.state,
            &keys::operator(name),
            operator,
        )?)
    }

    /// The validators, sorted by consensus key.
    pub fn validators(&self) -> Result<Vec<ValidatorRecord>, StateError> {
        record::expect(&self.state, keys::VALIDATORS)
    }

    pub fn save_validators(&mut self, mut validators: Vec<ValidatorRecord>) -> Op<()> {
        validators.sort_by_key(|v| v.keys.consensus);
        Ok(record::write(
            &mut self.state,
            keys::VALIDATORS,
            &validators,
        )?)
    }

    /// Takes a name for a validator or a device. Both have one name space, and no name is taken twice, ever: people
    /// know who signed what by it.
    pub fn take_name(&mut self, name: &str) -> Op<()> {
        check_name(name)?;
        let at = keys::name(name);
        let taken = record::read::<bool>(&self.state, &at)?.is_some();
        ensure(!taken, "name-taken", || {
            format!("{name} is or was the name of a validator or a device")
        })?;
        Ok(record::write(&mut self.state, &at, &true)?)
    }

    /// What a key is registered for, retired or not.
    pub fn key(&self, key: &PublicKey) -> Result<Option<KeyRecord>, StateError> {
        record::read(&self.state, &keys::key(key))
    }

    /// What a key is registered for, if it may still be used.
    pub fn live_key(&self, key: &PublicKey) -> Op<KeyRecord> {
        match self.key(key)? {
            None => refuse("unknown-key", format!("the key {key} is not registered")),
            Some(known) => match known.retired {
                Some(height) => {
                    let detail = format!("the key {key} was retired at height {height}");
                    refuse("key-retired", detail)
                }
                None => Ok(known),
            },
        }
    }

    /// Registers a key that never was registered before, whose owner shows that he has it.
    pub fn register(&mut self, key: &PublicKey, proof: &Signature, record: &KeyRecord) -> Op<()> {
        let known = self.key(key)?;
        ensure(known.is_none(), "key-taken", || {
            format!("the key {key} is or was registered; a key has one purpose, once")
        })?;
        let bytes = key_proof_bytes(&self.chain, key, record.purpose, &record.operator);
        ensure(key.verify(&bytes, proof).is_ok(), "key-not-proven", || {
            format!(
                "the proof is not by the {} key {key} for operator {} on this chain",
                record.purpose, record.operator
            )
        })?;
        Ok(self.save_key(key, record)?)
    }

    pub fn save_key(&mut self, key: &PublicKey, known: &KeyRecord) -> Result<(), StateError> {
        record::write(&mut self.state, &keys::key(key), known)
    }

    /// The key is never used again, and never registered again.
    pub fn retire_key(&mut self, key: &PublicKey) -> Op<()> {
        let mut known = self.live_key(key)?;
        known.retired = Some(self.height);
        Ok(self.save_key(key, &known)?)
    }
}

fn check_name(name: &str) -> Op<()> {
    ensure(is_name(name), "bad-name", || {
        "a name has 1 to 64 of a-z, A-Z, 0-9, '.', '-' and '_'".into()
    })
}
