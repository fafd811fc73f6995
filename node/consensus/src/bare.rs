//! A validator as a value: what [`run`](crate::run) does, without actors, sockets, threads or a clock.
//!
//! It is made of the same parts: the app loop, the signer behind its mark, the codecs, the write-ahead log, and
//! Malachite's core, which decides and asks for effects. What surrounds them is the caller's: messages and elapsed timers
//! come in, messages and timers go out, and files are whatever stands behind [`Medium`]. So whoever holds several of
//! them decides on the order of everything that happens, and the same order gives the same outcome: that is what the
//! simulator in `tests/` is built on. Two things are stand-ins, because Malachite's own read a clock and draw
//! randomness: how values of peers that are further are asked for (`sync`), and that messages reach everybody
//! directly.

mod effects;
mod session;
mod sync;
mod timers;
mod wal;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use instar_attest::{ChainId, PublicKey, SecretKey};
use malachite_app::types::PeerId;
use malachite_channel::AppMsg;
use malachite_codec::Codec;
use malachite_consensus::{Input, LivenessMsg, Params, SignedConsensusMsg, State, ValuePayload};
use tokio::sync::{mpsc, oneshot};

use crate::app::Begin;
use crate::codec::Wire;
use crate::config::Timeouts;
use crate::context::{Address, Ctx, Height, Members};
use crate::engine::{NOBODY, linear};
use crate::event::Event;
use crate::host::{Host, Start};
use crate::log::ProposalLog;
use crate::marks::{FILE_NAME, Found, Marks};
use crate::medium::Medium;
use crate::parts::MAX_PARTS;
use crate::run::RunError;
use crate::signing::{Guarded, Strict};
use crate::standing::{self, Standing};
use crate::work::WorkSignal;

use effects::{Hands, Message};
use wal::Wal;

/// As in the engine's own configuration: heights, and inputs a height, that are kept for later.
const QUEUED_HEIGHTS: usize = 10;
const QUEUED_INPUTS: usize = 500;
/// Events that one step may tell.
const MAX_EVENTS: usize = 4096;

/// What a message is about, as the swarm's topics and protocols tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// A signed vote or proposal.
    Consensus,
    /// A vote that is sent again, or a certificate of a round.
    Liveness,
    /// A part of a proposal.
    Parts,
    /// How far a node is.
    Status,
    /// A question for decided values.
    Request,
    /// Decided values.
    Response,
}

/// A file of this validator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// The high-water mark.
    Mark,
    /// The write-ahead log.
    Log,
    /// The undecided proposals.
    Proposals,
}

/// A timer that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer(u64);

/// What a validator wants to happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To everybody else.
    Publish(Channel, Bytes),
    /// To one peer.
    Send(u64, Channel, Bytes),
    /// [`Bare::elapsed`] after this long.
    Timer(Timer, Duration),
    /// Something to be told.
    Event(Event),
}

/// What a validator stands in.
pub trait Surroundings {
    /// One of its files. Asked again after a crash, and when a validator that followed begins to sign.
    fn file(&mut self, kept: Kept) -> Box<dyn Medium>;

    /// Takes what it wants to happen, in order.
    fn put(&mut self, output: Output);
}

/// What is known at the start.
#[derive(Debug, Clone)]
pub struct BareConfig {
    /// In every signed byte string.
    pub chain: ChainId,
    /// The consensus key.
    pub key: SecretKey,
    /// This node's number among its peers.
    pub peer: u64,
    /// The peers, and the consensus keys that they proved.
    pub peers: BTreeMap<u64, PublicKey>,
    /// Timeouts.
    pub timeouts: Timeouts,
}

/// One validator.
pub struct Bare<H: Host, S: Surroundings> {
    config: BareConfig,
    session: Option<Session<H, S>>,
}

/// One life of the core: with the key, or only following.
struct Session<H: Host, S: Surroundings> {
    core: State<Ctx>,
    metrics: malachite_metrics::Metrics,
    hands: Hands<H, S>,
    follow: Option<Option<u64>>,
    sync: sync::Sync,
}

/// What a session needs of the one before.
struct Parts<H, S> {
    host: H,
    surroundings: S,
    log: ProposalLog,
    at: Start,
    timers: timers::Timers,
}

/// Everything here is at hand, so a future that has to wait is a mistake of whoever wrote the host.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the host of a bare validator answers at once"),
    }
}

/// The id of a peer by its number.
fn peer_id(number: u64) -> PeerId {
    // An identity multihash of eight bytes.
    let bytes = [&[0, 8], number.to_be_bytes().as_slice()].concat();
    PeerId::from_bytes(&bytes).expect("an identity multihash of eight bytes is an id")
}

fn mark(
    surroundings: &mut impl Surroundings,
    key: PublicKey,
    height: u64,
) -> Result<Found, RunError> {
    let file = surroundings.file(Kept::Mark);
    let path = FILE_NAME.into();
    if file.size().map_err(RunError::Log)? > 0 {
        return Ok(Marks::read(path, key, file)?);
    }
    if height > 1 {
        return Ok(Found::Missing);
    }
    let new = Marks::write_new(path, key, file, 0)?;
    Ok(Found::Mark(Box::new(new)))
}

impl<H: Host, S: Surroundings> Bare<H, S> {
    /// Begins, or goes on from what the files hold.
    pub fn start(config: BareConfig, mut host: H, mut surroundings: S) -> Result<Self, RunError> {
        let at = now(host.start());
        let log = ProposalLog::read(surroundings.file(Kept::Proposals)).map_err(RunError::Log)?;
        let found = mark(&mut surroundings, config.key.public(), at.height)?;
        let mut bare = Self {
            config,
            session: None,
        };
        let parts = Parts {
            host,
            surroundings,
            log,
            at,
            timers: timers::Timers::default(),
        };
        bare.open(parts, |wal, height| {
            Standing::of(found, height, || Ok(Some(wal.height())))
        })?;
        bare.settle()?;
        Ok(bare)
    }

    fn open(
        &mut self,
        mut parts: Parts<H, S>,
        standing: impl FnOnce(&Wal, u64) -> Result<Standing, RunError>,
    ) -> Result<(), RunError> {
        let wal = Wal::open(parts.surroundings.file(Kept::Log)).map_err(RunError::Wal)?;
        let config = &self.config;
        let (signer, follow) = match standing(&wal, parts.at.height)? {
            Standing::Signs(marks) => {
                let marks = Arc::new(Mutex::new(*marks));
                let signer = Guarded::new(config.chain, config.key.clone(), marks);
                (Some(signer), None)
            }
            Standing::Follows { until } => (None, Some(until)),
        };
        if let Some(until) = follow {
            let event = Output::Event(Event::Following { until });
            parts.surroundings.put(event);
        }
        let (network, sent) = mpsc::channel(2 * MAX_PARTS as usize);
        let (events, told) = mpsc::channel(MAX_EVENTS);
        let address = match &signer {
            Some(_) => Address(config.key.public()),
            None => Address(PublicKey::from_bytes(NOBODY)),
        };
        let params = Params {
            address,
            threshold_params: Default::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: signer.is_some(),
        };
        let members = Members::from(&parts.at.validators);
        let height = Height(parts.at.height);
        let wire = Wire::default();
        let enabled = signer.is_some();
        let app = Begin {
            host: parts.host,
            own: config.key.public(),
            signer,
            verifier: Strict {
                chain: config.chain,
            },
            timeouts: linear(&config.timeouts),
            network,
            events,
            work: WorkSignal::new(),
            wire: wire.clone(),
            log: parts.log,
            at: parts.at,
            pauses: false,
        };
        let mut hands = Hands::new(app.app(), wire, wal, parts.surroundings, (sent, told));
        hands.enabled = enabled;
        hands.timers = parts.timers;
        let (reply, ready) = oneshot::channel();
        hands.ask(AppMsg::ConsensusReady { reply });
        hands.serve()?;
        if let Ok((height, params)) = { ready }.try_recv() {
            hands.queue.push_back(Message::Start(height, params));
        }
        self.session = Some(Session {
            core: State::new(Ctx, height, members, params, QUEUED_HEIGHTS, QUEUED_INPUTS),
            metrics: malachite_metrics::Metrics::new(),
            hands,
            follow,
            sync: sync::Sync::default(),
        });
        Ok(())
    }

    fn session(&mut self) -> &mut Session<H, S> {
        self.session
            .as_mut()
            .expect("a session is open while nobody opens another one")
    }

    /// The node behind it; none once opening a session has failed, after which nothing more can be done with it.
    pub fn host(&self) -> Option<&H> {
        self.session.as_ref().map(|s| &s.hands.app.host)
    }

    /// The node behind it, to be changed.
    pub fn host_mut(&mut self) -> Option<&mut H> {
        self.session.as_mut().map(|s| &mut s.hands.app.host)
    }

    /// Whether it only follows for now.
    pub fn follows(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.follow.is_some())
    }

    /// The height, and the round from 0, that it is in.
    pub fn at(&self) -> (u64, Option<u32>) {
        self.session
            .as_ref()
            .map_or((0, None), |s| (s.core.height().0, s.core.round().as_u32()))
    }

    /// Whether it is idle: it waits for work before it begins the next height.
    pub fn is_idle(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|s| s.hands.app.held.is_some())
    }

    /// Takes a message in. Whatever can't be decoded is dropped, as the swarm does.
    pub fn receive(&mut self, from: u64, channel: Channel, bytes: Bytes) -> Result<(), RunError> {
        let session = self.session();
        let wire = session.hands.wire.clone();
        match channel {
            Channel::Consensus => {
                if let Ok(message) = Codec::<SignedConsensusMsg<Ctx>>::decode(&wire, bytes) {
                    session.hands.queue.push_back(Message::Signed(message));
                }
            }
            Channel::Liveness => {
                if let Ok(message) = Codec::<LivenessMsg<Ctx>>::decode(&wire, bytes) {
                    let message = match message {
                        LivenessMsg::Vote(vote) => Message::Signed(SignedConsensusMsg::Vote(vote)),
                        LivenessMsg::PolkaCertificate(c) => {
                            Message::Input(Input::PolkaCertificate(c))
                        }
                        LivenessMsg::SkipRoundCertificate(c) => {
                            Message::Input(Input::RoundCertificate(c))
                        }
                    };
                    session.hands.queue.push_back(message);
                }
            }
            Channel::Parts => {
                if let Ok(part) = Codec::decode(&wire, bytes) {
                    session.hands.part(peer_id(from), part);
                }
            }
            Channel::Status | Channel::Request | Channel::Response => {
                session.synced(from, channel, bytes)?;
            }
        }
        self.settle()
    }

    /// A timer has run out.
    pub fn elapsed(&mut self, timer: Timer) -> Result<(), RunError> {
        let hands = &mut self.session().hands;
        if let Some(timeout) = hands.timers.take(timer) {
            let input = Input::TimeoutElapsed(timeout);
            hands.queue.push_back(Message::Input(input));
        }
        self.settle()
    }

    /// There is work: an idle validator begins the next height.
    pub fn work(&mut self) -> Result<(), RunError> {
        self.session().hands.app.work.notify();
        self.settle()
    }

    /// To be called each [`Timeouts::status`]: tells its height, asks whoever is further, and looks whether a lost mark
    /// can be made anew.
    pub fn tick(&mut self) -> Result<(), RunError> {
        let config = self.config.clone();
        let session = self.session();
        session.tell_status(config.peer);
        if session.follow == Some(None) {
            let app = &session.hands.app;
            let heard = config.peers.iter().filter_map(|(peer, key)| {
                let tip = app.tips.of(&peer_id(*peer).to_bytes())?;
                Some((key.as_bytes().to_vec(), tip))
            });
            if let Some(head) = standing::highest_of(app, heard) {
                let until = standing::after_everything_signed(head);
                let file = session.hands.surroundings.file(Kept::Mark);
                file.set_size(0).map_err(RunError::Log)?;
                Marks::write_new(FILE_NAME.into(), config.key.public(), file, until - 1)?;
                session.follow = Some(Some(until));
                app.tell(Event::Following { until: Some(until) });
            }
        }
        session.ask_further(&config);
        self.settle()
    }

    /// Works off everything that follows, and opens another session where that is due.
    fn settle(&mut self) -> Result<(), RunError> {
        loop {
            let result = self.session().settle();
            let session = self.session();
            let without_log = session.hands.app.log_failed;
            match result {
                Ok(()) => {}
                Err(RunError::Stopped) if without_log => {}
                Err(error) => return Err(error),
            }
            let reached = session
                .follow
                .flatten()
                .is_some_and(|until| session.hands.app.at.height >= until);
            if !reached && !without_log {
                return Ok(());
            }
            let Some(ended) = self.session.take() else {
                return Ok(());
            };
            let timers = timers::Timers::after(ended.hands.timers.started());
            let (app, mut surroundings) = (ended.hands.app, ended.hands.surroundings);
            let (key, height) = (self.config.key.public(), app.at.height);
            let found = mark(&mut surroundings, key, height)?;
            let parts = Parts {
                host: app.host,
                surroundings,
                log: app.log,
                at: app.at,
                timers,
            };
            self.open(parts, |wal, height| {
                if without_log {
                    Standing::sealed(found, height)
                } else {
                    Standing::of(found, height, || Ok(Some(wal.height())))
                }
            })?;
        }
    }
}
