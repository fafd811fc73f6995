//! A peer by hand, for trying other IPFS implementations against it.
//!
//! `swarm serve FILE` prints an address and a CID and serves the file until it is killed;
//! `swarm get ADDRESS CID` fetches a DAG from that address and prints what it took. `RUST_LOG`
//! chooses what is logged.

use std::sync::Arc;
use std::time::Instant;

use instar_chunks::{BlockStore, Limits, Profile, add_file, read_file};
use instar_ipfs::{Peer, PeerConfig};

type AnyError = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = tempfile::tempdir()?;
    let store = Arc::new(BlockStore::open(&folder.path().join("blocks"))?);
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let peer = Peer::start(PeerConfig {
        seed,
        listen: "/ip4/127.0.0.1/tcp/0".parse()?,
        store: store.clone(),
        dht: None,
    })
    .await?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", path] => {
            let mut batch = store.batch();
            let mut file = std::fs::File::open(path)?;
            let summary = add_file(Profile::InstarCdcV1, &mut file, &mut |cid, block| {
                batch.put(cid, block)
            })?;
            batch.commit()?;
            println!("{} {}", peer.addresses()[0], summary.cid);
            std::future::pending::<()>().await;
        }
        ["get", address, cid] => {
            peer.connect(address.parse()?);
            let root = cid.parse()?;
            let started = Instant::now();
            let report = peer.fetch(&root, &Limits::default()).await?;
            let took = started.elapsed();
            let content = read_file(store.as_ref(), &root, Limits::MAX_TOTAL_BYTES)?;
            println!(
                "{} blocks, {} bytes of content in {took:?} ({:.0} MB/s), refused: {:?}",
                report.blocks,
                content.len(),
                report.bytes as f64 / took.as_secs_f64() / 1e6,
                report.refused,
            );
        }
        _ => return Err("swarm serve FILE | swarm get ADDRESS CID".into()),
    }
    Ok(())
}
