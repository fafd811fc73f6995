//! One life of the core: what comes in, one message after the other, as the engine's consensus actor takes it.

use std::sync::Arc;

use malachite_consensus::{Input, SignedConsensusMsg};
use malachite_engine::util::events::Event as EngineEvent;
use malachite_types::HeightParams;

use super::effects::Message;
use super::{Session, Surroundings};
use crate::context::{Ctx, Height};
use crate::host::Host;
use crate::run::RunError;

impl<H: Host, S: Surroundings> Session<H, S> {
    pub(super) fn settle(&mut self) -> Result<(), RunError> {
        loop {
            self.hands.serve()?;
            if let Some(message) = self.hands.queue.pop_front() {
                self.handle(message)?;
            } else if self.hands.is_quiet() {
                return Ok(());
            }
        }
    }

    /// One message to the engine's consensus actor.
    pub(super) fn handle(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Start(height, params) => self.begin(height, params),
            Message::Propose(value) => self.process(Input::Propose(value)),
            Message::Value(value, origin) => self.process(Input::ProposedValue(value, origin)),
            Message::Input(input) => self.process(input),
            Message::Signed(message) => {
                let event = EngineEvent::Received(message.clone());
                self.hands.seen.push_back(event);
                self.process(match message {
                    SignedConsensusMsg::Vote(vote) => Input::Vote(vote),
                    SignedConsensusMsg::Proposal(proposal) => Input::Proposal(proposal),
                })
            }
        }
    }

    /// As the engine begins a height: what the write-ahead log holds of it comes first.
    pub(super) fn begin(
        &mut self,
        height: Height,
        params: HeightParams<Ctx>,
    ) -> Result<(), RunError> {
        use malachite_types::ValidatorSet as _;
        let own = self.core.params.address;
        let hands = &mut self.hands;
        hands.validates = hands.enabled && params.validator_set.get_by_address(&own).is_some();
        let entries = if hands.validates {
            hands.wal.begin(height, &hands.wire)
        } else {
            hands.wal.reset(height).map(|()| Vec::new())
        };
        let entries = entries.map_err(RunError::Wal)?;
        hands.timeouts = params.timeouts;
        self.process(Input::StartHeight(
            height,
            params.validator_set,
            false,
            params.target_time,
            params.vote_extension_policy,
        ))?;
        if !entries.is_empty() {
            self.repeat(entries)?;
        }
        self.use_values();
        Ok(())
    }

    pub(super) fn repeat(
        &mut self,
        entries: Vec<std::io::Result<Input<Ctx>>>,
    ) -> Result<(), RunError> {
        self.hands.recovering = true;
        self.core.index_wal_entries(entries.iter().flatten());
        for entry in entries {
            let input = match entry {
                Ok(input) => input,
                Err(error) => {
                    self.hands
                        .app
                        .observe(EngineEvent::WalCorrupted(Arc::new(error)));
                    return Err(RunError::Stopped);
                }
            };
            if let Err(error) = self.process(input) {
                tracing::error!(%error, "the write-ahead log can't be repeated");
                self.hands.app.log_failed = self.hands.failed.is_none();
                return Err(RunError::Stopped);
            }
        }
        self.core.reset_entries_index();
        self.hands.recovering = false;
        Ok(())
    }

    pub(super) fn process(&mut self, input: Input<Ctx>) -> Result<(), RunError> {
        let Self {
            core,
            metrics,
            hands,
            ..
        } = self;
        let result: Result<(), malachite_consensus::Error<Ctx>> = malachite_consensus::process!(
            input: input,
            state: core,
            metrics: metrics,
            with: effect => hands.carry_out(effect)
        );
        if let Some(error) = hands.failed.take() {
            return Err(error);
        }
        result.map_err(|error| RunError::Engine(error.to_string()))
    }
}
