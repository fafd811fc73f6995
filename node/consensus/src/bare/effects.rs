//! What the core asks for, carried out as the engine's actors do it.

use std::collections::VecDeque;
use std::io;

use malachite_app::streaming::StreamMessage;
use malachite_app::types::core::ValueOrigin;
use malachite_app::types::{LocallyProposedValue, PeerId, ProposedValue};
use malachite_channel::{AppMsg, NetworkMsg};
use malachite_codec::Codec;
use malachite_consensus::{
    ConsensusMsg, Effect, Input, LivenessMsg, Resumable, Resume, SignedConsensusMsg,
    VoteExtensionError,
};
use malachite_engine::host::{Next as EngineNext, SyncedValueOutcome};
use malachite_engine::util::events::Event as EngineEvent;
use malachite_signing::{Signer as _, Verifier as _, VerifierExt as _};
use malachite_types::{HeightParams, LinearTimeouts, Round, ValueResponse};
use tokio::sync::mpsc;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

use super::timers::Timers;
use super::wal::Wal;
use super::{Channel, Output, Surroundings, now};
use crate::app::App;
use crate::codec::Wire;
use crate::context::{BlockId, Ctx, Height};
use crate::event::Event;
use crate::host::Host;
use crate::parts::Part;
use crate::run::RunError;

/// A message to the engine's consensus actor.
pub(super) enum Message {
    Start(Height, HeightParams<Ctx>),
    Propose(LocallyProposedValue<Ctx>),
    Value(ProposedValue<Ctx>, ValueOrigin),
    Signed(SignedConsensusMsg<Ctx>),
    Input(Input<Ctx>),
}

/// An answer of the app that somebody waits for.
enum Waiting {
    Propose(Receiver<LocallyProposedValue<Ctx>>),
    Part(Receiver<Option<ProposedValue<Ctx>>>),
    Next(Receiver<EngineNext<Ctx>>),
    Synced(Receiver<SyncedValueOutcome<Ctx>>, BlockId, Round),
}

/// The core has failed: it is not asked again.
#[derive(Debug)]
pub(super) struct Failed;

/// Everything beside the core.
pub(super) struct Hands<H, S> {
    pub app: App<H>,
    pub wire: Wire,
    pub wal: Wal,
    pub surroundings: S,
    pub timers: Timers,
    pub timeouts: LinearTimeouts,
    /// Whether there is a key to vote with.
    pub enabled: bool,
    /// Whether it votes at this height.
    pub validates: bool,
    /// Whether the write-ahead log is being repeated.
    pub recovering: bool,
    pub queue: VecDeque<Message>,
    /// What the engine tells everybody who listens.
    pub seen: VecDeque<EngineEvent<Ctx>>,
    pub failed: Option<RunError>,
    asked: VecDeque<AppMsg<Ctx>>,
    waiting: Vec<Waiting>,
    sent: mpsc::Receiver<NetworkMsg<Ctx>>,
    told: mpsc::Receiver<Event>,
}

impl<H: Host, S: Surroundings> Hands<H, S> {
    pub fn new(
        app: App<H>,
        wire: Wire,
        wal: Wal,
        surroundings: S,
        (sent, told): (mpsc::Receiver<NetworkMsg<Ctx>>, mpsc::Receiver<Event>),
    ) -> Self {
        Self {
            timeouts: app.timeouts,
            app,
            wire,
            wal,
            surroundings,
            timers: Timers::default(),
            enabled: false,
            validates: false,
            recovering: false,
            queue: VecDeque::new(),
            seen: VecDeque::new(),
            failed: None,
            asked: VecDeque::new(),
            waiting: Vec::new(),
            sent,
            told,
        }
    }

    pub fn ask(&mut self, message: AppMsg<Ctx>) {
        self.asked.push_back(message);
    }

    pub fn part(&mut self, from: PeerId, part: StreamMessage<Part>) {
        let (reply, answer) = oneshot::channel();
        self.waiting.push(Waiting::Part(answer));
        self.ask(AppMsg::ReceivedProposalPart {
            from,
            published_by: Some(from),
            part,
            reply,
        });
    }

    /// Whether nothing is left that could be done now.
    pub fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.asked.is_empty() && self.seen.is_empty()
    }

    /// Lets the app work off what it was asked and what it sees, and passes on what comes of it.
    pub fn serve(&mut self) -> Result<(), RunError> {
        loop {
            if let Some(message) = self.asked.pop_front() {
                now(self.app.handle(message))?;
            } else if let Some(event) = self.seen.pop_front() {
                self.app.observe(event);
            } else if self.app.held.is_some() && self.app.work.take() {
                self.app.release();
            } else {
                self.collect();
                return Ok(());
            }
            self.collect();
        }
    }

    fn collect(&mut self) {
        while let Ok(NetworkMsg::PublishProposalPart(part)) = self.sent.try_recv() {
            self.publish(Channel::Parts, &part);
        }
        while let Ok(event) = self.told.try_recv() {
            self.surroundings.put(Output::Event(event));
        }
        let queue = &mut self.queue;
        self.waiting.retain_mut(|waiting| {
            // An answer that was dropped never comes.
            let message = match waiting {
                Waiting::Propose(answer) => answer.try_recv().map(|v| Some(Message::Propose(v))),
                Waiting::Part(answer) => answer
                    .try_recv()
                    .map(|v| v.map(|v| Message::Value(v, ValueOrigin::Consensus))),
                Waiting::Next(answer) => answer.try_recv().map(|next| match next {
                    EngineNext::Start(height, params) | EngineNext::Restart(height, params) => {
                        Some(Message::Start(height, params))
                    }
                }),
                Waiting::Synced(answer, id, round) => answer.try_recv().map(|v| match v {
                    SyncedValueOutcome::Verdict(mut value) if value.value == *id => {
                        value.round = *round;
                        Some(Message::Value(value, ValueOrigin::Sync))
                    }
                    _ => None,
                }),
            };
            match message {
                Ok(message) => queue.extend(message),
                Err(TryRecvError::Closed) => {}
                Err(TryRecvError::Empty) => return true,
            }
            false
        });
    }

    fn publish<T>(&mut self, channel: Channel, message: &T)
    where
        Wire: Codec<T>,
    {
        // What can't be encoded is a mistake of this program, and nobody would hear of it otherwise.
        match self.wire.encode(message) {
            Ok(bytes) => self.surroundings.put(Output::Publish(channel, bytes)),
            Err(error) => self.failed = Some(RunError::Engine(error.to_string())),
        }
    }

    fn fail<T>(&mut self, error: RunError) -> Result<T, Failed> {
        self.failed.get_or_insert(error);
        Err(Failed)
    }

    /// Nothing leaves before what led to it is on disk.
    fn flush(&mut self) -> Result<(), Failed> {
        if self.recovering || !self.validates {
            return Ok(());
        }
        let flushed = self.wal.flush();
        self.kept(flushed)
    }

    fn kept(&mut self, result: io::Result<()>) -> Result<(), Failed> {
        match result {
            Ok(()) => Ok(()),
            Err(error) => self.fail(RunError::Wal(error)),
        }
    }

    pub fn carry_out(&mut self, effect: Effect<Ctx>) -> Result<Resume<Ctx>, Failed> {
        if self.failed.is_some() {
            return Err(Failed);
        }
        match effect {
            Effect::CancelAllTimeouts(r) => {
                self.timers.cancel_all();
                Ok(r.resume_with(()))
            }
            Effect::CancelTimeout(timeout, r) => {
                self.timers.cancel(&timeout);
                Ok(r.resume_with(()))
            }
            Effect::ScheduleTimeout(timeout, r) => {
                let after = self.timeouts.duration_for(timeout);
                let timer = self.timers.start(timeout);
                self.surroundings.put(Output::Timer(timer, after));
                Ok(r.resume_with(()))
            }
            Effect::StartRound(height, round, proposer, role, r) => {
                self.flush()?;
                let (reply_value, mut values) = oneshot::channel();
                self.ask(AppMsg::StartedRound {
                    height,
                    round,
                    proposer,
                    role,
                    reply_value,
                });
                if let Err(error) = self.serve() {
                    return self.fail(error);
                }
                for value in values.try_recv().unwrap_or_default() {
                    let message = Message::Value(value, ValueOrigin::Consensus);
                    self.queue.push_back(message);
                }
                Ok(r.resume_with(()))
            }
            Effect::SignVote(vote, r) => match self.sign(|s| now(s.sign_vote(vote))) {
                Ok(signed) => Ok(r.resume_with(signed)),
                Err(error) => self.fail(error),
            },
            Effect::SignProposal(proposal, r) => {
                match self.sign(|s| now(s.sign_proposal(proposal))) {
                    Ok(signed) => Ok(r.resume_with(signed)),
                    Err(error) => self.fail(error),
                }
            }
            Effect::VerifySignature(message, key, r) => {
                let verifier = &self.app.verifier;
                let result = match &message.message {
                    ConsensusMsg::Vote(vote) => {
                        now(verifier.verify_signed_vote(vote, &message.signature, &key))
                    }
                    ConsensusMsg::Proposal(proposal) => {
                        now(verifier.verify_signed_proposal(proposal, &message.signature, &key))
                    }
                };
                Ok(r.resume_with(result.is_ok_and(|valid| valid.is_valid())))
            }
            Effect::VerifyCommitCertificate(certificate, set, thresholds, r) => {
                let verifier = &self.app.verifier;
                let verified =
                    verifier.verify_commit_certificate(&Ctx, &certificate, &set, thresholds);
                Ok(r.resume_with(now(verified)))
            }
            Effect::VerifyExtendedCommitCertificate(certificate, set, thresholds, policy, r) => {
                let verified = self.app.verifier.verify_extended_commit_certificate(
                    &Ctx,
                    &certificate,
                    &set,
                    thresholds,
                    policy,
                );
                Ok(r.resume_with(now(verified)))
            }
            Effect::VerifyPolkaCertificate(certificate, set, thresholds, r) => {
                let verifier = &self.app.verifier;
                let verified =
                    verifier.verify_polka_certificate(&Ctx, &certificate, &set, thresholds);
                Ok(r.resume_with(now(verified)))
            }
            Effect::VerifyRoundCertificate(certificate, set, thresholds, r) => {
                let verifier = &self.app.verifier;
                let verified =
                    verifier.verify_round_certificate(&Ctx, &certificate, &set, thresholds);
                Ok(r.resume_with(now(verified)))
            }
            // The kernel has no vote extensions.
            Effect::ExtendVote(_, _, _, _, r) => Ok(r.resume_with(None)),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, r) => {
                Ok(r.resume_with(Err(VoteExtensionError::InvalidVoteExtension)))
            }
            Effect::PublishConsensusMsg(message, r) => {
                self.flush()?;
                self.seen.push_back(EngineEvent::Published(message.clone()));
                self.publish(Channel::Consensus, &message);
                Ok(r.resume_with(()))
            }
            Effect::PublishLivenessMsg(message, r) => {
                self.publish(Channel::Liveness, &message);
                Ok(r.resume_with(()))
            }
            Effect::RepublishVote(vote, r) => {
                self.publish(Channel::Liveness, &LivenessMsg::Vote(vote));
                Ok(r.resume_with(()))
            }
            Effect::RepublishRoundCertificate(certificate, r) => {
                let message = LivenessMsg::SkipRoundCertificate(certificate);
                self.publish(Channel::Liveness, &message);
                Ok(r.resume_with(()))
            }
            Effect::GetValue(height, round, timeout, r) => {
                let (reply, answer) = oneshot::channel();
                self.waiting.push(Waiting::Propose(answer));
                self.ask(AppMsg::GetValue {
                    height,
                    round,
                    timeout: self.timeouts.duration_for(timeout),
                    reply,
                });
                Ok(r.resume_with(()))
            }
            Effect::RestreamProposal(height, round, valid_round, address, value_id, r) => {
                self.ask(AppMsg::RestreamProposal {
                    height,
                    round,
                    valid_round,
                    address,
                    value_id,
                });
                Ok(r.resume_with(()))
            }
            Effect::Decide(certificate, extensions, r) => {
                self.flush()?;
                let (reply, _committed) = oneshot::channel();
                self.ask(AppMsg::Decided {
                    certificate,
                    extensions,
                    reply,
                });
                Ok(r.resume_with(()))
            }
            Effect::Finalize(certificate, extensions, evidence, r) => {
                let (reply, answer) = oneshot::channel();
                self.waiting.push(Waiting::Next(answer));
                self.ask(AppMsg::Finalized {
                    certificate,
                    extensions,
                    evidence,
                    reply,
                });
                Ok(r.resume_with(()))
            }
            Effect::CertVerifiedSyncValue(value, proposer, r) => {
                self.process_synced(value, proposer);
                Ok(r.resume_with(()))
            }
            // It is asked for again with the next tick, of the next peer.
            Effect::CertRejectedSyncValue(_, _, _, r) => Ok(r.resume_with(())),
            Effect::WalAppend(height, entry, r) => {
                if !self.recovering && self.validates {
                    let appended = self.wal.append(height, entry, &self.wire);
                    self.kept(appended)?;
                }
                Ok(r.resume_with(()))
            }
        }
    }

    fn sign<T>(
        &self,
        sign: impl FnOnce(&crate::signing::Guarded) -> Result<T, malachite_signing::Error>,
    ) -> Result<T, RunError> {
        let signer = self.app.signer.as_ref().ok_or(RunError::Stopped)?;
        sign(signer).map_err(|error| RunError::Engine(error.to_string()))
    }

    fn process_synced(&mut self, value: ValueResponse<Ctx>, proposer: crate::context::Address) {
        let certificate = &value.certificate;
        let (reply, answer) = oneshot::channel();
        let (id, round) = (certificate.value_id, certificate.round);
        self.waiting.push(Waiting::Synced(answer, id, round));
        self.ask(AppMsg::ProcessSyncedValue {
            height: certificate.height,
            round,
            proposer,
            value_bytes: value.value_bytes,
            reply,
        });
    }
}
