//! Content routing over a DHT: a provider whom nobody named is found, passers are no peers, and without a configuration
//! there is nothing.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use instar_chunks::{Limits, read_file};
use instar_ipfs::dht::{DhtConfig, DhtConfigError, DhtNetwork};
use instar_ipfs::{FetchError, FetchOptions, Multiaddr};
use support::{Node, bytes};
use tokio::time::{sleep, timeout};

/// Nothing here takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that takes part, and starts from these members.
async fn member(seed: u8, bootstrap: &[Multiaddr], serve: bool) -> Node {
    let dht = DhtConfig {
        bootstrap: bootstrap.to_vec(),
        network: DhtNetwork::Lan,
        serve,
    };
    dht.check().unwrap();
    Node::start_in(seed, Some(dht)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_nobody_named_is_found() {
    let router = member(1, &[], true).await;
    let start = [router.peer.addresses()[0].clone()];
    // Another member, so that a lookup has somebody to pass.
    let bystander = member(2, &start, true).await;
    let holder = member(3, &start, true).await;
    let content = bytes(3_000_000, 7);
    let root = holder.add(&content);
    holder.peer.provide(&root);

    let seeker = member(4, &start, false).await;
    // The announcement may still be on its way: the fetch asks again.
    let fetching = async {
        let options = FetchOptions {
            stall: PATIENCE,
            ..FetchOptions::default()
        };
        seeker.peer.fetch_with(&root, options).await
    };
    let report = timeout(PATIENCE, fetching).await.unwrap().unwrap();
    assert_eq!(report.sources.get(&holder.peer.id()), Some(&report.blocks));
    assert!(read_file(seeker.store.as_ref(), &root, 1 << 30).unwrap() == content);
    // The provider is a peer now. Whom the lookup passed is none, and is hung up on.
    assert_eq!(seeker.peer.connected(), [holder.peer.id()]);
    timeout(PATIENCE, async {
        while router.peer.connected().contains(&seeker.peer.id()) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the seeker hangs up on the router");
    assert!(!bystander.peer.connected().contains(&seeker.peer.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_configuration_nobody_is_asked() {
    let router = member(1, &[], true).await;
    let holder = member(2, &[router.peer.addresses()[0].clone()], true).await;
    let root = holder.add(&bytes(1000, 1));
    holder.peer.provide(&root);
    let alone = Node::start(3).await;
    alone.peer.connect(router.peer.addresses()[0].clone());
    assert_eq!(alone.peer.seek(&root).await, 0);
    alone.peer.provide(&root);
    let options = FetchOptions {
        limits: Limits::default(),
        stall: Duration::from_secs(3),
        ..FetchOptions::default()
    };
    let refused = alone.peer.fetch_with(&root, options).await.unwrap_err();
    assert!(matches!(refused, FetchError::Stalled { .. }), "{refused}");
    assert_eq!(alone.peer.connected(), [router.peer.id()]);
}

#[test]
fn a_configuration_that_leads_nowhere_is_refused() {
    let config = |bootstrap: &[&str], serve| DhtConfig {
        bootstrap: bootstrap.iter().map(|a| a.parse().unwrap()).collect(),
        network: DhtNetwork::Public,
        serve,
    };
    assert!(matches!(
        config(&[], false).check(),
        Err(DhtConfigError::Nobody)
    ));
    assert!(config(&[], true).check().is_ok());
    assert!(matches!(
        config(&["/ip4/127.0.0.1/tcp/1"], true).check(),
        Err(DhtConfigError::NoPeer(_))
    ));
}
