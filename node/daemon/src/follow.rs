//! Following the trunk over HTTP: what a node does that is no validator.
//!
//! A follower asks any node for certified blocks, checks each certificate against the validators that the block before
//! it fixed, and runs the merge test itself. So it needs nobody's word, costs the validators a few HTTP answers, and
//! never joins their consensus swarm.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::{Duration, Instant};

use instar_chain::query;
use instar_chain::upgrade::Phase;
use instar_chunks::Limits;
use instar_ipfs::sources::{Gateway, Source, SwarmSource, fetch_mixed};
use instar_ledger::sync::{self, MAX_SYNC_BYTES, SyncedBlock};

use crate::core::CoreError;
use crate::node::Shared;

/// How long a source holds a question for a block that is not final yet.
const HOLD: Duration = Duration::from_secs(5);
/// How long it may take to reach a source; another may be near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take beyond that: a few blocks over a slow line.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a source that failed or lied is left alone.
const REST: Duration = Duration::from_secs(10);
/// Between two tries when no source can be asked.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of a refusal that are shown.
const MAX_WORDS_BYTES: u64 = 300;
/// The largest image of a dapp that is fetched.
const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// A node that is asked for blocks.
#[derive(Clone)]
struct Upstream {
    url: String,
    agent: ureq::Agent,
    rests_until: Option<Instant>,
}

/// What asks other nodes over HTTP.
pub(crate) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(HOLD + ANSWER_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .http_status_as_error(false)
        .proxy(None)
        .user_agent("instar")
        .build();
    config.into()
}

impl Upstream {
    fn new(url: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            agent: agent(),
            rests_until: None,
        }
    }

    fn rests(&self) -> bool {
        self.rests_until.is_some_and(|t| Instant::now() < t)
    }

    /// The next blocks, at least one; none if there is none yet.
    fn ask(&self, height: u64) -> Result<Vec<SyncedBlock>, String> {
        let url = format!("{}/v1/sync/{height}?wait_ms={}", self.url, HOLD.as_millis());
        let mut response = self.agent.get(&url).call().map_err(|e| e.to_string())?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(Vec::new()),
            status => {
                // A node that does not have it any more says here where its history begins.
                let mut said = String::new();
                let _ = response
                    .body_mut()
                    .as_reader()
                    .take(MAX_WORDS_BYTES)
                    .read_to_string(&mut said);
                return Err(format!("it answers with the status {status}: {said}"));
            }
        }
        let mut bytes = Vec::new();
        response
            .body_mut()
            .as_reader()
            .take(MAX_SYNC_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| e.to_string())?;
        sync::read(&bytes).map_err(|e| e.to_string())
    }
}

/// Follows until this node is a validator; returns at once if it is one, or has nobody to follow.
pub(crate) async fn until_validator(node: &Shared) {
    let mut upstreams: Vec<Upstream> = node
        .config
        .follow
        .iter()
        .map(|u| Upstream::new(u))
        .collect();
    if upstreams.is_empty() || is_validator(node).await {
        return;
    }
    tracing::info!(from = ?node.config.follow, "no validator: this node follows");
    let mut ready = BTreeSet::new();
    // The first that was named is asked first.
    for turn in (0..upstreams.len()).cycle() {
        if is_validator(node).await {
            break;
        }
        if upstreams[turn].rests() {
            if upstreams.iter().all(Upstream::rests) {
                tokio::time::sleep(PAUSE).await;
            }
            continue;
        }
        // As long as one brings blocks it is asked on; without news another one may know more.
        loop {
            match advance(node, &upstreams[turn], &mut ready).await {
                Ok(true) if !is_validator(node).await => {}
                Ok(_) => break,
                Err(why) => {
                    let upstream = &mut upstreams[turn];
                    tracing::warn!(from = %upstream.url, why, "a source of blocks failed and rests");
                    upstream.rests_until = Some(Instant::now() + REST);
                    break;
                }
            }
        }
    }
    tracing::info!(height = node.height(), "this node is a validator now");
}

async fn is_validator(node: &Shared) -> bool {
    node.with_core(|core| core.is_validator()).await
}

/// Asks one source and makes final what it gives. Whether there was anything.
async fn advance(
    node: &Shared,
    upstream: &Upstream,
    ready: &mut BTreeSet<String>,
) -> Result<bool, String> {
    let next = node.height() + 1;
    let asking = upstream.clone();
    let asked = tokio::task::spawn_blocking(move || asking.ask(next));
    let blocks = asked.await.map_err(|e| e.to_string())??;
    let any = !blocks.is_empty();
    for SyncedBlock { certificate, pack } in blocks {
        have_images(node, &upstream.url, ready).await?;
        let height = node
            .with_core(move |core| {
                core.follow(&certificate, &pack)?;
                Ok::<_, CoreError>(core.head().height)
            })
            .await
            .map_err(|e| e.to_string())?;
        node.height.send_replace(height);
    }
    Ok(any)
}

/// Fetches the images of the dapps that the next block may call: those that are live, and those about to be.
async fn have_images(node: &Shared, url: &str, ready: &mut BTreeSet<String>) -> Result<(), String> {
    let wanted = wanted_images(node).map_err(|e| e.to_string())?;
    for (name, release) in wanted {
        if ready.contains(&release) {
            continue;
        }
        let root = release.parse().map_err(|e| format!("{release}: {e}"))?;
        let sources: Vec<Box<dyn Source>> = vec![
            Box::new(Gateway::new(url)),
            Box::new(SwarmSource::new(
                &node.peer,
                tokio::runtime::Handle::current(),
                "the data swarm".into(),
            )),
        ];
        let store = node.blocks.clone();
        let limits = Limits {
            max_total_bytes: MAX_IMAGE_BYTES,
            ..Limits::default()
        };
        let fetched = tokio::task::spawn_blocking(move || {
            fetch_mixed(&*store, &sources, &root, &limits, &|_, _| {})
                .map_err(|e| e.to_string())?;
            store.pin(&name, &root).map_err(|e| e.to_string())
        });
        fetched.await.map_err(|e| e.to_string())??;
        ready.insert(release);
    }
    Ok(())
}

fn wanted_images(node: &Shared) -> Result<Vec<(String, String)>, CoreError> {
    let view = node.view()?;
    let live = query::slots(&view)?.into_iter().filter_map(|(name, slot)| {
        let dapp = name.starts_with("dapps/") && !slot.release.is_empty();
        dapp.then(|| (format!("{name}/{}", slot.number), slot.release))
    });
    let coming = query::open_proposals(&view)?
        .into_iter()
        .filter(|p| p.slot.dapp_name().is_some() && p.phase == Phase::Scheduled)
        .map(|p| (format!("{}/{}", p.slot, p.number), p.release.to_string()));
    Ok(live.chain(coming).collect())
}
