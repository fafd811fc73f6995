//! Light checking: headers with their certificates, and the chain of validator-set changes, each certified by the set
//! before it. Whoever has it needs neither the git repository nor the state: a header is some kilobytes.
//!
//! A certificate signs a block's id. So a header comes with the three things that its commit has besides: how many
//! entries there are, and the ids of the two other files of its tree. Written again from these, the commit has the id
//! that was signed, or the header is not the block's.

use instar_attest::ChainId;
use instar_attest::json::JsonError;
use serde::{Deserialize, Serialize};

use crate::block::{Header, MAX_HEADER_BYTES};
use crate::certificate::{Certificate, CertificateError, MAX_CERTIFICATE_BYTES};
use crate::genesis::Genesis;
use crate::grammar::{self, GrammarError};
use crate::oid::Oid;
use crate::validators::{ValidatorSet, ValidatorSetError};

/// The largest [`SignedHeader`], in bytes.
pub const MAX_SIGNED_HEADER_BYTES: usize = MAX_HEADER_BYTES + MAX_CERTIFICATE_BYTES + 4096;
/// How many changes stand in one answer: sets of the largest size stay below a megabyte.
pub const MAX_CHANGES: usize = 16;
/// The largest answer with changes, in bytes.
pub const MAX_CHANGES_BYTES: usize = MAX_CHANGES * (MAX_SIGNED_HEADER_BYTES + 64 * 1024);

/// A header, and what shows that its block is final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHeader {
    /// The block's own certificate.
    pub certificate: Certificate,
    /// How many entries have a receipt in the block.
    pub entries: u64,
    /// The header.
    pub header: Header,
    /// The blob of the certificate in the block, which is the previous block's; none at height 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<Oid>,
    /// The blob of the block's receipts.
    pub receipts: Oid,
}

/// A header at which the validator set changes, and the set that certifies from the next height on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The header that names the set.
    pub at: SignedHeader,
    /// The set.
    pub validators: ValidatorSet,
}

/// Changes of the set, oldest first, as a node answers with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// Up to [`MAX_CHANGES`] of them.
    pub changes: Vec<Change>,
    /// Whether there are more after the last of these.
    pub more: bool,
}

/// Why a header or a change is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum LightError {
    /// Too large, not canonical, or not of the shape.
    #[error("not in the form of a light answer: {0}")]
    Json(#[from] JsonError),
    /// The genesis is not this chain's.
    #[error("the genesis makes chain {got}, not {expected}")]
    OtherGenesis {
        /// The chain that is asked about.
        expected: ChainId,
        /// The genesis commit's id.
        got: ChainId,
    },
    /// The genesis can't be one.
    #[error("the genesis is refused: {0}")]
    Genesis(#[from] GrammarError),
    /// Its validators are no set.
    #[error("the genesis is refused: {0}")]
    GenesisSet(#[from] ValidatorSetError),
    /// Of another chain.
    #[error("the header belongs to chain {got}, not to {expected}")]
    OtherChain {
        /// The chain that is asked about.
        expected: ChainId,
        /// The header's.
        got: ChainId,
    },
    /// The header is not the block that was signed, or that was named.
    #[error("the header makes block {got}, but {expected} is what was signed")]
    OtherBlock {
        /// The block that the certificate or the checkpoint names.
        expected: Oid,
        /// The block that the header makes.
        got: Oid,
    },
    /// The certificate says another height than the header.
    #[error("the header is of height {header}, its certificate of height {certificate}")]
    OtherHeight {
        /// The header's.
        header: u64,
        /// The certificate's.
        certificate: u64,
    },
    /// Below what is known already.
    #[error("height {got} is not above {known}, from which on the validators are known")]
    TooLow {
        /// The newest height at which the set is known.
        known: u64,
        /// The header's height.
        got: u64,
    },
    /// The certificate does not hold under the set.
    #[error("height {height}: {source}")]
    Certificate {
        /// The header's height.
        height: u64,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// The set is not the one that the header names.
    #[error("the header of height {0} names another validator set than the one that came with it")]
    OtherSet(u64),
}

impl SignedHeader {
    /// The id of the block that this header makes.
    pub fn block(&self) -> Result<Oid, LightError> {
        Ok(self.block_id()?)
    }

    pub(crate) fn block_id(&self) -> Result<Oid, GrammarError> {
        grammar::light_block_id(
            &self.header,
            self.entries,
            self.previous.as_ref(),
            &self.receipts,
        )
    }

    /// Checks that the header is the block of its certificate. Says nothing of who signed.
    fn bound(&self, chain: &ChainId) -> Result<Oid, LightError> {
        if self.header.chain != *chain {
            return Err(LightError::OtherChain {
                expected: *chain,
                got: self.header.chain,
            });
        }
        if self.header.height != self.certificate.height {
            return Err(LightError::OtherHeight {
                header: self.header.height,
                certificate: self.certificate.height,
            });
        }
        let got = self.block()?;
        if got != self.certificate.block {
            return Err(LightError::OtherBlock {
                expected: self.certificate.block,
                got,
            });
        }
        Ok(got)
    }

    /// Reads its one spelling.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LightError> {
        Ok(grammar::from_json(bytes, MAX_SIGNED_HEADER_BYTES)?)
    }
}

impl Changes {
    /// Reads their one spelling.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LightError> {
        Ok(grammar::from_json(bytes, MAX_CHANGES_BYTES)?)
    }
}

/// What a light checker knows: a block that it trusts, and the set that certifies what comes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Light {
    chain: ChainId,
    height: u64,
    block: Oid,
    validators: ValidatorSet,
}

impl Light {
    /// Starts at a chain's genesis, of which the chain's id is the id.
    pub fn from_genesis(chain: &ChainId, genesis: &Genesis) -> Result<Self, LightError> {
        let got = genesis.chain_id()?;
        if got != *chain {
            return Err(LightError::OtherGenesis {
                expected: *chain,
                got,
            });
        }
        Ok(Self {
            chain: *chain,
            height: 0,
            block: Oid::from(*chain),
            validators: genesis.validator_set()?,
        })
    }

    /// Starts at a block that somebody vouches for. The header must be that block's, and the set the one it names; the
    /// header's certificate is not needed, since the id itself is trusted.
    pub fn from_checkpoint(
        height: u64,
        block: &Oid,
        header: &SignedHeader,
        validators: ValidatorSet,
    ) -> Result<Self, LightError> {
        let got = header.block()?;
        if got != *block {
            return Err(LightError::OtherBlock {
                expected: *block,
                got,
            });
        }
        if header.header.height != height {
            return Err(LightError::OtherHeight {
                header: header.header.height,
                certificate: height,
            });
        }
        if validators.digest() != header.header.validators {
            return Err(LightError::OtherSet(height));
        }
        Ok(Self {
            chain: header.header.chain,
            height,
            block: *block,
            validators,
        })
    }

    /// Takes a change of the set that the known set certified.
    pub fn advance(&mut self, change: &Change) -> Result<(), LightError> {
        let height = change.at.header.height;
        self.check_above(height)?;
        let block = self.verify(&change.at)?;
        if change.validators.digest() != change.at.header.validators {
            return Err(LightError::OtherSet(height));
        }
        self.height = height;
        self.block = block;
        self.validators = change.validators.clone();
        Ok(())
    }

    fn check_above(&self, got: u64) -> Result<(), LightError> {
        if got <= self.height {
            return Err(LightError::TooLow {
                known: self.height,
                got,
            });
        }
        Ok(())
    }

    /// Checks any one header above the newest change, or that of the trusted block itself. Gives its block's id.
    pub fn verify(&self, header: &SignedHeader) -> Result<Oid, LightError> {
        let height = header.header.height;
        let block = header.bound(&self.chain)?;
        if block == self.block {
            // On a chain at rest the checkpoint is the newest block. Its id is trusted, whoever signed it.
            return Ok(block);
        }
        self.check_above(height)?;
        header
            .certificate
            .verify(&self.chain, &self.validators)
            .map_err(|source| LightError::Certificate { height, source })?;
        Ok(block)
    }

    /// The chain.
    pub fn chain(&self) -> &ChainId {
        &self.chain
    }

    /// The height from which on the set certifies, not included.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The block at that height.
    pub fn block(&self) -> &Oid {
        &self.block
    }

    /// The set that certifies above that height, until it changes.
    pub fn validators(&self) -> &ValidatorSet {
        &self.validators
    }
}
