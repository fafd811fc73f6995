//! Value sync: final blocks for a peer that is behind, and from peers that are further.
//!
//! The value bytes are `block id ‖ payload`.

use std::time::Duration;

use bytes::Bytes;
use instar_ledger::Oid;
use malachite_app::types::ProposedValue;
use malachite_app::types::sync::RawDecidedValue;
use malachite_engine::host::SyncedValueOutcome;
use malachite_types::{Round, Validity};

use super::App;
use crate::certificate;
use crate::codec::MAX_RESPONSE_BYTES;
use crate::context::{Address, BlockId, Ctx, Height};
use crate::event::Event;
use crate::host::{Candidate, Host, MAX_PAYLOAD_BYTES, Origin, Verdict};
use crate::run::RunError;

/// Blocks in one answer.
pub(crate) const BATCH: u64 = 16;
/// The engine asks for a value again at once when this node could not use it; a block that fails here would otherwise
/// be fetched and tested without pause.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

impl<H: Host> App<H> {
    pub(super) async fn decided_values(&mut self, from: u64, to: u64) -> Vec<RawDecidedValue<Ctx>> {
        let mut values = Vec::new();
        let mut bytes = 0;
        for height in from..=to.min(from.saturating_add(BATCH - 1)) {
            let Some((certificate, payload)) = self.host.decided_payload(height).await else {
                break;
            };
            bytes += payload.len() + 1024;
            if !values.is_empty() && bytes > MAX_RESPONSE_BYTES / 2 {
                break;
            }
            let mut value = certificate.block.as_bytes().to_vec();
            value.extend_from_slice(&payload);
            let certificate = certificate::to_engine(&certificate);
            values.push(RawDecidedValue::new(value.into(), certificate));
        }
        values
    }

    pub(super) async fn synced(
        &mut self,
        height: u64,
        round: Round,
        proposer: Address,
        value: &Bytes,
    ) -> Result<SyncedValueOutcome<Ctx>, RunError> {
        let Some((id, _)) = value.split_first_chunk::<32>() else {
            return Ok(SyncedValueOutcome::PeerFault);
        };
        let payload = value.slice(32..);
        let Some(number) = round
            .as_u32()
            .filter(|_| payload.len() <= MAX_PAYLOAD_BYTES)
        else {
            return Ok(SyncedValueOutcome::PeerFault);
        };
        if height != self.at.height {
            return Ok(SyncedValueOutcome::LocalTransientError);
        }
        let block = Oid::from_bytes(*id);
        if !self.log.contains(height, &block) {
            let candidate = Candidate {
                height,
                round: number,
                proposer: proposer.0,
                block,
                payload,
                origin: Origin::Sync,
            };
            if let Verdict::Invalid(reason) = self.host.check(candidate).await {
                // Either the peer sent something else than the certified block, which the engine would have noticed,
                // or this node is the one that is wrong. It must not go on without the block.
                tracing::error!(height, %block, reason, "a final block fails the merge test here");
                self.tell(Event::Refused {
                    height,
                    round: number,
                    block,
                    reason,
                });
                if self.pauses {
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
                return Ok(SyncedValueOutcome::LocalTransientError);
            }
        }
        Ok(SyncedValueOutcome::Verdict(ProposedValue {
            height: Height(height),
            round,
            valid_round: Round::Nil,
            proposer,
            value: BlockId(block),
            validity: Validity::Valid,
        }))
    }
}
