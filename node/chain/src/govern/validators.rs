//! Validators come, go, and get another power.

use instar_attest::{PublicKey, Purpose, Signature};
use instar_ledger::DeviceId;

use super::ops::{ValidatorAdd, ValidatorPower};
use super::registry::Registry;
use super::{devices, replace};
use crate::machine::{Op, ensure, refuse};
use crate::record::{DeviceRecord, KeyRecord, OperatorRecord, ValidatorRecord};

pub(super) fn add(r: &mut Registry<'_>, op: &ValidatorAdd) -> Op<()> {
    let mut validators = r.validators()?;
    let mut operator = r.find_operator(&op.operator)?.unwrap_or_default();
    r.take_name(&op.name)?;
    for (key, proof, purpose) in [
        (&op.keys.builder, &op.proofs.builder, Purpose::Builder),
        (&op.keys.consensus, &op.proofs.consensus, Purpose::Consensus),
    ] {
        r.register(key, proof, &record(op, purpose))?;
    }
    account(r, op, &mut operator)?;
    let device = device(r, op, &mut operator)?;
    r.save_operator(&op.operator, &operator)?;
    validators.push(ValidatorRecord {
        device,
        keys: op.keys.clone(),
        name: op.name.clone(),
        operator: op.operator.clone(),
        power: op.power,
    });
    r.save_validators(validators)
}

fn record(op: &ValidatorAdd, purpose: Purpose) -> KeyRecord {
    KeyRecord {
        validator: Some(op.name.clone()),
        ..KeyRecord::new(&op.operator, purpose)
    }
}

fn account(r: &mut Registry<'_>, op: &ValidatorAdd, operator: &mut OperatorRecord) -> Op<()> {
    let key = &op.keys.account;
    if let Some(proof) = &op.proofs.account {
        r.register(key, proof, &record(op, Purpose::Account))?;
        operator.accounts.push(*key);
        return Ok(());
    }
    claim(r, op, key, Purpose::Account).map(drop)
}

fn device(r: &mut Registry<'_>, op: &ValidatorAdd, operator: &mut OperatorRecord) -> Op<DeviceId> {
    let key = &op.keys.lane;
    if let Some(proof) = &op.proofs.lane {
        let proof: &Signature = proof;
        r.register(key, proof, &record(op, Purpose::Lane))?;
        let id = DeviceId::of(key);
        devices::save(r, &id, &DeviceRecord::new(*key, &op.name, &op.operator))?;
        operator.devices += 1;
        return Ok(id);
    }
    let known = claim(r, op, key, Purpose::Lane)?;
    let id = replace::device_of(&known, key);
    let device = devices::load(r, &id)?;
    ensure(device.closed.is_none(), "device-closed", || {
        format!(
            "the lane of device {} is closed; replace its key first",
            device.name
        )
    })?;
    Ok(id)
}

/// Takes a key for this validator that its operator has already.
fn claim(
    r: &mut Registry<'_>,
    op: &ValidatorAdd,
    key: &PublicKey,
    purpose: Purpose,
) -> Op<KeyRecord> {
    let mut known = match r.key(key)? {
        Some(_) => r.live_key(key)?,
        None => {
            return refuse(
                "key-not-proven",
                format!("the {purpose} key {key} is new and has no proof"),
            );
        }
    };
    let free =
        known.purpose == purpose && known.operator == op.operator && known.validator.is_none();
    ensure(free, "key-taken", || {
        format!(
            "{key} is no {purpose} key of operator {} that a validator could still take",
            op.operator
        )
    })?;
    known.validator = Some(op.name.clone());
    r.save_key(key, &known)?;
    Ok(known)
}

pub(super) fn remove(r: &mut Registry<'_>, name: &str) -> Op<()> {
    let mut validators = r.validators()?;
    let at = position(&validators, name)?;
    let gone = validators.remove(at);
    r.retire_key(&gone.keys.consensus)?;
    r.retire_key(&gone.keys.builder)?;
    for key in [&gone.keys.account, &gone.keys.lane] {
        let mut known = r.live_key(key)?;
        known.validator = None;
        r.save_key(key, &known)?;
    }
    r.save_validators(validators)
}

pub(super) fn power(r: &mut Registry<'_>, op: &ValidatorPower) -> Op<()> {
    let mut validators = r.validators()?;
    let at = position(&validators, &op.name)?;
    ensure(validators[at].power != op.power, "nothing-changes", || {
        format!("validator {} has a power of {} already", op.name, op.power)
    })?;
    validators[at].power = op.power;
    r.save_validators(validators)
}

fn position(validators: &[ValidatorRecord], name: &str) -> Op<usize> {
    match validators.iter().position(|v| v.name == name) {
        Some(at) => Ok(at),
        None => refuse(
            "unknown-validator",
            format!("there is no validator {name:?}"),
        ),
    }
}
