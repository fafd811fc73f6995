//! A proof file: what the state of a chain says of one key at one height, with all that it takes to check it offline.
//!
//! It begins at something that the checker trusts already, the chain's id or a block's id, and leads from there over the
//! changes of the validator set to a certified header, and from its state root to the key.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use instar_attest::json::{self, JsonError};
use instar_attest::{ChainId, Digest};
use instar_ledger::light::{Change, Light, LightError, SignedHeader};
use instar_ledger::{Genesis, Oid, ValidatorSet};
use instar_state::ProofError;
use serde::{Deserialize, Serialize};

/// The format's name.
pub const PROOF_FORMAT: &str = "instar-proof-v1";
/// The largest proof file: a genesis, hundreds of set changes, and the largest proof.
pub const MAX_PROOF_FILE_BYTES: usize = 32 * 1024 * 1024;

/// A proof file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofFile {
    /// The changes of the validator set between its beginning and the header, oldest first.
    pub changes: Vec<Change>,
    /// Where it begins, unless at genesis.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint: Option<Start>,
    /// [`PROOF_FORMAT`].
    pub format: String,
    /// The genesis, unless it begins at a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub genesis: Option<Genesis>,
    /// The header whose state is proven.
    pub header: SignedHeader,
    /// The key.
    pub key: String,
    /// The ICS-23 proof, in base64.
    pub proof: String,
    /// The value, in base64; absent where the state has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
}

/// A block to begin at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Its header.
    pub header: SignedHeader,
    /// The set that its header names.
    pub validators: ValidatorSet,
}

/// What the checker knows from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// The chain's id.
    Chain(ChainId),
    /// A block.
    Block {
        /// Its height.
        height: u64,
        /// Its id.
        block: Oid,
    },
}

/// What a proof file proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The block whose state it is.
    pub block: Oid,
    /// The chain.
    pub chain: ChainId,
    /// The block's height: the answer is as old as this block.
    pub height: u64,
    /// The key.
    pub key: String,
    /// The state root.
    pub root: Digest,
    /// The block's time in milliseconds since 1970, by the proposer's clock.
    pub time_ms: u64,
    /// The value; none if the key is not in the state.
    #[serde(skip)]
    pub value: Option<Vec<u8>>,
}

/// Why a proof file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofFileError {
    /// Too large, not canonical, or not of the shape.
    #[error("not a proof file: {0}")]
    Json(#[from] JsonError),
    /// Another format.
    #[error("the file has the format {0:?}, this program reads {PROOF_FORMAT:?}")]
    Format(String),
    /// A field that is no base64.
    #[error("its {0} is not base64")]
    Base64(&'static str),
    /// It begins elsewhere.
    #[error("the file does not begin at what is trusted: {0}")]
    Start(&'static str),
    /// The way to the header.
    #[error(transparent)]
    Light(Box<LightError>),
    /// The way from the header to the key.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl From<LightError> for ProofFileError {
    fn from(error: LightError) -> Self {
        Self::Light(Box::new(error))
    }
}

impl ProofFile {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, JsonError> {
        json::to_vec(self)
    }

    /// Reads a file: shape and canonical form only.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProofFileError> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let file: Self = json::from_slice(bytes, MAX_PROOF_FILE_BYTES)?;
        if file.format != PROOF_FORMAT {
            return Err(ProofFileError::Format(
                file.format.chars().take(80).collect(),
            ));
        }
        Ok(file)
    }

    /// Checks all of it, from what is trusted to the key.
    pub fn check(&self, trust: &Trust) -> Result<Shown, ProofFileError> {
        let block = self.certified(trust)?;
        let decode = |text: &String, what| {
            BASE64_STANDARD
                .decode(text)
                .map_err(|_| ProofFileError::Base64(what))
        };
        let value = self
            .value
            .as_ref()
            .map(|v| decode(v, "value"))
            .transpose()?;
        let proof = decode(&self.proof, "proof")?;
        let header = &self.header.header;
        let root = header.state_root;
        instar_state::proof::check(&root, &self.key, value.as_deref(), &proof)?;
        Ok(Shown {
            block,
            chain: header.chain,
            height: header.height,
            key: self.key.clone(),
            root,
            time_ms: header.time_ms,
            value,
        })
    }

    /// The block of the header, after the whole way to it was checked.
    fn certified(&self, trust: &Trust) -> Result<Oid, ProofFileError> {
        let mut light = match (trust, &self.genesis, &self.checkpoint) {
            (Trust::Chain(chain), Some(genesis), None) => Light::from_genesis(chain, genesis)?,
            (Trust::Block { height, block }, None, Some(start)) => {
                Light::from_checkpoint(*height, block, &start.header, start.validators.clone())?
            }
            (Trust::Block { height, block }, ..)
                if self.header.header.height == *height && self.header.block()? == *block =>
            {
                return Ok(*block);
            }
            (Trust::Chain(_), ..) => {
                return Err(ProofFileError::Start("it has no genesis"));
            }
            (Trust::Block { .. }, ..) => {
                return Err(ProofFileError::Start("it has no checkpoint"));
            }
        };
        for change in &self.changes {
            light.advance(change)?;
        }
        Ok(light.verify(&self.header)?)
    }
}
