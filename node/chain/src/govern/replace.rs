//! A new key in the place of an old one. The old one is never used again.

use instar_attest::{PublicKey, Purpose};
use instar_ledger::DeviceId;

use super::devices;
use super::ops::KeyReplace;
use super::registry::Registry;
use crate::machine::{Op, ensure};
use crate::record::{Closed, ClosedBy, KeyRecord, OlderKey};

/// How many lane keys a device may have had: its record stays small, and a device that needs more is replaced.
const MAX_OLDER_KEYS: usize = 64;

pub(super) fn key(r: &mut Registry<'_>, op: &KeyReplace) -> Op<()> {
    let old = r.live_key(&op.old)?;
    let mut new = KeyRecord {
        device: None,
        ..old.clone()
    };
    if old.purpose == Purpose::Lane {
        new.device = Some(device_of(&old, &op.old));
    }
    r.register(&op.new, &op.proof, &new)?;
    r.retire_key(&op.old)?;
    if let Some(device) = new.device {
        replace_lane_key(r, &device, op)?;
    }
    if old.purpose == Purpose::Account {
        let mut operator = r.operator(&old.operator)?;
        operator.accounts.retain(|a| *a != op.old);
        operator.accounts.push(op.new);
        r.save_operator(&old.operator, &operator)?;
    }
    let Some(name) = &old.validator else {
        return Ok(());
    };
    let mut validators = r.validators()?;
    for v in validators.iter_mut().filter(|v| v.name == *name) {
        let keys = &mut v.keys;
        let place = match old.purpose {
            Purpose::Account => &mut keys.account,
            Purpose::Builder => &mut keys.builder,
            Purpose::Consensus => &mut keys.consensus,
            Purpose::Lane => &mut keys.lane,
        };
        *place = op.new;
    }
    r.save_validators(validators)
}

/// The device that a lane key belongs to: the one whose first key it is, unless its record says otherwise.
pub(super) fn device_of(known: &KeyRecord, key: &PublicKey) -> DeviceId {
    known.device.unwrap_or_else(|| DeviceId::of(key))
}

/// The incarnations of the old key are closed; the new key opens later ones.
fn replace_lane_key(r: &mut Registry<'_>, id: &DeviceId, op: &KeyReplace) -> Op<()> {
    let mut device = devices::load(r, id)?;
    ensure(
        device.older_keys.len() < MAX_OLDER_KEYS,
        "device-keys-used-up",
        || format!("a device has at most {MAX_OLDER_KEYS} lane keys; retire it and add a new one"),
    )?;
    // A quarantine stays what it was, with its evidence.
    let closed = device.closed.take().unwrap_or(Closed {
        by: ClosedBy::LaneKeyReplaced,
        evidence: None,
        since: r.height,
    });
    device.older_keys.push(OlderKey {
        closed,
        key: op.old,
        last: device.incarnation,
    });
    device.lane_key = op.new;
    devices::save(r, id, &device)
}
