//! Devices come and go. A device's id is that of its first lane key and stays.

use instar_attest::Purpose;
use instar_ledger::DeviceId;

use super::ops::DeviceAdd;
use super::registry::Registry;
use crate::keys;
use crate::machine::{Op, ensure, refuse};
use crate::record::{self, Closed, ClosedBy, DeviceRecord, KeyRecord};

pub(super) fn add(r: &mut Registry<'_>, op: &DeviceAdd) -> Op<()> {
    let mut operator = r.operator(&op.operator)?;
    r.take_name(&op.name)?;
    r.register(
        &op.lane,
        &op.proof,
        &KeyRecord::new(&op.operator, Purpose::Lane),
    )?;
    let record = DeviceRecord::new(op.lane, &op.name, &op.operator);
    save(r, &DeviceId::of(&op.lane), &record)?;
    operator.devices += 1;
    r.save_operator(&op.operator, &operator)
}

/// What is left on its lane gets receipts; then nothing of it is merged any more.
pub(super) fn retire(r: &mut Registry<'_>, id: &DeviceId) -> Op<()> {
    let mut device = load(r, id)?;
    let used = r.validators()?.into_iter().find(|v| v.device == *id);
    if let Some(validator) = used {
        return refuse(
            "device-of-validator",
            format!(
                "it is the device of validator {}; remove that first, or replace the lane key",
                validator.name
            ),
        );
    }
    ensure(!device.is_retired(), "device-retired", || {
        format!("device {} is retired", device.name)
    })?;
    r.retire_key(&device.lane_key)?;
    device.closed = Some(Closed {
        by: ClosedBy::DeviceRetired,
        evidence: None,
        since: r.height,
    });
    save(r, id, &device)?;
    let mut operator = r.operator(&device.operator)?;
    operator.devices = operator.devices.saturating_sub(1);
    r.save_operator(&device.operator, &operator)
}

pub(super) fn load(r: &Registry<'_>, id: &DeviceId) -> Op<DeviceRecord> {
    match record::read(&r.state, &keys::device(id))? {
        Some(device) => Ok(device),
        None => refuse("unknown-device", format!("there is no device {id}")),
    }
}

pub(super) fn save(r: &mut Registry<'_>, id: &DeviceId, device: &DeviceRecord) -> Op<()> {
    Ok(record::write(&mut r.state, &keys::device(id), device)?)
}
