//! What light checkers ask for: headers with certificates, the changes of the validator set, and proofs of state keys.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use instar_ledger::ValidatorSet;
use instar_ledger::light::{Change, Changes, MAX_CHANGES, SignedHeader};

use super::{Core, CoreError, ledger_error};
use crate::api::types::KeyProof;

impl Core {
    /// A final block's header with its certificate.
    pub fn signed_header(&self, height: u64) -> Result<Option<SignedHeader>, CoreError> {
        if height == 0 || height > self.head.height {
            return Ok(None);
        }
        self.ledger.signed_header(height).map_err(ledger_error)
    }

    /// The changes of the validator set above a height, oldest first.
    pub fn changes(&self, after: u64) -> Result<Changes, CoreError> {
        let mut found = self.index.changes(after, MAX_CHANGES + 1)?;
        let more = found.len() > MAX_CHANGES;
        found.truncate(MAX_CHANGES);
        let mut changes = Vec::new();
        for (height, validators) in found {
            let Some(at) = self.signed_header(height)? else {
                return Err(CoreError::Ledger(format!(
                    "block {height} changes the validators and is not there"
                )));
            };
            changes.push(Change { at, validators });
        }
        Ok(Changes { changes, more })
    }

    /// The set that the header of a height names: the one that certifies the next height.
    pub fn validators_after(&self, height: u64) -> Result<Option<ValidatorSet>, CoreError> {
        if height > self.head.height {
            return Ok(None);
        }
        match self.index.change_at_or_below(height)? {
            Some(set) => Ok(Some(set)),
            None => Ok(Some(
                self.ledger
                    .genesis()
                    .validator_set()
                    .map_err(ledger_error)?,
            )),
        }
    }

    /// What the state says of a key after a height, the newest one unless another is named, with a proof.
    pub fn prove(&self, key: &str, height: Option<u64>) -> Result<KeyProof, CoreError> {
        let height = height.unwrap_or(self.head.height);
        let Some(header) = self.signed_header(height)? else {
            return Err(CoreError::Refused(format!(
                "height {height} has no certified header here; the newest is {}",
                self.head.height
            )));
        };
        let proven = self.state.view_at(height)?.prove(key)?;
        Ok(KeyProof {
            header,
            key: key.to_owned(),
            proof: BASE64_STANDARD.encode(proven.proof),
            value: proven.value.map(|v| BASE64_STANDARD.encode(v)),
        })
    }
}
