//! `instar get`: content by its address, from any mix of sources, every block hashed before it is used.

mod have;

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use cid::Cid;
use instar_chunks::{BlockStore, Limits, Links, export_with, read};
use instar_ipfs::dht::DhtConfig;
use instar_ipfs::sources::{
    CarSource, Fetching, Gateway, Kubo, MixedReport, Source, SwarmSource, fetch_mixed,
};
use instar_ipfs::{Peer, PeerConfig};
use instar_node::deltas::Outcome;
use serde_json::json;

use crate::dht::DhtArgs;
use crate::exit::facts;
use crate::store::{StoreArgs, human};

/// How long a peer that was named may take to be connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two lines of progress on a terminal.
const PROGRESS_EVERY_MS: u64 = 200;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  instar get bafybei… -o coin-2 --node http://127.0.0.1:8080
  instar get bafybei…/x86_64-unknown-linux-gnu -o bin --gateway https://ipfs.example --peer /ip4/10.0.0.7/tcp/4001/p2p/12D3…
  instar get bafybei… -o coin-2 --car coin-2.car
  instar get bafybei… -o coin-2 --dht /ip4/203.0.113.7/tcp/4001/p2p/12D3…
  instar get bafybei…/x86_64-unknown-linux-gnu -o new --have old --peer /ip4/10.0.0.7/tcp/4001/p2p/12D3…
  instar get bafybei… -o coin-2                      what the local store holds

Nobody is trusted: each block is hashed before it is used. Sources work side by side; one that lies,
fails or dawdles is dropped and named. What came stays in the local store, so that the same command
goes on where it broke off; `instar store gc` forgets it.")]
pub struct Args {
    /// The CID, or CID/PATH/INSIDE for a part of a folder: nothing else is fetched then
    cid: String,
    /// Where to write it; must not exist
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    #[command(flatten)]
    from: Sources,
    #[command(flatten)]
    have: have::HaveArgs,
    /// Write symbolic links that lead out of the output too; whoever follows one may end up anywhere
    #[arg(long)]
    unsafe_links: bool,
    /// Most content bytes to take (500MB, 20GiB)
    #[arg(long, value_name = "BYTES", default_value = "16GiB", value_parser = crate::store::parse_bytes)]
    max_bytes: u64,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Who may have it.
#[derive(clap::Args)]
pub struct Sources {
    /// A node of ours; may be given several times
    #[arg(long, value_name = "URL", env = "INSTAR_NODE", value_delimiter = ',')]
    node: Vec<String>,
    /// A trustless IPFS gateway; may be given several times
    #[arg(long, value_name = "URL")]
    gateway: Vec<String>,
    /// A peer to ask over bitswap, with its id; may be given several times
    #[arg(long, value_name = "MULTIADDR")]
    peer: Vec<String>,
    /// The RPC of a Kubo node; may be given several times
    #[arg(long, value_name = "URL")]
    kubo: Vec<String>,
    /// A CAR file; may be given several times
    #[arg(long, value_name = "FILE")]
    car: Vec<PathBuf>,
    #[command(flatten)]
    dht: DhtArgs,
}

/// Sources that are open, and what keeps them so.
pub(crate) struct Open {
    sources: Vec<Box<dyn Source>>,
    peer: Option<(tokio::runtime::Runtime, Peer)>,
    dht: bool,
}

impl Open {
    /// The sources, in the order in which they were named.
    pub(crate) fn sources(&self) -> &[Box<dyn Source>] {
        &self.sources
    }

    /// Has the DHT asked who has this, if there is one, and waits for the first of them where no peer was named.
    pub(crate) fn seek(&self, root: &Cid) {
        let Some((runtime, peer)) = &self.peer else {
            return;
        };
        if !self.dht {
            return;
        }
        let mut connected = peer.watch_connected();
        let lookup = {
            let (peer, root) = (peer.clone(), *root);
            runtime.spawn(async move { peer.seek(&root).await })
        };
        runtime.block_on(async {
            let any = async {
                let _ = connected.wait_for(|peers| !peers.is_empty()).await;
            };
            tokio::select! {
                () = any => {}
                found = lookup => match found {
                    Ok(0) | Err(_) => eprintln!("warning: the DHT leads to nobody who has {root}"),
                    Ok(_) => {
                        // Found, and not connected yet.
                        let any = connected.wait_for(|peers| !peers.is_empty());
                        if tokio::time::timeout(CONNECT_TIMEOUT, any).await.is_err() {
                            eprintln!("warning: nobody that the DHT leads to answers");
                        }
                    }
                },
            }
        });
    }
}

impl Sources {
    /// Opens what was named.
    pub(crate) fn open(&self, store: &Arc<BlockStore>) -> Result<Open> {
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        for path in &self.car {
            let car = CarSource::open(path).with_context(|| path.display().to_string())?;
            sources.push(Box::new(car));
        }
        for base in self.node.iter().chain(&self.gateway) {
            sources.push(Box::new(Gateway::new(base)));
        }
        for base in &self.kubo {
            sources.push(Box::new(Kubo::new(base)));
        }
        let mut peer = None;
        let dht = self.dht.config(false)?;
        let has_dht = dht.is_some();
        if !self.peer.is_empty() || dht.is_some() {
            let through_dht = dht.as_ref().map(|_| "peers of the DHT");
            let named = self.peer.iter().map(String::as_str).chain(through_dht);
            let name = format!("bitswap {}", named.collect::<Vec<_>>().join(" "));
            let (runtime, started) = self.dial(store, dht)?;
            sources.push(Box::new(SwarmSource::new(
                &started,
                runtime.handle().clone(),
                name,
            )));
            peer = Some((runtime, started));
        }
        Ok(Open {
            sources,
            peer,
            dht: has_dht,
        })
    }

    fn dial(
        &self,
        store: &Arc<BlockStore>,
        dht: Option<DhtConfig>,
    ) -> Result<(tokio::runtime::Runtime, Peer)> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| anyhow!("no randomness: {e}"))?;
        let peer = runtime.block_on(async {
            let peer = Peer::start(PeerConfig {
                seed,
                listen: "/ip4/127.0.0.1/tcp/0".parse()?,
                store: store.clone(),
                dht,
            })
            .await?;
            let mut connected = peer.watch_connected();
            for address in &self.peer {
                let address = address
                    .parse()
                    .with_context(|| format!("{address:?} is no multiaddress"))?;
                peer.connect(address);
            }
            if self.peer.is_empty() {
                return Ok(peer);
            }
            // One is enough to begin with; the others join when they answer.
            let any = connected.wait_for(|peers| !peers.is_empty());
            if tokio::time::timeout(CONNECT_TIMEOUT, any).await.is_err() {
                eprintln!("warning: no peer answers at {}", self.peer.join(", "));
            }
            Ok::<_, anyhow::Error>(peer)
        })?;
        Ok((runtime, peer))
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        args.output.symlink_metadata().is_err(),
        "{} exists; nothing is overwritten",
        args.output.display()
    );
    let text = args.cid.strip_prefix("/ipfs/").unwrap_or(&args.cid);
    let (root, path) = match text.split_once('/') {
        Some((root, path)) => (root, Some(path.trim_matches('/')).filter(|p| !p.is_empty())),
        None => (text, None),
    };
    let root: Cid = root
        .parse()
        .with_context(|| format!("{root:?} is no CID; they look like bafybei…, bafkrei… or Qm…"))?;
    let limits = Limits {
        max_total_bytes: args.max_bytes,
        ..Limits::default()
    };
    let store = Arc::new(args.store.open()?);
    let open = args.from.open(&store)?;
    open.seek(&root);
    let _lease = instar_chunks::Blocks::lease(&*store);
    let cid = match path {
        None => root,
        Some(path) => {
            let fetching = Fetching::new(&*store, &open.sources);
            let found = read::resolve(&fetching, &root, path, &limits);
            for liar in fetching.liars() {
                eprintln!("warning: dropped {liar}");
            }
            found?
        }
    };
    let peer = open.peer.as_ref();
    let delta = args.have.obtain(
        peer.map(|(runtime, peer)| (runtime.handle(), peer)),
        &store,
        &cid,
        beside(&args.output),
        &limits,
    )?;
    let progress = Progress::new();
    let fetched = fetch_mixed(&*store, &open.sources, &cid, &limits, &|blocks, bytes| {
        progress.show(blocks, bytes);
    });
    progress.end();
    let report = fetched?;
    let links = match args.unsafe_links {
        true => Links::UnsafeAnywhere,
        false => Links::Inside,
    };
    let written = export_with(&*store, &cid, None, &args.output, &limits, links)?;
    for source in &open.sources {
        for liar in source.liars() {
            eprintln!("warning: dropped {liar}");
        }
    }
    tell(args, &cid, &report, delta.as_ref(), written)
}

/// The folder that the output stands in: there is to be room for it there.
fn beside(output: &Path) -> &Path {
    match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn tell(
    args: &Args,
    cid: &Cid,
    report: &MixedReport,
    delta: Option<&Outcome>,
    written: u64,
) -> Result<()> {
    let sources: Vec<_> = report
        .sources
        .iter()
        .map(
            |s| json!({"name": s.name, "blocks": s.blocks, "bytes": s.bytes, "dropped": s.dropped}),
        )
        .collect();
    let value = json!({
        "cid": cid.to_string(),
        "path": args.output,
        "content_bytes": written,
        "blocks": report.blocks,
        "fetched_blocks": report.fetched_blocks,
        "fetched_bytes": report.fetched_bytes,
        "sources": sources,
        "delta": delta.map(have::value),
    });
    facts(args.json, &value, |_| {
        let mut text = format!(
            "{cid} in {} ({}; {} blocks, each verified, {} of them fetched)",
            args.output.display(),
            human(written),
            report.blocks,
            report.fetched_blocks
        );
        if let Some(delta) = delta {
            text.push('\n');
            text.push_str(&have::words(delta));
        }
        for source in &report.sources {
            // Writing to a string can't fail.
            let _ = match &source.dropped {
                Some(why) => write!(text, "\ndropped {}: {why}", source.name),
                None => write!(text, "\n{} blocks from {}", source.blocks, source.name),
            };
        }
        text
    })
}

/// One line that is written over, on a terminal only.
struct Progress {
    start: Instant,
    shown_ms: AtomicU64,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            shown_ms: AtomicU64::new(0),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    fn show(&self, blocks: usize, bytes: u64) {
        if !self.terminal {
            return;
        }
        let now = self.start.elapsed().as_millis() as u64;
        if now.saturating_sub(self.shown_ms.load(Ordering::Relaxed)) < PROGRESS_EVERY_MS {
            return;
        }
        self.shown_ms.store(now, Ordering::Relaxed);
        // Talk that can't be written is no failure.
        let _ = write!(std::io::stderr(), "\r{blocks} blocks, {}    ", human(bytes));
    }

    fn end(&self) {
        if self.shown_ms.load(Ordering::Relaxed) > 0 {
            let _ = writeln!(std::io::stderr());
        }
    }
}
