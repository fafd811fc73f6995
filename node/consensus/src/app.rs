//! The loop between the engine and the node.

mod idle;
mod propose;
mod receive;
pub(crate) mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;

use instar_attest::PublicKey;
use instar_ledger::{Oid, ValidatorSet};
use malachite_app::types::PeerId;
use malachite_channel::{AppMsg, NetworkMsg};
use malachite_consensus::VoteExtensionError;
use malachite_types::{HeightParams, LinearTimeouts, Round};
use tokio::sync::mpsc;

use crate::certificate::{self, Growing};
use crate::codec::Wire;
use crate::context::{Ctx, Height, Members};
use crate::event::Event;
use crate::host::{Host, Next, Start};
use crate::log::ProposalLog;
use crate::overheard::{Polkas, Proofs, Tips};
use crate::parts::{Assembled, Assembler};
use crate::run::RunError;
use crate::signing::{Guarded, Strict};
use crate::work::WorkSignal;

/// Everything the loop keeps between two messages.
pub(crate) struct App<H> {
    pub host: H,
    pub own: PublicKey,
    /// Missing while this node only follows.
    pub signer: Option<Guarded>,
    pub verifier: Strict,
    pub timeouts: LinearTimeouts,
    pub network: mpsc::Sender<NetworkMsg<Ctx>>,
    pub events: mpsc::Sender<Event>,
    pub work: WorkSignal,
    pub tips: Arc<Tips>,
    pub polkas: Arc<Polkas>,
    pub proofs: Arc<Proofs>,
    pub log: ProposalLog,
    pub assembler: Assembler<PeerId>,
    /// The height that the engine is told to decide, and its validators.
    pub at: Start,
    pub members: Members,
    /// Whether a round of that height has begun.
    pub running: bool,
    /// What the host wants after a decision, until the engine asks for it.
    pub next: Option<Next>,
    /// The engine's question what comes next, while there is nothing to do.
    pub held: Option<idle::Held>,
    /// The highest height at which somebody is known to vote for a block or to propose one.
    pub active: u64,
    /// Whole proposals for heights that have not begun here, by (height, block).
    pub pending: BTreeMap<(u64, Oid), Assembled>,
    /// The newest decision, while late precommits come in.
    pub growing: Option<Growing>,
    /// Tells repetitions of a stream apart.
    pub streams: u64,
    /// The engine could not read its write-ahead log, or not repeat what it says.
    pub log_failed: bool,
    /// Whether time passes while this loop waits. Where time is simulated, whoever asks again does the waiting.
    pub pauses: bool,
}

/// What a session of the engine begins with.
pub(crate) struct Begin<H> {
    pub host: H,
    pub own: PublicKey,
    pub signer: Option<Guarded>,
    pub verifier: Strict,
    pub timeouts: LinearTimeouts,
    pub network: mpsc::Sender<NetworkMsg<Ctx>>,
    pub events: mpsc::Sender<Event>,
    pub work: WorkSignal,
    pub wire: Wire,
    pub log: ProposalLog,
    pub at: Start,
    pub pauses: bool,
}

impl<H> Begin<H> {
    pub(crate) fn app(self) -> App<H> {
        App {
            host: self.host,
            own: self.own,
            signer: self.signer,
            assembler: Assembler::new(self.verifier.chain),
            verifier: self.verifier,
            timeouts: self.timeouts,
            network: self.network,
            events: self.events,
            work: self.work,
            tips: self.wire.tips,
            polkas: self.wire.polkas,
            proofs: self.wire.proofs,
            log: self.log,
            members: Members::from(&self.at.validators),
            at: self.at,
            running: false,
            next: None,
            held: None,
            active: 0,
            pending: BTreeMap::new(),
            growing: None,
            streams: 0,
            log_failed: false,
            pauses: self.pauses,
        }
    }
}

impl<H: Host> App<H> {
    fn params(&self, validators: &ValidatorSet) -> HeightParams<Ctx> {
        HeightParams::new(Members::from(validators), self.timeouts, None)
    }

    pub(crate) fn tell(&self, event: Event) {
        // Whoever listens may be slow or gone; consensus waits for nobody.
        let _ = self.events.try_send(event);
    }

    /// The height after the newest one that is final here.
    fn begin(&mut self, height: u64, validators: ValidatorSet) {
        self.members = Members::from(&validators);
        self.at = Start { height, validators };
        self.running = false;
        self.pending.retain(|(pending, _), _| *pending >= height);
    }

    /// Answers one message of the engine. The engine's connector waits for the answer before it sends another.
    pub(crate) async fn handle(&mut self, message: AppMsg<Ctx>) -> Result<(), RunError> {
        match message {
            AppMsg::ConsensusReady { reply } => {
                let params = self.params(&self.at.validators);
                let _ = reply.send((Height(self.at.height), params));
            }
            AppMsg::StartedRound {
                height,
                round,
                proposer,
                reply_value,
                ..
            } => {
                self.running = true;
                let (height, round) = (height.0, round.as_u32().unwrap_or(0));
                tracing::debug!(height, round, %proposer, "round begins");
                self.tell(Event::Round {
                    height,
                    round,
                    proposer: proposer.0,
                });
                let values = self.pending_values(height).await?;
                let _ = reply_value.send(values);
            }
            AppMsg::GetValue {
                height,
                round,
                reply,
                ..
            } => {
                self.propose(height.0, round.as_u32().unwrap_or(0), reply)
                    .await?;
            }
            AppMsg::RestreamProposal {
                height,
                round,
                valid_round,
                value_id,
                ..
            } => {
                self.restream(height.0, round, valid_round, value_id.0)
                    .await?;
            }
            AppMsg::ReceivedProposalPart {
                from,
                published_by,
                part,
                reply,
            } => {
                let value = self.receive(published_by.unwrap_or(from), part).await?;
                let _ = reply.send(value);
            }
            AppMsg::Decided {
                certificate, reply, ..
            } => {
                self.decided(&certificate).await?;
                let _ = reply.send(());
            }
            AppMsg::Finalized {
                certificate, reply, ..
            } => {
                self.finalized(certificate.height.0, reply)?;
            }
            AppMsg::GetDecidedValues { range, reply } => {
                let values = self.decided_values(range.start().0, range.end().0).await;
                let _ = reply.send(values);
            }
            AppMsg::ProcessSyncedValue {
                height,
                round,
                proposer,
                value_bytes,
                reply,
            } => {
                let outcome = self.synced(height.0, round, proposer, &value_bytes).await?;
                let _ = reply.send(outcome);
            }
            AppMsg::GetHistoryMinHeight { reply } => {
                let _ = reply.send(Height(self.host.min_height().await));
            }
            // The kernel has no vote extensions.
            AppMsg::ExtendVote { reply, .. } => {
                let _ = reply.send(None);
            }
            AppMsg::VerifyVoteExtensions {
                extensions, reply, ..
            } => {
                let refused = Err(VoteExtensionError::InvalidVoteExtension);
                let verdicts = extensions.into_iter().map(|(a, ())| (a, refused.clone()));
                let _ = reply.send(verdicts.collect());
            }
        }
        Ok(())
    }

    async fn decided(
        &mut self,
        decided: &malachite_types::CommitCertificate<Ctx>,
    ) -> Result<(), RunError> {
        let certificate = certificate::to_ledger(decided);
        let (height, round, block) = (certificate.height, certificate.round, certificate.block);
        let signatures = certificate.signatures.len();
        let payload = self.log.payload(height, &block).map_err(RunError::Log)?;
        self.growing = Some(Growing::new(certificate.clone(), self.members.clone()));
        self.work.take();
        let next = self.host.decided(certificate, payload).await;
        if next.height != height + 1 {
            return Err(RunError::Next {
                decided: height,
                next: next.height,
            });
        }
        tracing::debug!(height, round, %block, signatures, "decided");
        self.tell(Event::Decided {
            height,
            round,
            block,
            signatures,
        });
        self.begin(next.height, next.validators.clone());
        self.next = Some(next);
        Ok(())
    }
}

/// A round that is sure to exist.
fn number(round: Round) -> u32 {
    round.as_u32().unwrap_or(0)
}
