//! What a node counts about itself, for Prometheus: where a block's time goes, first of all.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What a node does for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Phase {
    /// Signing and writing what this node appends to its own lane.
    Append,
    /// Unpacking and reading what others made: packs of lanes and blocks.
    Unpack,
    /// Checking lane commits and the signatures of their entries.
    Signatures,
    /// The merge test: native rules, and dapps in their containers.
    MergeTest,
    /// Computing the state's root.
    StateRoot,
    /// Making what was computed durable, before a vote leaves.
    Record,
    /// Writing a block and its pack.
    Pack,
    /// Making the state of a decided block durable.
    Commit,
    /// Making a decided block visible to readers: git's references, the index, the lanes.
    Publish,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct In {
    phase: Phase,
}

/// How a part of a release came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Came {
    /// By a delta from what is held.
    Delta,
    /// Block by block.
    Blocks,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct How {
    came: Came,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    rule: String,
}

/// The counters of one node.
#[derive(Debug, Default)]
pub struct Metrics {
    seconds: Family<In, Counter<f64, AtomicU64>>,
    blocks: Counter,
    entries: Counter,
    staged: Family<How, Counter>,
}

/// What is known at the moment of the question.
pub(crate) struct Now {
    pub height: u64,
    pub head_time_ms: u64,
    pub pending: usize,
    pub data_peers: usize,
    pub resting_peers: usize,
    pub fresh_ms: Option<u64>,
    pub nil_prevotes: std::collections::BTreeMap<String, u64>,
}

impl Metrics {
    /// A block became final.
    pub(crate) fn block(&self, entries: usize) {
        self.blocks.inc();
        self.entries.inc_by(entries as u64);
    }

    /// Bytes of a release came from peers.
    pub(crate) fn staged(&self, came: Came, bytes: u64) {
        self.staged.get_or_create(&How { came }).inc_by(bytes);
    }

    /// Begins to measure.
    pub(crate) fn laps(self: &Arc<Self>) -> Laps {
        Laps {
            metrics: Arc::clone(self),
            since: Instant::now(),
        }
    }

    /// All of it in the text format of OpenMetrics, without the line that ends it.
    pub(crate) fn encode(&self, now: &Now) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("instar");
        registry.register_with_unit(
            "phase",
            "Time spent on blocks, by what was done",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register(
            "blocks",
            "Blocks made final by this process",
            self.blocks.clone(),
        );
        registry.register("entries", "Entries in those blocks", self.entries.clone());
        registry.register_with_unit(
            "staged",
            "What came from peers of releases that were staged",
            Unit::Bytes,
            self.staged.clone(),
        );
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        };
        gauge("height", "Height of the newest final block", now.height);
        gauge(
            "head_time_milliseconds",
            "Time of the newest final block since 1970, by its proposer's clock",
            now.head_time_ms,
        );
        gauge(
            "pending_entries",
            "Entries in lanes that no block has merged yet",
            now.pending as u64,
        );
        gauge(
            "data_peers",
            "Peers connected on the data swarm",
            now.data_peers as u64,
        );
        gauge(
            "resting_peers",
            "Peers that are not listened to, after what they handed over",
            now.resting_peers as u64,
        );
        if let Some(ms) = now.fresh_ms {
            gauge(
                "fresh_milliseconds",
                "How long ago enough validators signed that nothing newer was final (followers)",
                ms,
            );
        }
        let nil: Family<By, Counter> = Family::default();
        for (rule, count) in &now.nil_prevotes {
            let by = By { rule: rule.clone() };
            nil.get_or_create(&by).inc_by(*count);
        }
        registry.register("nil_prevotes", "Prevotes for nil, by the reason", nil);
        let mut out = String::new();
        text::encode_registry(&mut out, &registry)?;
        Ok(out)
    }
}

/// A watch that is read at the end of each phase.
pub(crate) struct Laps {
    metrics: Arc<Metrics>,
    since: Instant,
}

impl Laps {
    /// What was done since the last lap was this.
    pub(crate) fn lap(&mut self, phase: Phase) {
        let now = Instant::now();
        let spent = now.duration_since(self.since);
        let counter = self.metrics.seconds.get_or_create(&In { phase });
        counter.inc_by(spent.as_secs_f64());
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_in_openmetrics() {
        let metrics = Arc::new(Metrics::default());
        let mut laps = metrics.laps();
        laps.lap(Phase::MergeTest);
        metrics.block(7);
        metrics.staged(Came::Delta, 11);
        let now = Now {
            height: 3,
            head_time_ms: 1_700_000_000_000,
            pending: 2,
            data_peers: 1,
            resting_peers: 0,
            fresh_ms: None,
            nil_prevotes: [("abstain".to_owned(), 4)].into(),
        };
        let text = metrics.encode(&now).unwrap();
        for line in [
            "instar_height 3",
            "instar_entries_total 7",
            "instar_blocks_total 1",
            "instar_pending_entries 2",
            "instar_staged_bytes_total{came=\"Delta\"} 11",
            "instar_nil_prevotes_total{rule=\"abstain\"} 4",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing:\n{text}"
            );
        }
        assert!(text.contains("instar_phase_seconds_total{phase=\"MergeTest\"} "));
        assert!(
            !text.contains("fresh"),
            "a validator is asked, and asks nobody"
        );
    }
}
