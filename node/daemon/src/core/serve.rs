//! What others ask a node for: final blocks with what made them so, and answers of dapps.

use instar_chain::StateView;
use instar_ledger::sync::{self, MAX_SYNC_BLOCKS, MAX_SYNC_BYTES};
use instar_ledger::{Certificate, Oid};
use instar_runtime::Question;
use serde_json::Value;

use super::{Core, CoreError, ledger_error};
use crate::api::types::BlockAnswer;

impl Core {
    /// A final block with the certificate that made it so: the next block's, or the tip's for the newest.
    pub fn final_block(&self, height: u64) -> Result<Option<BlockAnswer>, CoreError> {
        let Some(id) = self.block_id(height)? else {
            return Ok(None);
        };
        let block = self.ledger.read_block(&id).map_err(ledger_error)?;
        let certificate = match self.certificate_of(height)? {
            Some(certificate) => certificate,
            None => return Ok(None),
        };
        Ok(Some(BlockAnswer {
            id,
            header: block.header,
            receipts: block.receipts,
            certificate,
        }))
    }

    /// The first height whose block, with all that it merges, is here. Below it this node can't help others.
    pub fn first_height(&self) -> u64 {
        self.ledger.base().map_or(1, |base| base + 1)
    }

    fn block_id(&self, height: u64) -> Result<Option<Oid>, CoreError> {
        if height > self.head.height {
            return Ok(None);
        }
        Ok(self.ledger.block_at(height))
    }

    /// The certificate of a final height.
    pub fn certificate_of(&self, height: u64) -> Result<Option<Certificate>, CoreError> {
        if height == self.head.height {
            return Ok(self.head.certificate.clone());
        }
        match self.block_id(height + 1)? {
            Some(next) => Ok(self
                .ledger
                .read_block(&next)
                .map_err(ledger_error)?
                .previous),
            None => Ok(None),
        }
    }

    /// A final block as value sync carries it: its certificate and its pack.
    pub fn synced_block(&self, height: u64) -> Result<Option<(Certificate, Vec<u8>)>, CoreError> {
        if height < self.first_height() {
            return Ok(None);
        }
        let (Some(id), Some(certificate)) = (self.block_id(height)?, self.certificate_of(height)?)
        else {
            return Ok(None);
        };
        let pack = self.ledger.pack_block(&id).map_err(ledger_error)?;
        Ok(Some((certificate, pack)))
    }

    /// Final blocks from `height` on, as many as one answer carries; nothing if there is none yet.
    pub fn synced_blocks(&self, height: u64) -> Result<Option<Vec<u8>>, CoreError> {
        let mut out = Vec::new();
        for next in (height..).take(MAX_SYNC_BLOCKS) {
            let Some((certificate, pack)) = self.synced_block(next)? else {
                break;
            };
            let certificate = certificate.to_bytes().map_err(ledger_error)?;
            // Half of what a reader takes: the answer is made while the core is locked.
            let full = out.len() > MAX_SYNC_BYTES / 2;
            if full || !sync::push(&mut out, &certificate, &pack) {
                break;
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }

    /// Makes a block final that another node handed over, if the validators of its height certified it.
    pub fn follow(&mut self, certificate: &Certificate, pack: &[u8]) -> Result<(), CoreError> {
        let next = self.head.height + 1;
        if certificate.height != next {
            return Err(CoreError::Refused(format!(
                "a certificate of height {}, the next here is {next}",
                certificate.height
            )));
        }
        certificate
            .verify(&self.chain, &self.head.validators)
            .map_err(|e| CoreError::Refused(e.to_string()))?;
        self.decided(certificate, Some(pack))
    }

    /// Asks a dapp from the newest final state. Returns the height and the answer.
    pub fn query(&mut self, dapp: &str, question: Value) -> Result<(u64, Value), String> {
        let view = self.state.view().map_err(|e| e.to_string())?;
        Ok((self.head.height, self.ask(dapp, &view, &view, question)?))
    }

    /// Asks the release that is live in a dapp's slot about a state, which is `trunk` with or without what is not final.
    pub(crate) fn ask(
        &mut self,
        dapp: &str,
        state: &dyn StateView,
        trunk: &dyn StateView,
        body: Value,
    ) -> Result<Value, String> {
        let slot = instar_chain::query::slot(state, &format!("dapps/{dapp}"))
            .map_err(|e| e.to_string())?
            .and_then(|slot| slot.release)
            .ok_or_else(|| format!("there is no dapp {dapp}"))?;
        let question = Question {
            body,
            height: self.head.height,
            time_ms: self.head.time_ms,
            state,
            trunk,
        };
        self.dapps
            .query(dapp, &slot, question)
            .map_err(|e| e.to_string())
    }
}
