//! This node's turn: a block from the host, then its payload in parts.

use bytes::Bytes;
use instar_attest::Digest;
use instar_ledger::Oid;
use malachite_app::types::LocallyProposedValue;
use malachite_channel::{NetworkMsg, Reply};
use malachite_types::Round;

use super::App;
use crate::context::{BlockId, Ctx, Height};
use crate::host::{Host, MAX_PAYLOAD_BYTES, Proposed};
use crate::parts::{self, Fin, Init};
use crate::run::RunError;

impl<H: Host> App<H> {
    /// Answers with a block, or lets the round pass. The answer is dropped rather than held: the engine's connector
    /// would wait for it, and hear nothing else.
    pub(super) async fn propose(
        &mut self,
        height: u64,
        round: u32,
        reply: Reply<LocallyProposedValue<Ctx>>,
    ) -> Result<(), RunError> {
        if let Some(certificate) = self.growing.as_mut().and_then(|g| g.take_grown()) {
            self.host.grown(certificate).await;
        }
        let Some(Proposed { block, payload }) = self.block_to_propose(height, round).await? else {
            return Ok(());
        };
        let value = BlockId(block);
        let _ = reply.send(LocallyProposedValue::new(
            Height(height),
            Round::new(round),
            value,
        ));
        self.stream(height, round, -1, block, &payload).await
    }

    async fn block_to_propose(
        &mut self,
        height: u64,
        round: u32,
    ) -> Result<Option<Proposed>, RunError> {
        // After a crash: what was proposed may have been signed, and a second proposal would be an equivocation.
        if let Some(block) = self.log.own(height, round)
            && let Some(payload) = self.log.payload(height, &block).map_err(RunError::Log)?
        {
            return Ok(Some(Proposed { block, payload }));
        }
        let proposed = match self.host.propose(height, round).await {
            Ok(proposed) => proposed,
            Err(reason) => {
                tracing::warn!(height, round, reason, "nothing is proposed in this round");
                return Ok(None);
            }
        };
        if proposed.payload.len() > MAX_PAYLOAD_BYTES {
            let bytes = proposed.payload.len();
            tracing::error!(
                height,
                round,
                bytes,
                "the node's own block is too large to propose"
            );
            return Ok(None);
        }
        self.log
            .keep(height, round, true, proposed.block, &proposed.payload)
            .map_err(RunError::Log)?;
        Ok(Some(proposed))
    }

    /// Sends a payload again that a quorum already prevoted, for a later round that this node leads.
    pub(super) async fn restream(
        &mut self,
        height: u64,
        round: Round,
        valid_round: Round,
        block: Oid,
    ) -> Result<(), RunError> {
        let (Some(round), Some(payload)) = (
            round.as_u32(),
            self.log.payload(height, &block).map_err(RunError::Log)?,
        ) else {
            tracing::warn!(height, %round, %block, "the payload to send again is not here");
            return Ok(());
        };
        self.stream(height, round, valid_round.as_i64(), block, &payload)
            .await
    }

    async fn stream(
        &mut self,
        height: u64,
        round: u32,
        pol_round: i64,
        block: Oid,
        payload: &Bytes,
    ) -> Result<(), RunError> {
        let Some(signer) = &self.signer else {
            return Ok(());
        };
        let digest = Digest::of(payload);
        let sig = signer.sign_parts(height, round, &block, &digest);
        let init = Init {
            height,
            round,
            pol_round,
            proposer: self.own,
        };
        self.streams += 1;
        let id = parts::stream_id(height, round, self.streams);
        for message in parts::cut(
            &id,
            init,
            Fin {
                block,
                payload: digest,
                sig,
            },
            payload,
        ) {
            let sent = self
                .network
                .send(NetworkMsg::PublishProposalPart(message))
                .await;
            sent.map_err(|_| RunError::Stopped)?;
        }
        Ok(())
    }
}
