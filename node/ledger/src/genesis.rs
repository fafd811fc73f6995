//! Genesis: what a chain starts with. The id of its commit is the chain's id.

use std::collections::BTreeMap;

use instar_attest::json::{self, JsonError};
use instar_attest::{ChainId, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::grammar::{self, GrammarError};
use crate::light::SignedHeader;
use crate::oid::Oid;
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

/// Where a fork leaves its mother. The genesis commit of a fork has the mother's block as its parent, so that the mother's
/// history is the fork's too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisFork {
    /// The dapps whose part of the mother's state the fork starts with, sorted by name.
    pub dapps: Vec<String>,
    /// The mother's block, as a light checker of the mother takes it: the block's own certificate can't stand in a clone of
    /// the fork otherwise, since it stands in the mother's next block.
    pub header: SignedHeader,
}

impl GenesisFork {
    /// The mother's block: the parent of the fork's genesis commit.
    pub fn block(&self) -> Oid {
        self.header.certificate.block
    }

    /// The mother.
    pub fn mother(&self) -> &ChainId {
        &self.header.header.chain
    }

    /// The mother's height.
    pub fn height(&self) -> u64 {
        self.header.header.height
    }

    /// What can be said of it without the mother's validators: whether they certified the block is for whoever knows them.
    pub(crate) fn check(&self, time_ms: u64) -> Result<(), GrammarError> {
        let contradiction = |why| Err(GrammarError::Contradiction(why));
        let header = &self.header.header;
        if header.height == 0 || header.height != self.header.certificate.height {
            return contradiction("the certificate is of another height than the mother's header");
        }
        if self.header.block_id()? != self.block() {
            return contradiction("the certificate is of another block than the mother's header");
        }
        if time_ms <= header.time_ms {
            return contradiction(
                "a fork begins later than the block that it leaves its mother at",
            );
        }
        if !self.dapps.is_sorted_by(|a, b| a < b) {
            return contradiction("the dapps that are taken over are not sorted");
        }
        Ok(())
    }
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
    /// Where it leaves its mother, if it is a fork.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fork: Option<GenesisFork>,
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

    /// Reads `genesis.json` in its one spelling.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, JsonError> {
        grammar::from_json(bytes, MAX_GENESIS_BYTES)
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
