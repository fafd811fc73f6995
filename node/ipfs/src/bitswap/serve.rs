//! Answers wants from the store, a bounded piece at a time.

use std::sync::Arc;

use cid::Cid;
use instar_chunks::block::identity_content;
use libp2p::PeerId;
use prost::Message as _;

use super::{Bitswap, prefix_of};
use crate::wire::bitswap::{Block, Entry, Message, Presence, PresenceType, WantType, Wantlist};

/// An answer is sent when it has this many bytes of blocks; the largest is a block more.
const ANSWER_BYTES: usize = 512 * 1024;

/// Most wants of one message that are looked at. A client asks again for the rest.
const MAX_WANTS_PER_MESSAGE: usize = 2048;

/// Sends what the store holds of `wantlist`, and says what it doesn't hold to those who want to
/// know. Wants are not remembered: who asked too early asks again. Waiting for room in the queue
/// to the peer keeps its next message unread, so that nobody makes us hold more than the queue.
pub async fn answer(bitswap: &Arc<Bitswap>, peer: PeerId, wantlist: Wantlist) {
    let mut entries: Vec<Entry> = wantlist.entries;
    entries.truncate(MAX_WANTS_PER_MESSAGE);
    entries.retain(|entry| !entry.cancel);
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let store = Arc::clone(&bitswap.store);
        // Reading a disk would hold up every other task of this thread.
        let gathered = tokio::task::spawn_blocking(move || {
            let mut message = Message::default();
            let mut bytes = 0;
            for entry in entries.by_ref() {
                bytes += look_up(store.as_ref(), &entry, &mut message);
                if bytes >= ANSWER_BYTES {
                    break;
                }
            }
            (message, entries)
        })
        .await;
        let Ok((message, rest)) = gathered else {
            tracing::warn!(%peer, "reading blocks for a peer broke off");
            return;
        };
        entries = rest;
        if message == Message::default() {
            continue;
        }
        let sent = bitswap
            .outbox
            .send(peer, message.encode_to_vec().into())
            .await;
        if sent.is_err() {
            return;
        }
    }
}

/// Adds the answer to one want; returns the bytes of block that it added.
fn look_up(store: &dyn instar_chunks::Blocks, entry: &Entry, message: &mut Message) -> usize {
    let Ok(cid) = Cid::try_from(entry.block.as_slice()) else {
        return 0;
    };
    let presence = |message: &mut Message, kind: PresenceType| {
        message.presences.push(Presence {
            cid: entry.block.clone(),
            kind: kind as i32,
        });
        0
    };
    if identity_content(&cid).is_some() {
        // Who has the address has the content.
        return presence(message, PresenceType::DontHave);
    }
    if entry.want_type == WantType::Have as i32 {
        return match store.has(&cid) {
            Ok(true) => presence(message, PresenceType::Have),
            _ if entry.send_dont_have => presence(message, PresenceType::DontHave),
            _ => 0,
        };
    }
    match store.get(&cid) {
        Ok(Some(data)) => {
            let bytes = data.len();
            message.payload.push(Block {
                prefix: prefix_of(&cid),
                data,
            });
            bytes
        }
        other => {
            if let Err(error) = other {
                tracing::warn!(%cid, %error, "a block that was asked for can't be served");
            }
            if entry.send_dont_have {
                presence(message, PresenceType::DontHave);
            }
            0
        }
    }
}
