//! What others ask a node for: final blocks with what made them so, and answers of dapps.

use instar_ledger::{Certificate, Oid};

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
        let (Some(id), Some(certificate)) = (self.block_id(height)?, self.certificate_of(height)?)
        else {
            return Ok(None);
        };
        let pack = self.ledger.pack_block(&id).map_err(ledger_error)?;
        Ok(Some((certificate, pack)))
    }

    /// Asks a dapp from the newest final state. Returns the height and the answer.
    pub fn query(
        &mut self,
        dapp: &str,
        question: serde_json::Value,
    ) -> Result<(u64, serde_json::Value), String> {
        let view = self.state.view().map_err(|e| e.to_string())?;
        let slots = instar_chain::query::slots(&view).map_err(|e| e.to_string())?;
        let slot = slots
            .get(&format!("dapps/{dapp}"))
            .ok_or_else(|| format!("there is no dapp {dapp}"))?;
        let answer = self.dapps.query(
            dapp,
            &slot.release,
            self.head.height,
            self.head.time_ms,
            &view,
            question,
        );
        answer
            .map(|a| (self.head.height, a))
            .map_err(|e| e.to_string())
    }
}
