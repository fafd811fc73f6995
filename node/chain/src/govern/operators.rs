//! Operators come and go.

use instar_attest::Purpose;

use super::ops::OperatorAdd;
use super::registry::Registry;
use crate::machine::{Op, ensure};
use crate::record::KeyRecord;

/// A new operator, or one more account of one.
pub(super) fn add(r: &mut Registry<'_>, op: &OperatorAdd) -> Op<()> {
    let mut operator = r.find_operator(&op.name)?.unwrap_or_default();
    r.register(
        &op.account,
        &op.proof,
        &KeyRecord::new(&op.name, Purpose::Account),
    )?;
    operator.accounts.push(op.account);
    r.save_operator(&op.name, &operator)
}

/// Its accounts say nothing more under native topics; what dapps make of them is the dapps' own.
pub(super) fn remove(r: &mut Registry<'_>, name: &str) -> Op<()> {
    let mut operator = r.operator(name)?;
    let validator = r.validators()?.into_iter().find(|v| v.operator == name);
    ensure(
        validator.is_none() && operator.devices == 0,
        "operator-in-use",
        || format!("operator {name} has a validator or a device; remove or retire these first"),
    )?;
    for account in std::mem::take(&mut operator.accounts) {
        r.retire_key(&account)?;
    }
    operator.removed = Some(r.height);
    r.save_operator(name, &operator)
}
