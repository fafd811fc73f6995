//! What the HTTP API says, as types that the command line reads too.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest, PublicKey};
use instar_ledger::{Certificate, Header, Oid, Receipt, ReceiptLine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The node's name on the ledger.
    pub name: String,
    /// The release's codename, compiled in: what a person sees change when the node's binary changes.
    pub codename: String,
    /// Root CID of the running release, as the upgrader knows it; `None` when nothing supervises this process.
    pub release: Option<String>,
    /// The process.
    pub pid: u32,
    /// The chain.
    pub chain: ChainId,
    /// Height of the newest final block.
    pub height: u64,
    /// Its id.
    pub head: Oid,
    /// Its time, milliseconds since 1970 by the proposers' clocks.
    pub time_ms: u64,
    /// Multiaddresses where the data swarm listens.
    pub data_addresses: Vec<String>,
    /// Peers connected on the data swarm.
    pub data_peers: usize,
    /// Entries in lanes that no block has merged yet.
    pub pending: usize,
    /// Prevotes for nil by reason, since the process started.
    pub nil_prevotes: BTreeMap<String, u64>,
    /// The newest reason.
    pub last_nil_reason: Option<String>,
}

/// `GET /v1/accounts/KEY`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// The account's key.
    pub key: PublicKey,
    /// The nonce its next entry must carry, by the newest final block.
    pub nonce: u64,
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

/// `GET /v1/receipts/ID`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReceiptAnswer {
    /// How firm it is: `final`.
    pub label: String,
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

/// What every refusal of the API looks like.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    /// What failed and why.
    pub error: String,
    /// What to do about it, where something can be done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}
