//! How fresh a follower is: it asks validators for their heads, with a nonce that they sign.

use std::io::Read as _;
use std::time::{Duration, Instant};

use instar_attest::{Digest, json};
use instar_ledger::freshness::{Freshness, MAX_SIGNED_HEAD_BYTES, SignedHead, weigh};

use crate::follow;
use crate::node::Shared;

/// How often a follower asks. A door that knows within so many seconds that it was cut off is soon enough.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// How long the blocks that validators told of may take to arrive here before the answers are weighed.
const SETTLE: Duration = Duration::from_secs(2);

/// When the last question was asked that showed that nothing newer was final; none after a start.
#[derive(Debug, Default)]
pub(crate) struct Known(std::sync::Mutex<Option<Instant>>);

impl Known {
    fn set(&self, asked: Instant) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(asked);
    }

    /// How long ago that was: what this node says is at most so old.
    pub(crate) fn age(&self) -> Option<Duration> {
        let asked = *self.0.lock().unwrap_or_else(|e| e.into_inner());
        asked.map(|at| at.elapsed())
    }
}

/// Asks as long as this node follows; waits for ever where it has nobody to follow.
pub(crate) async fn ask_loop(node: Shared) {
    if node.config.follow.is_empty() {
        std::future::pending::<()>().await;
    }
    loop {
        if !node.with_core(|core| core.is_validator()).await {
            match ask(&node).await {
                Ok(()) => {}
                Err(why) => tracing::warn!(why, "it can't be told how fresh this node is"),
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Asks everybody one question.
async fn ask(node: &Shared) -> Result<(), String> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|e| e.to_string())?;
    let nonce = Digest::from_bytes(nonce);
    let asked = Instant::now();
    let questions: Vec<_> = node
        .config
        .follow
        .iter()
        .map(|base| format!("{}/v1/head?nonce={nonce}", base.trim_end_matches('/')))
        .map(|url| tokio::task::spawn_blocking(move || answer_of(&url)))
        .collect();
    let mut answers = Vec::new();
    for question in questions {
        match question.await.map_err(|e| e.to_string())? {
            Ok(answer) => match answer.verify(&node.chain, &nonce) {
                Ok(()) => answers.push(answer),
                Err(why) => {
                    tracing::warn!(validator = %answer.validator, %why, "a signed head is refused")
                }
            },
            Err(why) => tracing::debug!(why, "no signed head"),
        }
    }
    let mut outcome = weighed(node, &answers).await;
    if let Freshness::Unknown { claimed, .. } = outcome {
        // What was final for others when they were asked may be on its way; what a liar claims never comes.
        let mut heights = node.height.subscribe();
        let arrived = heights.wait_for(|height| *height >= claimed);
        let _ = tokio::time::timeout(SETTLE, arrived).await;
        outcome = weighed(node, &answers).await;
    }
    match outcome {
        Freshness::Fresh => {
            node.fresh.set(asked);
            Ok(())
        }
        Freshness::Unknown { power, of, claimed } => Err(format!(
            "validators with a power of {power} of {of} know of nothing newer than this node, more than a third is \
             needed; heights up to {claimed} are claimed. Name more validators under `follow` in node.json"
        )),
    }
}

async fn weighed(node: &Shared, answers: &[SignedHead]) -> Freshness {
    let answers = answers.to_vec();
    node.with_core(move |core| {
        let head = core.head();
        weigh(&head.validators, head.height, &head.block, &answers)
    })
    .await
}

fn answer_of(url: &str) -> Result<SignedHead, String> {
    let mut response = follow::agent().get(url).call().map_err(|e| e.to_string())?;
    if response.status() != 200 {
        return Err(format!(
            "{url} answers with the status {}",
            response.status()
        ));
    }
    let mut bytes = Vec::new();
    response
        .body_mut()
        .as_reader()
        .take(MAX_SIGNED_HEAD_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    json::from_slice(&bytes, MAX_SIGNED_HEAD_BYTES).map_err(|e| e.to_string())
}
