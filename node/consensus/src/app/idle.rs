//! Idleness: while there is nothing to decide, the engine's question what comes next stays unanswered.
//!
//! A held engine makes no rounds, no votes and no writes, and still serves value sync. It does not take in synced
//! values, so a peer that is further ends the hold too.

use malachite_channel::Reply;
use malachite_consensus::SignedConsensusMsg;
use malachite_engine::host::Next as EngineNext;
use malachite_engine::util::events::Event as EngineEvent;
use malachite_types::{NilOrVal, ValidatorSet as _};

use super::App;
use crate::context::{Ctx, Height, Proposal};
use crate::event::Event;
use crate::host::{Host, Next};
use crate::run::RunError;

/// The engine's question and the answer that it will get.
pub(crate) struct Held {
    reply: Reply<EngineNext<Ctx>>,
    next: Next,
}

impl<H: Host> App<H> {
    pub(super) fn finalized(
        &mut self,
        height: u64,
        reply: Reply<EngineNext<Ctx>>,
    ) -> Result<(), RunError> {
        let next = self.next.take().ok_or(RunError::Order { height })?;
        self.held = Some(Held { reply, next });
        if self.work.take() {
            self.release();
        } else if !self.look() {
            self.tell(Event::Idle { height });
        }
        Ok(())
    }

    /// Ends the hold if somebody else is known to be further. Says whether the engine runs.
    pub(crate) fn look(&mut self) -> bool {
        let Some(held) = &self.held else { return true };
        let next = held.next.height;
        let further = self.active >= next
            || self.tips.highest() >= next
            || self.pending.keys().any(|(height, _)| *height >= next);
        if further {
            self.release();
        }
        further
    }

    /// Ends the hold: there is work.
    pub(crate) fn release(&mut self) {
        if let Some(Held { reply, next }) = self.held.take() {
            let params = self.params(&next.validators);
            let _ = reply.send(EngineNext::Start(Height(next.height), params));
        }
    }

    /// Looks at what the engine sends and receives. Its receiving events come before it has verified anything.
    pub(crate) fn observe(&mut self, event: EngineEvent<Ctx>) {
        let message = match event {
            EngineEvent::Received(message) | EngineEvent::Published(message) => message,
            EngineEvent::WalCorrupted(error) => {
                tracing::error!(%error, "the write-ahead log can't be read");
                self.log_failed = true;
                return;
            }
            EngineEvent::WalReplayError(error) => {
                tracing::error!(%error, "the write-ahead log can't be repeated");
                self.log_failed = true;
                return;
            }
            _ => return,
        };
        match message {
            SignedConsensusMsg::Vote(vote) => {
                if let Some(growing) = &mut self.growing {
                    growing.add(&vote, &self.verifier);
                }
                let height = vote.message.height.0;
                if vote.message.value == NilOrVal::Nil {
                    let round = super::number(vote.message.round);
                    let validator = vote.message.validator.0;
                    self.tell(Event::Nil {
                        height,
                        round,
                        validator,
                    });
                    return;
                }
                // One signature a height is checked here, not every one a second time.
                if self.is_news(height)
                    && self
                        .members
                        .get_by_address(&vote.message.validator)
                        .is_some()
                    && self.verifier.vote_holds(&vote)
                {
                    self.active = height;
                    self.look();
                }
            }
            SignedConsensusMsg::Proposal(proposal) => {
                let Proposal {
                    height, proposer, ..
                } = &proposal.message;
                if self.is_news(height.0)
                    && self.members.get_by_address(proposer).is_some()
                    && self.verifier.proposal_holds(&proposal)
                {
                    self.active = height.0;
                    self.look();
                }
            }
        }
    }

    fn is_news(&self, height: u64) -> bool {
        height >= self.at.height && height > self.active
    }
}
