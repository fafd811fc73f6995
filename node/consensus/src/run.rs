//! Runs the loop between the engine and the node until it is told to stop.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use malachite_channel::{Channels, EngineHandle};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::app::Begin;
use crate::codec::Wire;
use crate::config::Config;
use crate::context::Ctx;
use crate::engine;
use crate::event::Event;
use crate::host::{Host, Start};
use crate::log::ProposalLog;
use crate::marks::{MarkError, Marks};
use crate::signing::{Guarded, Strict};
use crate::standing::{self, Standing};
use crate::work::WorkSignal;

/// How long the engine gets to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a validator without a mark asks whom it has heard.
const HEARING: Duration = Duration::from_millis(500);

/// How often the engine is asked for a sign of life.
const LIFE: Duration = Duration::from_secs(2);

/// Why consensus ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The high-water mark can't be used, so nothing may be signed.
    #[error("the consensus key's high-water mark")]
    Marks(#[from] MarkError),
    /// The log of undecided proposals failed.
    #[error("the log of undecided proposals")]
    Log(#[source] io::Error),
    /// The engine did not start.
    #[error("the consensus engine did not start: {0}")]
    Engine(String),
    /// The network key is not usable.
    #[error("the network seed gives no key")]
    NetworkKey,
    /// The host skipped or repeated a height.
    #[error("height {decided} was decided, and the node wants to go on with {next}")]
    Next {
        /// The decided height.
        decided: u64,
        /// What the host answered.
        next: u64,
    },
    /// The engine finalized a height without deciding it.
    #[error("height {height} was finalized before it was decided")]
    Order {
        /// The height.
        height: u64,
    },
    /// The write-ahead log can't be read, so nobody knows what this validator is locked on.
    #[error("the write-ahead log")]
    Wal(#[source] io::Error),
    /// Two engines with one key would contradict each other.
    #[error("another process holds {path}")]
    Busy {
        /// The write-ahead log.
        path: PathBuf,
    },
    /// The engine ended by itself; its log says why.
    #[error("the consensus engine stopped")]
    Stopped,
}

/// Runs consensus until `stop` becomes true, or until it can't go on, and tells what happens. Events are lost when the
/// channel is full.
pub async fn run<H: Host>(
    config: Config,
    mut host: H,
    work: WorkSignal,
    events: mpsc::Sender<Event>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    engine::wait_for_wal(&config).await?;
    let mut log = ProposalLog::open(&config.wal_dir).map_err(RunError::Log)?;
    let mut start = host.start().await;
    let mut standing = Standing::open(&config, start.height)?;
    // A validator whose mark does not fit follows at first; once it may sign, the engine starts again with its key.
    loop {
        let session = Session {
            config: &config,
            work: &work,
            events: &events,
            standing,
        };
        let ended = session.run(host, log, start, &mut stop).await?;
        let Some(Ended {
            host: host_back,
            log: log_back,
            at,
            without_log,
        }) = ended
        else {
            return Ok(());
        };
        (host, log, start) = (host_back, log_back, at);
        engine::wait_for_wal(&config).await?;
        standing = if without_log {
            Standing::without_log(&config, start.height)?
        } else {
            Standing::open(&config, start.height)?
        };
    }
}

/// What the next session goes on with.
struct Ended<H> {
    host: H,
    log: ProposalLog,
    at: Start,
    /// The engine could not use its write-ahead log; the next session follows at first.
    without_log: bool,
}

/// One life of the engine.
struct Session<'a> {
    config: &'a Config,
    work: &'a WorkSignal,
    events: &'a mpsc::Sender<Event>,
    standing: Standing,
}

impl Session<'_> {
    /// Nothing if it was told to stop; what the next session needs if this one only followed and may sign now, or can
    /// only follow.
    async fn run<H: Host>(
        self,
        host: H,
        log: ProposalLog,
        start: Start,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Ended<H>>, RunError> {
        let Self {
            config,
            work,
            events,
            standing,
        } = self;
        let verifier = Strict {
            chain: config.chain,
        };
        let (signer, mut follow) = match standing {
            Standing::Signs(marks) => {
                let marks = Arc::new(Mutex::new(*marks));
                (
                    Some(Guarded::new(config.chain, config.key.clone(), marks)),
                    None,
                )
            }
            Standing::Follows { until } => (None, Some(until)),
        };
        if let Some(until) = follow {
            tracing::warn!(
                ?until,
                "this validator only follows: its high-water mark does not fit"
            );
            let _ = events.try_send(Event::Following { until });
        }
        let wire = Wire::default();
        let tips = Arc::clone(&wire.tips);
        let (mut channels, mut handle) =
            engine::open(config, signer.as_ref(), &verifier, wire.clone()).await?;
        let mut engine_events = channels.events.subscribe();
        let mut hearing = interval(HEARING);
        hearing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut life = interval(LIFE);
        life.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked: Option<JoinHandle<()>> = None;
        let mut app = Begin {
            host,
            own: config.key.public(),
            signer,
            verifier,
            timeouts: engine::linear(&config.timeouts),
            network: channels.network.clone(),
            events: events.clone(),
            work: work.clone(),
            wire: wire.clone(),
            log,
            at: start,
            pauses: true,
        }
        .app();
        let result = loop {
            if let Some(Some(until)) = follow
                && app.at.height >= until
            {
                break Ok(true);
            }
            tokio::select! {
                message = channels.consensus.recv() => match message {
                    Some(message) => {
                        if let Err(error) = app.handle(message).await {
                            break Err(error);
                        }
                    }
                    None => break Err(RunError::Stopped),
                },
                event = engine_events.recv() => match event {
                    Ok(event) => app.observe(event),
                    // What was missed is repeated by its sender, or replaced by a peer's status.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break Err(RunError::Stopped),
                },
                () = work.wait(), if app.held.is_some() => app.release(),
                () = tips.changed() => {
                    app.look();
                }
                _ = hearing.tick(), if follow == Some(None) => {
                    let head = standing::highest_head(&app, &channels.net_requests).await;
                    if let Some(head) = head {
                        let until = standing::after_everything_signed(head);
                        tracing::warn!(head, until, "the mark is made anew, after everything that can have been signed");
                        if let Err(error) =
                            Marks::create(&config.marks_dir, config.key.public(), until - 1)
                        {
                            break Err(error.into());
                        }
                        follow = Some(Some(until));
                        app.tell(Event::Following { until: Some(until) });
                    }
                }
                // One question at a time: an engine that hangs would be asked for ever.
                _ = life.tick(), if asked.as_ref().is_none_or(JoinHandle::is_finished) => {
                    let sign = standing::sign_of_life(
                        channels.requests.clone(),
                        channels.net_requests.clone(),
                        Arc::clone(&app.proofs),
                        app.verifier.clone(),
                        app.members.clone(),
                        app.own,
                    );
                    let events = events.clone();
                    asked = Some(tokio::spawn(async move {
                        if let Some(event) = sign.await {
                            let _ = events.try_send(event);
                        }
                    }));
                }
                _ = stop.wait_for(|stop| *stop) => break Ok(false),
                _ = &mut handle.handle => break Err(RunError::Stopped),
            }
        };
        if let Some(asked) = asked {
            asked.abort();
        }
        // The engine's last words may still be unread.
        while let Ok(event) = engine_events.try_recv() {
            app.observe(event);
        }
        end(channels, handle).await;
        let without_log = app.log_failed;
        let again = match result {
            Err(RunError::Stopped) if without_log => true,
            other => other?,
        };
        Ok(again.then_some(Ended {
            host: app.host,
            log: app.log,
            at: app.at,
            without_log,
        }))
    }
}

async fn end(channels: Channels<Ctx>, mut handle: EngineHandle) {
    drop(channels);
    handle.actor.stop(None);
    if !handle.handle.is_finished() {
        let _ = tokio::time::timeout(END_TIMEOUT, &mut handle.handle).await;
    }
}
