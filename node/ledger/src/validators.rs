//! The set of validators of one height.

use instar_attest::json::MAX_INTEGER;
use instar_attest::{Digest, PublicKey, json};
use serde::{Deserialize, Deserializer, Serialize};

/// The tag of a set's digest.
pub const VALIDATORS_DOMAIN: &str = "instar/validators/v1";
/// How many validators a chain may have: a certificate stays below 64 KiB.
pub const MAX_VALIDATORS: usize = 256;

/// One validator: its consensus key and its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validator {
    /// The consensus key.
    pub key: PublicKey,
    /// Its voting power, at least 1.
    pub power: u64,
}

/// The validators of one height, sorted by key; never empty, no key twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ValidatorSet(Vec<Validator>);

/// Why a list is no validator set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    /// Nobody could certify anything.
    #[error("a validator set needs at least one validator")]
    Empty,
    /// More than [`MAX_VALIDATORS`].
    #[error("{0} validators, at most {MAX_VALIDATORS} are allowed")]
    TooMany(usize),
    /// A key stands twice.
    #[error("validator {0} stands in the set twice")]
    Twice(PublicKey),
    /// A power of zero, or a total of 2^53 or more.
    #[error("the power of validator {0} is zero, or makes the total pass 2^53")]
    Power(PublicKey),
}

impl ValidatorSet {
    /// Sorts and checks.
    pub fn new(mut validators: Vec<Validator>) -> Result<Self, ValidatorSetError> {
        if validators.is_empty() {
            return Err(ValidatorSetError::Empty);
        }
        if validators.len() > MAX_VALIDATORS {
            return Err(ValidatorSetError::TooMany(validators.len()));
        }
        validators.sort_by_key(|v| v.key);
        if let Some(pair) = validators.windows(2).find(|w| w[0].key == w[1].key) {
            return Err(ValidatorSetError::Twice(pair[0].key));
        }
        let mut total: u64 = 0;
        for v in &validators {
            total = total.saturating_add(v.power);
            if v.power == 0 || total > MAX_INTEGER {
                return Err(ValidatorSetError::Power(v.key));
            }
        }
        Ok(Self(validators))
    }

    /// The validators, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Validator> {
        self.0.iter()
    }

    /// The validators as a slice, sorted by key.
    pub fn as_slice(&self) -> &[Validator] {
        &self.0
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // A set is never empty.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The power of `key`, if it is in the set.
    pub fn power_of(&self, key: &PublicKey) -> Option<u64> {
        self.0
            .binary_search_by_key(key, |v| v.key)
            .ok()
            .map(|i| self.0[i].power)
    }

    /// The sum of all powers.
    pub fn total_power(&self) -> u64 {
        self.0.iter().map(|v| v.power).sum()
    }

    /// Whether `power` is more than two thirds of the total.
    pub fn is_quorum(&self, power: u64) -> bool {
        u128::from(power) * 3 > u128::from(self.total_power()) * 2
    }

    /// The digest that headers carry.
    pub fn digest(&self) -> Digest {
        let bytes = json::to_vec(self).expect("powers were checked to be below 2^53");
        Digest::tagged(VALIDATORS_DOMAIN, &bytes)
    }
}

impl<'de> Deserialize<'de> for ValidatorSet {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let list = Vec::<Validator>::deserialize(d)?;
        let set = Self::new(list.clone()).map_err(serde::de::Error::custom)?;
        if set.0 != list {
            return Err(serde::de::Error::custom("validators are not sorted by key"));
        }
        Ok(set)
    }
}
