//! Somebody else's turn: parts, the merge test, the verdict.

use instar_ledger::Oid;
use malachite_app::streaming::StreamMessage;
use malachite_app::types::{PeerId, ProposedValue};
use malachite_types::{Round, Validator as _, Validity};

use super::App;
use crate::context::{Address, BlockId, Ctx, Height};
use crate::event::Event;
use crate::host::{Candidate, Host, Origin, Verdict};
use crate::parts::{Assembled, Init, Part};
use crate::run::RunError;

/// Proposals kept for heights that have not begun here. They are at most one height ahead while this node is idle or
/// finishing a block; a node that is further behind gets its values from sync.
const MAX_PENDING: usize = 4;

impl<H: Host> App<H> {
    pub(super) async fn receive(
        &mut self,
        publisher: PeerId,
        part: StreamMessage<Part>,
    ) -> Result<Option<ProposedValue<Ctx>>, RunError> {
        let assembled = match self.assembler.add(publisher, part) {
            Ok(None) => return Ok(None),
            Ok(Some(assembled)) => assembled,
            Err(error) => {
                tracing::warn!(%publisher, %error, "a proposal's parts are refused");
                return Ok(None);
            }
        };
        let height = assembled.init.height;
        if height == self.at.height && self.running {
            return self.judge(assembled).await;
        }
        // While idle, `self.at.height` is the next height, so its first proposal lands here and ends the hold. One height
        // more is a proposer who was faster than this node's last decision.
        let next = height == self.at.height && self.has_turn(&assembled);
        if next || (self.running && height == self.at.height + 1) {
            if self.pending.len() >= MAX_PENDING {
                self.pending.pop_first();
            }
            self.pending.insert((height, assembled.block), assembled);
            self.look();
        }
        Ok(None)
    }

    /// What came for this height before its first round began here.
    pub(super) async fn pending_values(
        &mut self,
        height: u64,
    ) -> Result<Vec<ProposedValue<Ctx>>, RunError> {
        let mut values = Vec::new();
        let later = self
            .pending
            .split_off(&(height + 1, Oid::from_bytes([0; 32])));
        for (_, assembled) in std::mem::replace(&mut self.pending, later) {
            if assembled.init.height == height
                && let Some(value) = self.judge(assembled).await?
            {
                values.push(value);
            }
        }
        Ok(values)
    }

    fn has_turn(&self, Assembled { init, .. }: &Assembled) -> bool {
        let turn = self
            .members
            .proposer(Height(init.height), Round::new(init.round));
        turn.address().0 == init.proposer
    }

    /// A proposer can claim anything in `pol_round`; only the prevotes themselves make an old value acceptable.
    fn origin(&self, init: &Init, block: Oid) -> Origin {
        let justified = u32::try_from(init.pol_round).is_ok_and(|pol_round| {
            let what = (init.height, pol_round, block);
            pol_round < init.round && self.polkas.hold(what, &self.members, &self.verifier)
        });
        if justified {
            Origin::Again
        } else {
            Origin::Live
        }
    }

    async fn judge(&mut self, proposal: Assembled) -> Result<Option<ProposedValue<Ctx>>, RunError> {
        let turn = self.has_turn(&proposal);
        let Assembled {
            init,
            block,
            payload,
        } = proposal;
        if !turn {
            let (height, round) = (init.height, init.round);
            tracing::warn!(proposer = %init.proposer, height, round, "a proposal out of turn");
            return Ok(None);
        }
        let known = self.log.contains(init.height, &block);
        let validity = if known {
            // Tested before, and the payload is durable: a re-proposal, whose time is no longer compared.
            Validity::Valid
        } else {
            let candidate = Candidate {
                height: init.height,
                round: init.round,
                proposer: init.proposer,
                block,
                payload: payload.clone(),
                origin: self.origin(&init, block),
            };
            match self.host.check(candidate).await {
                Verdict::Valid => {
                    self.log
                        .keep(init.height, init.round, false, block, &payload)
                        .map_err(RunError::Log)?;
                    Validity::Valid
                }
                Verdict::Invalid(reason) => {
                    let (height, round) = (init.height, init.round);
                    tracing::warn!(height, round, %block, reason, "a proposal fails the merge test");
                    self.tell(Event::Refused {
                        height,
                        round,
                        block,
                        reason,
                    });
                    Validity::Invalid
                }
            }
        };
        Ok(Some(ProposedValue {
            height: Height(init.height),
            round: Round::new(init.round),
            valid_round: Round::from(init.pol_round),
            proposer: Address(init.proposer),
            value: BlockId(block),
            validity,
        }))
    }
}
