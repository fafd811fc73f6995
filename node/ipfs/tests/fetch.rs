//! Fetching from peers over loopback: whole, shared out, from liars, and within bounds.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use instar_chunks::block::{DAG_PB, RAW};
use instar_chunks::node::{FileLink, encode_file};
use instar_chunks::{BlockError, Blocks, Cid, DagError, Limits, MemoryBlocks, missing, read_file};
use instar_ipfs::{FetchError, FetchOptions, Peer, PeerConfig, Progress};
use support::{Node, bytes, connected, mesh};

const TWO_THREADS: usize = 2;

fn run(test: impl Future<Output = ()>) {
    let _ = tracing_subscriber::fmt()
        .with_env_filter("instar_ipfs=debug")
        .with_test_writer()
        .try_init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(TWO_THREADS)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(120), test)
                .await
                .expect("the test ends");
        });
}

#[test]
fn twenty_megabytes_from_peers() {
    run(async {
        let nodes = mesh(4).await;
        let content = bytes(20_000_000, 1);
        let root = nodes[0].add(&content);
        nodes[1].add(&content);
        let mut seen: Vec<Progress> = Vec::new();
        let started = std::time::Instant::now();
        let report = nodes[2]
            .peer
            .fetch_with(
                &root,
                FetchOptions {
                    progress: Some(&mut |now| seen.push(now)),
                    ..FetchOptions::default()
                },
            )
            .await
            .unwrap();
        eprintln!("20 MB in {:?}: {report:?}", started.elapsed());
        assert_eq!(report.fetched_blocks, report.blocks);
        assert_eq!(report.sources.len(), 2, "both holders served: {report:?}");
        assert!(report.refused.is_empty());
        assert_eq!(seen.len(), report.blocks);
        assert!(seen.is_sorted_by_key(|p| (p.blocks, p.bytes)));
        assert!(
            missing(nodes[2].store.as_ref(), &root, &Limits::default())
                .unwrap()
                .is_empty()
        );
        assert!(read_file(nodes[2].store.as_ref(), &root, 1 << 30).unwrap() == content);
        // Again costs nothing; and what was fetched is served on.
        let again = nodes[2]
            .peer
            .fetch(&root, &Limits::default())
            .await
            .unwrap();
        assert_eq!(again.fetched_blocks, 0);
        nodes[0].peer.shutdown().await;
        nodes[1].peer.shutdown().await;
        let report = nodes[3]
            .peer
            .fetch(&root, &Limits::default())
            .await
            .unwrap();
        assert_eq!(
            report.sources.keys().collect::<Vec<_>>(),
            [&nodes[2].peer.id()]
        );
        assert!(read_file(nodes[3].store.as_ref(), &root, 1 << 30).unwrap() == content);
    });
}

#[test]
fn an_interrupted_fetch_goes_on_where_it_was() {
    run(async {
        let source = Node::start(1).await;
        let content = bytes(12_000_000, 2);
        let root = source.add(&content);
        let getter = Node::start(2).await;
        getter.peer.connect(source.address());
        connected(&getter.peer, 1).await;
        // The source goes away in the middle.
        let peer = source.peer.clone();
        let mut count = 0;
        let error = getter
            .peer
            .fetch_with(
                &root,
                FetchOptions {
                    stall: Duration::from_secs(1),
                    progress: Some(&mut |_| {
                        count += 1;
                        if count == 150 {
                            let peer = peer.clone();
                            tokio::spawn(async move { peer.shutdown().await });
                        }
                    }),
                    ..FetchOptions::default()
                },
            )
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::Stalled { .. }), "{error}");
        let kept = getter.store.len().unwrap();
        assert!(kept >= 100, "{kept} blocks were kept");
        let other = Node::start(3).await;
        other.add(&content);
        getter.peer.connect(other.address());
        let report = getter.peer.fetch(&root, &Limits::default()).await.unwrap();
        assert_eq!(report.fetched_blocks as u64 + kept, report.blocks as u64);
        assert!(read_file(getter.store.as_ref(), &root, 1 << 30).unwrap() == content);
    });
}

#[test]
fn a_peer_that_appears_late_is_used() {
    run(async {
        let source = Node::start(1).await;
        let root = source.add(&bytes(300_000, 3));
        let getter = Node::start(2).await;
        let peer = getter.peer.clone();
        let fetch = tokio::spawn(async move { peer.fetch(&root, &Limits::default()).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        getter.peer.connect(source.address());
        fetch.await.unwrap().unwrap();
        // And so is a block that appears late.
        let content = bytes(300_000, 4);
        let root = Node::start(9).await.add(&content);
        let peer = getter.peer.clone();
        let fetch = tokio::spawn(async move { peer.fetch(&root, &Limits::default()).await });
        tokio::time::sleep(Duration::from_millis(400)).await;
        source.add(&content);
        fetch.await.unwrap().unwrap();
    });
}

/// A store that flips one bit in every leaf that it hands out.
struct Liar(Arc<dyn Blocks + Send + Sync>);

impl Blocks for Liar {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, BlockError> {
        let mut block = self.0.get(cid)?;
        if let Some(bytes) = &mut block
            && cid.codec() == RAW
        {
            bytes[0] ^= 1;
        }
        Ok(block)
    }
    fn has(&self, cid: &Cid) -> Result<bool, BlockError> {
        self.0.has(cid)
    }
    fn put(&self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        self.0.put(cid, bytes)
    }
}

#[test]
fn a_peer_that_sends_corrupted_blocks_is_named_and_left() {
    run(async {
        let honest = Node::start(1).await;
        let content = bytes(3_000_000, 5);
        let root = honest.add(&content);
        let liar = Peer::start(PeerConfig {
            seed: [7; 32],
            listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
            store: Arc::new(Liar(honest.store.clone())),
            dht: None,
        })
        .await
        .unwrap();
        let getter = Node::start(2).await;
        getter.peer.connect(liar.addresses()[0].clone());
        connected(&getter.peer, 1).await;
        let error = getter
            .peer
            .fetch_with(
                &root,
                FetchOptions {
                    stall: Duration::from_secs(1),
                    ..FetchOptions::default()
                },
            )
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                FetchError::Stalled {
                    refused: 1,
                    peers: 1,
                    ..
                }
            ),
            "{error}"
        );
        for cid in getter.store.list(None, 1000).unwrap() {
            assert_eq!(cid.codec(), DAG_PB, "no leaf came through");
        }
        getter.peer.connect(honest.address());
        connected(&getter.peer, 2).await;
        let report = getter.peer.fetch(&root, &Limits::default()).await.unwrap();
        let named: Vec<_> = report.refused.iter().map(|(peer, _)| *peer).collect();
        assert!(named.is_empty() || named == [liar.id()], "{report:?}");
        assert!(!report.sources.contains_key(&liar.id()), "{report:?}");
        assert!(read_file(getter.store.as_ref(), &root, 1 << 30).unwrap() == content);
    });
}

/// A store that takes longer for each leaf than anybody waits.
struct Sluggish(Arc<dyn Blocks + Send + Sync>);

impl Blocks for Sluggish {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, BlockError> {
        if cid.codec() == RAW {
            std::thread::sleep(Duration::from_secs(6));
        }
        self.0.get(cid)
    }
    fn has(&self, cid: &Cid) -> Result<bool, BlockError> {
        self.0.has(cid)
    }
    fn put(&self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        self.0.put(cid, bytes)
    }
}

#[test]
fn a_slow_peer_is_named_and_the_others_serve() {
    run(async {
        let honest = Node::start(1).await;
        let content = bytes(3_000_000, 7);
        let root = honest.add(&content);
        let slow = Peer::start(PeerConfig {
            seed: [7; 32],
            listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
            store: Arc::new(Sluggish(honest.store.clone())),
            dht: None,
        })
        .await
        .unwrap();
        let getter = Node::start(2).await;
        getter.peer.connect(honest.address());
        getter.peer.connect(slow.addresses()[0].clone());
        connected(&getter.peer, 2).await;
        let report = getter.peer.fetch(&root, &Limits::default()).await.unwrap();
        let named: Vec<_> = report.slow.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(named, [slow.id()], "{report:?}");
        assert!(report.refused.is_empty(), "slow is not a lie: {report:?}");
        assert!(read_file(getter.store.as_ref(), &root, 1 << 30).unwrap() == content);
    });
}

#[test]
fn a_dag_over_the_limits_is_refused_before_it_is_fetched() {
    run(async {
        let source = Node::start(1).await;
        let root = source.add(&bytes(2_000_000, 6));
        let getter = Node::start(2).await;
        getter.peer.connect(source.address());
        let limits = Limits {
            max_total_bytes: 500_000,
            ..Limits::default()
        };
        let error = getter.peer.fetch(&root, &limits).await.unwrap_err();
        let FetchError::Dag { source: cause, .. } = &error else {
            panic!("{error}");
        };
        assert!(
            matches!(cause, DagError::Limit { what: "bytes", .. }),
            "{cause}"
        );
        let limits = Limits {
            max_blocks: 10,
            ..Limits::default()
        };
        assert!(getter.peer.fetch(&root, &limits).await.is_err());
    });
}

#[test]
fn a_bomb_of_links_costs_only_its_few_blocks() {
    run(async {
        let memory = MemoryBlocks::default();
        let leaf = instar_chunks::block::cid_of(RAW, b"x");
        memory.put(&leaf, b"x").unwrap();
        let mut link = FileLink {
            cid: leaf,
            size: 1,
            dag_size: 1,
        };
        for _ in 0..6 {
            let (cid, bytes) = encode_file(&vec![link; 174]);
            memory.put(&cid, &bytes).unwrap();
            link = FileLink {
                cid,
                size: link.size * 174,
                dag_size: 1,
            };
        }
        let bomber = Peer::start(PeerConfig {
            seed: [8; 32],
            listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
            store: Arc::new(memory),
            dht: None,
        })
        .await
        .unwrap();
        let getter = Node::start(2).await;
        getter.peer.connect(bomber.addresses()[0].clone());
        let report = getter
            .peer
            .fetch(&link.cid, &Limits::default())
            .await
            .unwrap();
        assert_eq!(report.blocks, 7, "27 billion links, seven blocks");
        let error = read_file(getter.store.as_ref(), &link.cid, 1 << 20).unwrap_err();
        assert!(matches!(error, DagError::Limit { .. }));
    });
}

#[test]
fn nobody_has_it() {
    run(async {
        let nodes = mesh(3).await;
        let root = instar_chunks::block::cid_of(RAW, b"nobody has this");
        let error = nodes[0]
            .peer
            .fetch_with(
                &root,
                FetchOptions {
                    stall: Duration::from_millis(700),
                    ..FetchOptions::default()
                },
            )
            .await
            .unwrap_err();
        assert!(
            matches!(error, FetchError::Stalled { missing, peers: 2, .. } if missing == root),
            "{error}"
        );
    });
}
