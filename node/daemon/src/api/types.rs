//! What the HTTP API says, as types that the command line reads too.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest, PublicKey};
use instar_chain::record::Closed;
use instar_ledger::light::SignedHeader;
use instar_ledger::{Certificate, DeviceId, Header, Lane, Oid, Receipt, ReceiptLine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a node does on its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its precommit counts for the next block.
    Validator,
    /// It checks every block and certifies none.
    Follower,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Validator => "validator",
            Self::Follower => "follower",
        })
    }
}

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The node's name on the ledger.
    pub name: String,
    /// What it does on its chain.
    pub role: Role,
    /// Of a follower: how many milliseconds ago enough validators signed that nothing newer was final than what this node
    /// had. What it says is at most so old; `None`: unknown, so it counts as stale.
    #[serde(default)]
    pub fresh_ms: Option<u64>,
    /// The release's codename, compiled in: what a person sees change when the node's binary changes.
    pub codename: String,
    /// Root CID of the running release, as the upgrader knows it; `None` when nothing supervises this process.
    pub release: Option<String>,
    /// The process.
    pub pid: u32,
    /// The chain.
    pub chain: ChainId,
    /// Where it left its mother, if it is a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mother: Option<Mother>,
    /// Height of the newest final block.
    pub height: u64,
    /// Its id.
    pub head: Oid,
    /// Its time, milliseconds since 1970 by the proposers' clocks.
    pub time_ms: u64,
    /// The first block that this node has with all that it merges: 1, or later if it came by a snapshot or let go of
    /// older ones.
    pub history_from: u64,
    /// The lowest height whose state can be read here.
    pub states_from: u64,
    /// Multiaddresses where the data swarm listens.
    pub data_addresses: Vec<String>,
    /// Peers connected on the data swarm.
    pub data_peers: usize,
    /// The lane that this node appends to, and since when it is closed, if it is.
    pub lane: OwnLane,
    /// Devices whose lane is quarantined: they said two things at one place of it.
    pub quarantined: Vec<Quarantined>,
    /// Entries in lanes that no block has merged yet.
    pub pending: usize,
    /// Prevotes for nil by reason, since the process started.
    pub nil_prevotes: BTreeMap<String, u64>,
    /// The newest reason.
    pub last_nil_reason: Option<String>,
}

/// Where a fork left its mother.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mother {
    /// The mother's block that the fork's genesis stands on.
    pub block: Oid,
    /// The mother.
    pub chain: ChainId,
    /// The block's height on the mother.
    pub height: u64,
}

/// The lane that a node appends to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwnLane {
    /// Why and since when nothing of it takes effect any more.
    pub closed: Option<Closed>,
    /// Its name.
    pub lane: Lane,
    /// Whether its device is registered, so that blocks merge it.
    pub registered: bool,
}

/// A device whose lane is quarantined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Quarantined {
    /// The device.
    pub device: DeviceId,
    /// The entry that proves it.
    pub evidence: Option<Digest>,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub operator: String,
    /// The block from which on nothing of it takes effect.
    pub since: u64,
}

/// `GET /v1/accounts/KEY`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// The account's key.
    pub key: PublicKey,
    /// The nonce its next entry must carry, by the newest final block.
    pub nonce: u64,
    /// The same with what this node knows of unmerged lanes: what the next entry should carry.
    pub next_nonce: u64,
}

/// `POST /v1/entries`: the ids of what was taken into this node's lane, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Submitted {
    /// Entry ids.
    pub ids: Vec<Digest>,
}

/// `POST /v1/statements` (token): something for the node to sign with its own account key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementRequest {
    /// The entry's topic.
    pub topic: String,
    /// The entry's body.
    pub body: Value,
}

/// How firm an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// The trunk says so: a quorum has.
    Final,
    /// This node's lanes say so; no block has merged them yet.
    Pending,
    /// The entry is refused, by the trunk's receipt, or by all that this node knows so far.
    Conflicted,
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Final => "final",
            Self::Pending => "pending",
            Self::Conflicted => "conflicted",
        })
    }
}

/// `GET /v1/entries/ID`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntryAnswer {
    /// How firm it is. A receipt on the trunk that refuses the entry is `conflicted`, and as firm as `final`.
    pub label: Label,
    /// The lane that carries it.
    pub lane: Lane,
    /// The sequence number of the lane's commit.
    pub seq: u64,
    /// The block that holds the receipt; nothing while none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Oid>,
    /// What became of it, or what would if the lanes that this node knows were merged now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

/// `GET /v1/receipts/ID`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReceiptAnswer {
    /// How firm it is: `final`.
    pub label: Label,
    /// The block that holds the receipt.
    pub height: u64,
    /// Its id.
    pub block: Oid,
    /// The receipt.
    pub receipt: Receipt,
}

/// `GET /v1/blocks/HEIGHT`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockAnswer {
    /// The block's commit id.
    pub id: Oid,
    /// Its header.
    pub header: Header,
    /// Its receipts and events.
    pub receipts: Vec<ReceiptLine>,
    /// The certificate that made it final.
    pub certificate: Certificate,
}

/// `GET /v1/light/proof?key=KEY`: what the state says of a key, with its proof in ICS-23 form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyProof {
    /// The header whose state root the proof leads to.
    pub header: SignedHeader,
    /// The key.
    pub key: String,
    /// The encoded proof, in base64.
    pub proof: String,
    /// The value, in base64; absent where the state has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
}

/// What every refusal of the API looks like.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    /// What failed and why.
    pub error: String,
    /// What to do about it, where something can be done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}
