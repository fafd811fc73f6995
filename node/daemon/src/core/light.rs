//! What light checkers ask for: headers with certificates, the changes of the validator set, and proofs of state keys.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use instar_ledger::ValidatorSet;
use instar_ledger::light::{Change, Changes, MAX_CHANGES, SignedHeader};

use super::{Core, CoreError, ledger_error};
use crate::api::types::KeyProof;

impl Core {
    /// A final block's header with its certificate. Of the time before a snapshot that this node came by, there are
    /// those that the light check took.
    pub fn signed_header(&self, height: u64) -> Result<Option<SignedHeader>, CoreError> {
        if height == 0 || height > self.head.height {
            return Ok(None);
        }
        let here = self.ledger.signed_header(height).map_err(ledger_error)?;
        let base = self.base.as_ref();
        Ok(here.or_else(|| base?.header_of(height).cloned()))
    }

    /// The changes of the validator set above a height, oldest first.
    pub fn changes(&self, after: u64) -> Result<Changes, CoreError> {
        let before = self.base.iter().flat_map(|base| &base.changes);
        let mut changes: Vec<Change> = before
            .filter(|change| change.at.header.height > after)
            .take(MAX_CHANGES + 1)
            .cloned()
            .collect();
        let room = MAX_CHANGES + 1 - changes.len();
        // The index may know of those before too, and no header certifies them any more; of the base's own block it may be
        // the only one that knows.
        let begins = self.base.as_ref().map_or(0, |base| base.height() - 1);
        let known = changes.last().map(|change| change.at.header.height);
        for (height, validators) in self.index.changes(after.max(begins), room)? {
            if Some(height) == known {
                continue;
            }
            let Some(at) = self.signed_header(height)? else {
                return Err(CoreError::Ledger(format!(
                    "block {height} changes the validators and is not there"
                )));
            };
            changes.push(Change { at, validators });
        }
        let more = changes.len() > MAX_CHANGES;
        changes.truncate(MAX_CHANGES);
        Ok(Changes { changes, more })
    }

    /// The set that the header of a height names: the one that certifies the next height.
    pub fn validators_after(&self, height: u64) -> Result<Option<ValidatorSet>, CoreError> {
        if height > self.head.height {
            return Ok(None);
        }
        if let Some(set) = self.index.change_at_or_below(height)? {
            return Ok(Some(set));
        }
        let genesis = self.ledger.genesis();
        match &self.base {
            Some(base) => base.validators_after(height, genesis),
            None => Ok(Some(genesis.validator_set().map_err(ledger_error)?)),
        }
    }

    /// What the state says of a key after a height, the newest one unless another is named, with a proof.
    pub fn prove(&self, key: &str, height: Option<u64>) -> Result<KeyProof, CoreError> {
        let height = height.unwrap_or(self.head.height);
        let Some(header) = self.signed_header(height)? else {
            return Err(CoreError::Refused(format!(
                "height {height} has no certified header here; this node has {} to {}",
                self.first_height(),
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
