//! The book of messages and peers, without a network.

use super::state::MAX_OFFERED_BYTES;
use super::*;
use crate::streams::Streams;

fn gossip() -> Arc<Gossip> {
    let (_, opener, _) = Streams::new(vec![PROTOCOL]);
    Arc::new(Gossip::new(Outbox::new(PROTOCOL, opener)))
}

fn push(data: &[u8]) -> Push {
    Push {
        topic: "t".into(),
        nonce: vec![7; NONCE_BYTES],
        data: data.to_vec(),
        reach: Vec::new(),
    }
}

#[tokio::test]
async fn an_echo_is_not_delivered_and_a_broken_message_neither() {
    let gossip = gossip();
    let (one, other) = (PeerId::random(), PeerId::random());
    let mut inbox = gossip.subscribe("t");
    gossip.on_push(one, push(b"x"));
    gossip.on_push(other, push(b"x"));
    let mut short = push(b"y");
    short.nonce.pop();
    gossip.on_push(one, short);
    assert_eq!(inbox.recv().await.unwrap().peer, one);
    assert!(inbox.messages.try_recv().is_err());
}

#[tokio::test]
async fn who_forges_is_not_heard_and_what_is_not_passed_on_is_not_offered() {
    let gossip = gossip();
    let (one, other) = (PeerId::random(), PeerId::random());
    let mut inbox = gossip.subscribe("t");
    gossip.on_push(one, push(b"good"));
    let good = inbox.recv().await.unwrap();
    assert!(gossip.lock().offered.is_empty());
    gossip.pass_on(good);
    assert_eq!(gossip.lock().offered.len(), 1);
    for _ in 0..8 {
        gossip.fault(one, Fault::Forged);
    }
    assert_eq!(gossip.resting(), 1);
    gossip.on_push(one, push(b"more"));
    assert!(inbox.messages.try_recv().is_err());
    gossip.on_push(other, push(b"more"));
    assert_eq!(
        inbox.recv().await.unwrap().peer,
        other,
        "the same from an honest one"
    );
}

#[tokio::test]
async fn what_is_offered_is_wanted_once_and_then_from_the_next() {
    let gossip = gossip();
    let (one, other) = (PeerId::random(), PeerId::random());
    let id = id_of(&push(b"x"));
    gossip.on_have(one, &[id.to_vec()]);
    gossip.on_have(other, &[id.to_vec()]);
    assert_eq!(gossip.lock().wanted[&id].of, one);
    gossip.on_disconnected(one);
    assert_eq!(gossip.lock().wanted[&id].of, other, "the first is gone");
    gossip.on_push(other, push(b"x"));
    assert!(gossip.lock().wanted.is_empty());
}

#[tokio::test]
async fn a_subscriber_that_reads_nothing_costs_a_bounded_amount() {
    let gossip = gossip();
    let peer = PeerId::random();
    let mut inbox = gossip.subscribe("t");
    let large = vec![0; MAX_MESSAGE_BYTES];
    let room = MAX_UNREAD_BYTES / MAX_MESSAGE_BYTES;
    for number in 0..room + 5 {
        let mut message = push(&large);
        message.nonce[..8].copy_from_slice(&(number as u64).to_be_bytes());
        gossip.on_push(peer, message);
    }
    for _ in 0..room {
        gossip.pass_on(inbox.messages.try_recv().unwrap());
    }
    assert!(gossip.lock().offered_bytes <= MAX_OFFERED_BYTES);
    assert!(inbox.messages.try_recv().is_err(), "the rest was dropped");
}
