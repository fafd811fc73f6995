//! Lanes between nodes: what this node appends goes out at once, and again until a block has merged it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use instar_ipfs::Fault;
use instar_ledger::Lane;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::core::{Core, CoreError};
use crate::node::{Batch, Shared, now_ms};

/// The data swarm's topic for lane messages.
pub(crate) const LANES_TOPIC: &str = "instar/lanes/v1";
/// Lane commits are at least so far apart: what comes meanwhile is gathered into the next one.
const BATCH_WINDOW: Duration = Duration::from_millis(4);
/// Entries of one lane commit at most.
const MAX_BATCH: usize = 1_000;
/// How often an unmerged end is sent again, for peers that were away.
const AGAIN: Duration = Duration::from_secs(1);

/// While nothing moves it is sent after one, two, four… of those, and from here on once in so many.
const SELDOM: u32 = 16;

/// Gathers entries into lane commits.
pub(crate) async fn lane_loop(node: Shared, mut queue: mpsc::Receiver<Batch>) {
    let mut next = Instant::now();
    while let Some(first) = queue.recv().await {
        // Whoever comes alone goes at once.
        tokio::time::sleep_until(next).await;
        let (mut entries, mut waiting) = (first.entries, vec![first.done]);
        while entries.len() < MAX_BATCH {
            let Ok(next) = queue.try_recv() else { break };
            entries.extend(next.entries);
            waiting.push(next.done);
        }
        let appended = node
            .with_core(move |core| core.append(&entries, now_ms() / 1000))
            .await;
        match appended {
            Ok(message) => {
                waiting.into_iter().for_each(|w| drop(w.send(Ok(()))));
                node.tell_peers(message).await;
            }
            Err(e) => {
                tracing::error!(error = %e, "entries could not be appended to the lane");
                for waits in waiting {
                    let _ = waits.send(Err(e.again()));
                }
            }
        }
        next = Instant::now() + BATCH_WINDOW;
    }
}

/// Takes in what peers send.
pub(crate) async fn receive_loop(node: Shared) {
    let mut messages = node.peer.subscribe(LANES_TOPIC);
    while let Some(message) = messages.recv().await {
        let peer = message.peer;
        let (received, news, message) = node
            .with_core(move |core| (core.receive_lane(&message.bytes), core.news.take(), message))
            .await;
        node.tell_peers(news).await;
        match received {
            Ok(is_news) => {
                node.peer.pass_on(message);
                if is_news {
                    node.work.notify();
                }
            }
            // It goes no further, or every node would be held to what its neighbours let through.
            Err(e) => {
                tracing::warn!(%peer, error = %e, "a lane message was refused");
                match e {
                    CoreError::Forged(_) => node.peer.fault(peer, Fault::Forged),
                    CoreError::Stranger(_) => node.peer.fault(peer, Fault::Stranger),
                    _ => {}
                }
            }
        }
    }
}

/// Sends unmerged ends again, and wakes consensus when a transition has become due.
///
/// The own lane each time, the others' in turn: whoever has met a device carries its lane to those who have not.
pub(crate) async fn again_loop(node: Shared) {
    let mut tick = tokio::time::interval(AGAIN);
    let (mut last_height, mut turn, mut still) = (0, 0usize, 0u32);
    let mut peers = node.peer.connected();
    loop {
        tick.tick().await;
        let height = node.height();
        let connected = node.peer.connected();
        // A trunk that moves merges the lanes by itself, and whoever comes has to be told anew.
        if height != last_height || connected != peers {
            still = 0;
            peers = connected;
        } else {
            still = still.saturating_add(1);
        }
        if still.is_power_of_two() || (still > 0 && still % SELDOM == 0) {
            turn = turn.wrapping_add(1);
            let messages = node.with_core(move |core| again(core, turn)).await;
            match messages {
                Ok(messages) => {
                    for message in messages {
                        node.tell_peers(Some(message)).await;
                    }
                }
                Err(e) => tracing::warn!(error = %e, "an unmerged lane can't be packed"),
            }
        }
        last_height = height;
        let work = node.with_core(|core| core.has_work(now_ms())).await;
        let work = work.unwrap_or(true);
        node.signs.work.store(work, Ordering::Relaxed);
        if work {
            node.work.notify();
        }
    }
}

fn again(core: &Core, turn: usize) -> Result<Vec<Vec<u8>>, CoreError> {
    let lanes = core.unmerged_lanes();
    let (own, others): (Vec<Lane>, Vec<Lane>) =
        lanes.into_iter().partition(|lane| *lane == core.own_lane);
    let other = others.get(turn % others.len().max(1));
    own.iter()
        .chain(other)
        .filter_map(|lane| core.lane_message(lane).transpose())
        .collect()
}
