//! How many entries are final a second when the chain is full, and how long one takes at fifty a second. Once as transfers
//! for the coin in its container, and once as notes, which are native and change nothing, so that container and chain can
//! be told apart. Beside it where one node's time goes.

use instar::demo::stage::Stage;
use instar::demo::traffic::quantile;
use serde_json::json;

use super::load::{ACCOUNTS, MEASURED, part, saturate, signers, trickle};

/// The last line of the benchmark.
pub fn measure(stage: &Stage<'_>) -> serde_json::Value {
    let mut signers = signers(stage.chain);
    let mut report = serde_json::Map::new();
    for topic in ["coin", "note"] {
        stage
            .talk
            .title(&format!("Fifty entries a second, topic {topic}"));
        let slow = part(stage, &mut signers, trickle, topic);
        stage
            .talk
            .title(&format!("As many as the chain takes, topic {topic}"));
        let full = part(stage, &mut signers, saturate, topic);
        let said = json!({
            "final_ms_p50": quantile(&slow.times, 0.5).round(),
            "final_ms_p99": quantile(&slow.times, 0.99).round(),
            "entries_at_50": slow.times.len(),
            "ms_a_block_at_50": slow.spent_ms,
            "final_per_second": (full.times.len() as f64 / MEASURED.as_secs_f64()).round(),
            "saturated_ms_p50": quantile(&full.times, 0.5).round(),
            "ms_a_block_saturated": full.spent_ms,
            "rejected": slow.refused + full.refused,
        });
        report.insert(topic.to_owned(), said);
    }
    json!({"accounts": ACCOUNTS, "topics": report})
}
