//! Genesis: what a chain starts with. The id of its commit is the chain's id.

use std::collections::BTreeMap;

use instar_attest::json::{self, JsonError};
use instar_attest::{ChainId, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::grammar::{self, GrammarError};
use crate::validators::{Validator, ValidatorSet, ValidatorSetError};

/// The largest `genesis.json`, in bytes.
pub const MAX_GENESIS_BYTES: usize = 4 * 1024 * 1024;

/// A device's keys, one for each purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Signs entries.
    pub account: PublicKey,
    /// Signs attestations.
    pub builder: PublicKey,
    /// Signs votes.
    pub consensus: PublicKey,
    /// Signs lane commits; the device's id comes from it.
    pub lane: PublicKey,
}

/// A validator of the first height.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisValidator {
    /// Its keys.
    pub keys: Keys,
    /// Its name: the principal in the allowed-signers file.
    pub name: String,
    /// The person or organisation it belongs to.
    pub operator: String,
    /// Its voting power.
    pub power: u64,
}

/// An operator who has an account but no validator, such as a developer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisOperator {
    /// The account key.
    pub account: PublicKey,
    /// The operator's name.
    pub name: String,
}

/// A dapp that is registered from the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisDapp {
    /// Its manifest, as its first release has it.
    pub manifest: Value,
    /// Its name: the topic that it owns.
    pub name: String,
}

/// A release that nobody voted on: audits say `genesis-admitted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisRelease {
    /// Its number in the slot.
    pub number: u64,
    /// The root CID.
    pub release: String,
    /// The text of `release.json`.
    pub release_json: String,
    /// `node`, or `dapps/<name>`.
    pub slot: String,
}

/// What a chain starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// For each dapp, what it starts with; the shape belongs to the dapp.
    pub accounts: BTreeMap<String, Value>,
    /// A name for people.
    pub chain_name: String,
    /// The dapps that are registered from the start, sorted by name.
    pub dapps: Vec<GenesisDapp>,
    /// The consensus kernel.
    pub kernel: u32,
    /// Operators without a validator.
    pub operators: Vec<GenesisOperator>,
    /// The rules for upgrades, typed by the state machine.
    pub policy: Value,
    /// The protocol number of the state machine.
    pub protocol: u32,
    /// The releases that the chain starts with.
    pub releases: Vec<GenesisRelease>,
    /// The genesis time in milliseconds since 1970.
    pub time_ms: u64,
    /// The validators of the first height.
    pub validators: Vec<GenesisValidator>,
}

impl Genesis {
    /// The canonical bytes of `genesis.json`.
    pub fn to_bytes(&self) -> Result<Vec<u8>, JsonError> {
        json::to_vec(self)
    }

    /// Reads `genesis.json`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, JsonError> {
        json::from_slice(bytes, MAX_GENESIS_BYTES)
    }

    /// The chain's id: that of the commit which holds this genesis.
    pub fn chain_id(&self) -> Result<ChainId, GrammarError> {
        Ok(grammar::genesis_objects(self)?[0].id.into())
    }

    /// The validator set of height 1.
    pub fn validator_set(&self) -> Result<ValidatorSet, ValidatorSetError> {
        ValidatorSet::new(
            self.validators
                .iter()
                .map(|v| Validator {
                    key: v.keys.consensus,
                    power: v.power,
                })
                .collect(),
        )
    }
}
