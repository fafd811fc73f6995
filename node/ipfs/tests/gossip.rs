//! Messages: fast to neighbours, once to everybody, and not lost over a short absence.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use instar_ipfs::{MAX_MESSAGE_BYTES, PublishError, Subscription};
use support::{Node, bytes, connected, mesh, peer, until};

async fn next(subscription: &mut Subscription) -> instar_ipfs::Message {
    tokio::time::timeout(Duration::from_secs(10), subscription.recv())
        .await
        .expect("a message comes")
        .expect("the peer runs")
}

async fn nothing_more(subscription: &mut Subscription) {
    let extra = tokio::time::timeout(Duration::from_millis(300), subscription.recv()).await;
    assert!(extra.is_err(), "a message came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_every_neighbour_within_milliseconds() {
    let nodes = mesh(4).await;
    let mut topics: Vec<Subscription> = nodes[1..]
        .iter()
        .map(|n| n.peer.subscribe("lanes"))
        .collect();
    let mut other = nodes[1].peer.subscribe("other");
    for size in [100, 100, 100_000, 2 * 1024 * 1024, MAX_MESSAGE_BYTES] {
        let message = bytes(size, size as u64);
        let started = Instant::now();
        assert_eq!(nodes[0].peer.publish("lanes", &message).unwrap(), 3);
        for topic in &mut topics {
            let got = next(topic).await;
            assert_eq!(got.peer, nodes[0].peer.id(), "from the publisher itself");
            assert!(got.bytes == message);
        }
        let took = started.elapsed();
        eprintln!("{size} bytes to three peers in {took:?}");
        // The bound is for an unoptimised build on a busy machine; a retry would take seconds.
        let bound = Duration::from_secs(1) + Duration::from_secs(3) * (size as u32 >> 20);
        assert!(took < bound, "{size} bytes took {took:?}");
    }
    for topic in &mut topics {
        nothing_more(topic).await;
    }
    nothing_more(&mut other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_crosses_a_swarm_that_is_a_line_and_comes_once() {
    let mut nodes = Vec::new();
    for seed in 1..=5 {
        let node = Node::start(seed).await;
        if let Some(last) = nodes.last() {
            let last: &Node = last;
            node.peer.connect(last.address());
            connected(&node.peer, 1).await;
        }
        nodes.push(node);
    }
    for node in &nodes[1..4] {
        let (peer, mut inbox) = (node.peer.clone(), node.peer.subscribe("t"));
        tokio::spawn(async move {
            while let Some(message) = inbox.recv().await {
                peer.pass_on(message);
            }
        });
    }
    let mut end = nodes[4].peer.subscribe("t");
    let mut middle = nodes[2].peer.subscribe("t");
    let message = bytes(1_000_000, 1);
    nodes[0].peer.publish("t", &message).unwrap();
    let got = next(&mut end).await;
    assert!(got.bytes == message);
    assert_eq!(got.peer, nodes[3].peer.id(), "the neighbour stands for it");
    assert!(next(&mut middle).await.bytes == message);
    // The same bytes published again are another message.
    nodes[0].peer.publish("t", &message).unwrap();
    assert!(next(&mut end).await.bytes == message);
    nothing_more(&mut end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_arrive_all_and_in_order() {
    let nodes = mesh(3).await;
    let mut inbox = nodes[1].peer.subscribe("t");
    for number in 0..2000_u32 {
        nodes[0].peer.publish("t", &number.to_be_bytes()).unwrap();
    }
    for number in 0..2000_u32 {
        assert_eq!(next(&mut inbox).await.bytes, number.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_that_returns_is_connected_again_and_has_missed_nothing() {
    let nodes = mesh(4).await;
    let victim = &nodes[3];
    let address = victim.address();
    victim.peer.shutdown().await;
    for node in &nodes[..3] {
        until("the others to notice", || node.peer.connected().len() == 2).await;
    }
    // Published while it is away.
    assert_eq!(nodes[0].peer.publish("t", b"missed").unwrap(), 2);
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The same key on the same address; it dials nobody itself.
    let listen = address.iter().take(2).collect();
    let started = Instant::now();
    let back = peer(victim.seed, listen, &victim.store, None).await;
    let mut inbox = back.subscribe("t");
    connected(&back, 3).await;
    eprintln!("connected again after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(next(&mut inbox).await.bytes, b"missed");
    for node in &nodes[..3] {
        connected(&node.peer, 3).await;
    }
    nodes[1].peer.publish("t", b"new").unwrap();
    assert_eq!(next(&mut inbox).await.bytes, b"new");
    nothing_more(&mut inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_published_the_moment_a_peer_connects_arrives() {
    for round in 0..20 {
        let (a, b) = (Node::start(1).await, Node::start(2).await);
        let mut inbox = b.peer.subscribe("t");
        a.peer.connect(b.address());
        if round % 2 == 0 {
            let mut watch = a.peer.watch_connected();
            while watch.borrow_and_update().is_empty() {
                watch.changed().await.unwrap();
            }
        }
        a.peer.publish("t", b"first").unwrap();
        assert_eq!(next(&mut inbox).await.bytes, b"first", "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_not_published() {
    let node = Node::start(1).await;
    let large = vec![0; MAX_MESSAGE_BYTES + 1];
    assert!(matches!(
        node.peer.publish("t", &large),
        Err(PublishError::TooLarge { .. })
    ));
    assert_eq!(node.peer.publish("", b"x"), Err(PublishError::Topic));
    assert_eq!(
        node.peer.publish(&"x".repeat(129), b"x"),
        Err(PublishError::Topic)
    );
    assert_eq!(node.peer.publish("t", b"alone").unwrap(), 0);
    let mut inbox = node.peer.subscribe("t");
    node.peer.shutdown().await;
    assert_eq!(inbox.recv().await, None, "nothing comes after the end");
}
