//! The bodies of entries under the topic `govern`.

use instar_attest::{ChainId, Digest, PublicKey, Signature};
use instar_ledger::equivocation::Evidence;
use instar_ledger::light::{self, SignedHeader};
use instar_ledger::{DeviceId, ForkPart, Genesis, Keys};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ops::{self, Ballot};

/// What can be said under `govern`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum GovernOp {
    /// Moves that something be changed; the entry's id becomes the motion's.
    Propose(Propose),
    /// A validator votes.
    Vote(MotionVote),
    /// The operator who moved it takes it back.
    Withdraw(Withdraw),
    /// Somebody proves that a device said two things at one place of its lane.
    Evidence(Evidence),
}

/// Moves that something be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Propose {
    /// What.
    pub change: Change,
    /// How many blocks after the block that passes it it takes effect, from 1 to [`super::MAX_DELAY_BLOCKS`].
    pub delay: u64,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A validator votes on a motion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MotionVote {
    /// The motion.
    pub motion: Digest,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Yes or no.
    pub vote: Ballot,
}

/// Takes a motion back that is still voted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    /// The motion.
    pub motion: Digest,
}

/// What a motion changes. Whoever brings a key in proves that he has it: see [`super::key_proof_bytes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    /// Admits an operator, or one more account of an operator.
    OperatorAdd(OperatorAdd),
    /// Lets an operator go who has neither validator nor device.
    OperatorRemove(ByName),
    /// Registers a device.
    DeviceAdd(DeviceAdd),
    /// Closes a device's lane for ever.
    DeviceRetire(DeviceRetire),
    /// Admits a validator.
    ValidatorAdd(Box<ValidatorAdd>),
    /// Lets a validator go. Its account and its device stay its operator's.
    ValidatorRemove(ByName),
    /// Gives a validator another power.
    ValidatorPower(ValidatorPower),
    /// Puts a new key in the place of one that was registered, whatever it is for.
    KeyReplace(KeyReplace),
    /// Merges a fork of this chain up to one of its blocks.
    ForkMerge(Box<ForkMerge>),
}

/// Admits an operator, or one more account of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorAdd {
    /// The account key.
    pub account: PublicKey,
    /// The operator's name.
    pub name: String,
    /// By the account key.
    pub proof: Signature,
}

/// The one with this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByName {
    /// The name.
    pub name: String,
}

/// Registers a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceAdd {
    /// The key that will sign its lane; the device's id comes from it.
    pub lane: PublicKey,
    /// The device's name.
    pub name: String,
    /// Whose it is.
    pub operator: String,
    /// By the lane key.
    pub proof: Signature,
}

/// Closes a device's lane for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRetire {
    /// The device.
    pub device: DeviceId,
}

/// Admits a validator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidatorAdd {
    /// Its keys, one for each purpose.
    pub keys: Keys,
    /// Its name.
    pub name: String,
    /// Whose it is; an operator who is new is admitted with it.
    pub operator: String,
    /// Its voting power, from 1.
    pub power: u64,
    /// By each key that is new.
    pub proofs: Proofs,
}

/// A proof for each key. Account and device may be such as the operator has already; consensus and builder keys are new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proofs {
    /// By the account key, where it is not registered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Signature>,
    /// By the builder key.
    pub builder: Signature,
    /// By the consensus key.
    pub consensus: Signature,
    /// By the lane key, where it is not registered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Signature>,
}

/// Gives a validator another power.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidatorPower {
    /// The validator.
    pub name: String,
    /// Its new power, from 1.
    pub power: u64,
}

/// Puts a new key in the place of one that was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyReplace {
    /// The new key.
    pub new: PublicKey,
    /// The key that is never used again.
    pub old: PublicKey,
    /// By the new key.
    pub proof: Signature,
}

/// Merges a fork of this chain up to one of its blocks, slice by slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkMerge {
    /// The fork.
    pub chain: ChainId,
    /// The changes of the fork's validators up to the block, oldest first.
    pub changes: Vec<light::Change>,
    /// The fork's genesis.
    pub genesis: Genesis,
    /// The last block that is merged, certified by the fork's validators.
    pub header: SignedHeader,
    /// Where the fork's trunk is cut, ascending; the last cut is at the block.
    pub parts: Vec<ForkPart>,
}

impl GovernOp {
    /// Reads the body of an entry under the topic [`ops::GOVERN`].
    pub fn from_value(body: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(body.clone())
    }

    /// The body of an entry.
    pub fn to_value(&self) -> Value {
        ops::to_value(self)
    }
}

impl Change {
    /// What it is, as its JSON says.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OperatorAdd(_) => "operator-add",
            Self::OperatorRemove(_) => "operator-remove",
            Self::DeviceAdd(_) => "device-add",
            Self::DeviceRetire(_) => "device-retire",
            Self::ValidatorAdd(_) => "validator-add",
            Self::ValidatorRemove(_) => "validator-remove",
            Self::ValidatorPower(_) => "validator-power",
            Self::KeyReplace(_) => "key-replace",
            Self::ForkMerge(_) => "fork-merge",
        }
    }
}
