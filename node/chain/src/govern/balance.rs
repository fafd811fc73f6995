//! What the set of validators may become by one change.

use std::collections::BTreeMap;

use instar_ledger::{Validator, ValidatorSet};

use crate::machine::{Op, ensure, refuse};
use crate::policy::Policy;
use crate::record::ValidatorRecord;

/// Refuses a set that is none, that could not meet the policy, or that hands one operator too much at once.
pub(super) fn check(
    before: &[ValidatorRecord],
    after: &[ValidatorRecord],
    policy: &Policy,
) -> Op<()> {
    ensure(!after.is_empty(), "last-validator", || {
        "without a validator nobody could ever make a block again".into()
    })?;
    let members = after.iter().map(|v| Validator {
        key: v.keys.consensus,
        power: v.power,
    });
    if let Err(error) = ValidatorSet::new(members.collect()) {
        return refuse("bad-validator-set", error.to_string());
    }
    let names: Vec<(&str, &str)> = after
        .iter()
        .map(|v| (v.name.as_str(), v.operator.as_str()))
        .collect();
    if let Err(error) = policy.check(&names) {
        return refuse("policy-unmet", error.to_string());
    }
    shares(before, after)
}

/// The share of one operator in all power.
#[derive(Clone, Copy)]
struct Share {
    own: u128,
    of: u128,
}

impl Share {
    fn is_third(self) -> bool {
        self.own * 3 >= self.of
    }

    fn is_more_than_third(self) -> bool {
        self.own * 3 > self.of
    }

    fn is_quorum(self) -> bool {
        self.own * 3 > self.of * 2
    }
}

/// Nobody crosses one of three lines by one change. They are measured on operators, who decide for all their validators:
///
/// - a third stops the chain alone: nobody is *given* it, by a validator that is added or by more power;
/// - more than a third could sign two blocks of one height into finality: nobody gets it in any way. What others lose by a removal may bring somebody to a third and no further: so a set of four may let
///   a vanished validator go, and a set of three has to admit a new one first;
/// - more than two thirds decides alone.
///
/// Who stands beyond a line already is not stopped by it, or a chain that begins with one validator could not grow.
fn shares(before: &[ValidatorRecord], after: &[ValidatorRecord]) -> Op<()> {
    let (old, new) = (powers(before), powers(after));
    for (name, share) in &new {
        let had = old.get(name).copied().unwrap_or(Share { own: 0, of: 1 });
        let gained = share.own > had.own;
        let refused = (gained && share.is_third() && !had.is_third())
            || (share.is_more_than_third() && !had.is_more_than_third())
            || (share.is_quorum() && !had.is_quorum());
        ensure(!refused, "too-much-power", || {
            format!(
                "operator {name} would have {} of {}, after {} of {}: no single change takes anybody to a third",
                share.own, share.of, had.own, had.of
            )
        })?;
    }
    Ok(())
}

fn powers(validators: &[ValidatorRecord]) -> BTreeMap<&str, Share> {
    let of = validators.iter().map(|v| u128::from(v.power)).sum();
    let mut shares: BTreeMap<&str, Share> = BTreeMap::new();
    for v in validators {
        let share = shares
            .entry(v.operator.as_str())
            .or_insert(Share { own: 0, of });
        share.own += u128::from(v.power);
    }
    shares
}
