//! Calling dapps: one call a dapp and block, its answer checked, its digest taken.

use std::collections::BTreeMap;

use instar_attest::{Digest, json};
use instar_ledger::{Outcome, entry::is_topic};
use serde_json::Value;

use crate::block::{BlockError, BlockInput};
use crate::host::{DappCall, DappEntry, DappFailure, DappResult, Migration, Verdict};
use crate::keys;
use crate::machine::{Machine, clip};
use crate::record::{self, DappRecord, SlotRecord};
use crate::view::{KeySpace, MAX_VALUE_BYTES, StateError, StateView, is_key};

/// How many keys a dapp may change in one call. A block has far fewer entries.
pub const MAX_DAPP_WRITES: usize = 65_536;
/// The largest output of a verdict, in bytes of its JSON.
pub const MAX_OUTPUT_BYTES: usize = 16 * 1024;
/// The longest detail of a verdict, in characters.
pub const MAX_DETAIL_CHARS: usize = 1024;
/// How many bytes all verdicts of one call have together, as JSON: this, and [`VERDICT_BYTES_AN_ENTRY`] for each entry.
/// Receipts have to fit into a block, whatever dapps say.
pub const VERDICTS_BYTES: usize = 64 * 1024;
/// See [`VERDICTS_BYTES`].
pub const VERDICT_BYTES_AN_ENTRY: usize = 512;
/// How many blocks a dapp rests after it was left out of one.
pub const SUSPENSION_BLOCKS: u64 = 20;

/// What became of a dapp's entry.
pub(crate) struct Answer {
    pub outcome: Outcome,
    pub rule: Option<String>,
    pub detail: Option<String>,
    pub output: Option<Value>,
}

impl Answer {
    pub(crate) fn rejected(rule: &str, detail: &str) -> Self {
        Self {
            outcome: Outcome::Rejected,
            rule: Some(rule.to_owned()),
            detail: Some(detail.to_owned()),
            output: None,
        }
    }

    fn of(verdict: Verdict) -> Self {
        if verdict.ok {
            return Self {
                outcome: Outcome::Applied,
                rule: None,
                detail: verdict.detail,
                output: verdict.output,
            };
        }
        Self {
            outcome: Outcome::Rejected,
            rule: Some(verdict.rule.unwrap_or_else(|| "dapp-refused".into())),
            detail: verdict.detail,
            output: verdict.output,
        }
    }
}

/// Why a call came to nothing.
pub(crate) enum CallError {
    /// It is the dapp's failure, or this node's way of running it.
    Dapp(DappFailure),
    /// This node's state can't be read.
    State(StateError),
}

impl From<DappFailure> for CallError {
    fn from(failure: DappFailure) -> Self {
        Self::Dapp(failure)
    }
}

/// What stands before a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No dapp owns the topic.
    Unknown,
    /// Its entries are taken.
    Open,
    /// It was left out of this block or of one shortly before.
    Suspended,
}

/// Checks the list of dapps that are left out, and suspends them.
pub(crate) fn leave_out(m: &mut Machine<'_>, input: &BlockInput<'_>) -> Result<(), BlockError> {
    for (i, name) in input.left_out.iter().enumerate() {
        let known: Option<DappRecord> = match is_topic(name) {
            true => record::read(&m.state, &keys::dapp(name))?,
            false => None,
        };
        let sorted = i == 0 || input.left_out[i - 1] < *name;
        if known.is_none() || !sorted {
            return Err(BlockError::LeftOut(clip(name, 80)));
        }
        let until = m.height + SUSPENSION_BLOCKS;
        let suspended = DappRecord {
            suspended_until: Some(until),
        };
        record::write(&mut m.state, &keys::dapp(name), &suspended)?;
        let id = Digest::tagged("instar/dapp-name/v1", name.as_bytes());
        m.event(
            "dapp-suspended",
            id,
            serde_json::json!({"dapp": name, "until": until}),
        );
        m.left_out.insert(name.clone());
    }
    Ok(())
}

/// Whether a dapp's entries are taken in this block.
pub(crate) fn standing(m: &Machine<'_>, topic: &str) -> Result<Standing, StateError> {
    standing_at(&m.state, m.height, topic)
}

/// As [`standing`], in the block of a height.
pub(crate) fn standing_at(
    view: &dyn StateView,
    height: u64,
    topic: &str,
) -> Result<Standing, StateError> {
    let known: Option<DappRecord> = record::read(view, &keys::dapp(topic))?;
    Ok(match known {
        None => Standing::Unknown,
        Some(d) if d.suspended_until.is_some_and(|h| height < h) => Standing::Suspended,
        Some(_) => Standing::Open,
    })
}

/// Runs the entries of one dapp, all in one call.
pub(crate) fn run(
    m: &mut Machine<'_>,
    dapp: &str,
    entries: Vec<DappEntry>,
) -> Result<Vec<Answer>, BlockError> {
    let count = entries.len();
    let slot: Option<SlotRecord> = record::read(&m.state, &keys::slot(&format!("dapps/{dapp}")))?;
    let Some(release) = slot.and_then(|s| s.release) else {
        let none = || Answer::rejected("dapp-without-release", "the dapp's slot is empty");
        return Ok((0..count).map(|_| none()).collect());
    };
    let (rule, detail) = match call(m, dapp, &release, entries, None) {
        Ok(result) => {
            keep(m, dapp, &result);
            return Ok(result.verdicts.into_iter().map(Answer::of).collect());
        }
        Err(CallError::State(error)) => return Err(error.into()),
        Err(CallError::Dapp(DappFailure::Abstain(why))) => {
            let dapp = dapp.to_owned();
            return Err(BlockError::Abstain { dapp, why });
        }
        // The texts of failures differ between nodes, so only their kind goes into receipts.
        Err(CallError::Dapp(DappFailure::Crash(_))) => {
            ("dapp-crashed", "the dapp ended before it had answered")
        }
        Err(CallError::Dapp(DappFailure::Protocol(_))) => {
            ("dapp-protocol", "the dapp broke the protocol")
        }
    };
    let digest = Digest::tagged("instar/dapp-failure/v1", rule.as_bytes());
    m.digests.entry(dapp.to_owned()).or_default().push(digest);
    Ok((0..count).map(|_| Answer::rejected(rule, detail)).collect())
}

/// One call, with the answer checked. A wrong answer is a failure of the dapp, the same on every node.
pub(crate) fn call(
    m: &mut Machine<'_>,
    dapp: &str,
    release: &str,
    entries: Vec<DappEntry>,
    migrate: Option<Migration>,
) -> Result<DappResult, CallError> {
    let count = entries.len();
    let ctx = m.dapp_context();
    let state = KeySpace::of_dapp(&m.state, dapp);
    let call = DappCall {
        dapp,
        release,
        ctx,
        entries,
        state: &state,
        migrate,
    };
    let result = m.host.run(call);
    // An answer that was built on a value which could not be read is none, whatever it looks like.
    if let Some(error) = state.failure() {
        return Err(CallError::State(error));
    }
    let mut result = result?;
    for verdict in &mut result.verdicts {
        let detail = verdict.detail.take();
        verdict.detail = detail.map(|d| clip(&d, MAX_DETAIL_CHARS));
    }
    check_writes(dapp, &result)?;
    check_verdicts(&result.verdicts, count)?;
    Ok(result)
}

fn broken<T>(why: &str) -> Result<T, DappFailure> {
    Err(DappFailure::Protocol(why.to_owned()))
}

fn check_writes(dapp: &str, result: &DappResult) -> Result<(), DappFailure> {
    if result.writes.len() > MAX_DAPP_WRITES {
        return broken("it changes too many keys");
    }
    let prefix = keys::dapp_space(dapp);
    for (key, value) in &result.writes {
        if key.is_empty() || !is_key(&format!("{prefix}{key}")) {
            return broken("it changes what is no key");
        }
        if value.as_ref().is_some_and(|v| v.len() > MAX_VALUE_BYTES) {
            return broken("it sets a value that is too large");
        }
    }
    Ok(())
}

fn check_verdicts(verdicts: &[Verdict], count: usize) -> Result<(), DappFailure> {
    if verdicts.len() != count {
        return broken("it must give one verdict for each entry");
    }
    let mut all = 0;
    for verdict in verdicts {
        if let Some(output) = &verdict.output {
            match json::to_vec(output) {
                Ok(bytes) if bytes.len() <= MAX_OUTPUT_BYTES => {}
                _ => return broken("an output is too large or no canonical JSON"),
            }
        }
        if verdict.rule.as_deref().is_some_and(|r| !is_topic(r)) {
            return broken("a rule's name is not in kebab case");
        }
        all += json::to_vec(verdict).map_or(usize::MAX / 2, |bytes| bytes.len());
        if all > VERDICTS_BYTES + VERDICT_BYTES_AN_ENTRY * count {
            return broken("its verdicts are too large together");
        }
    }
    Ok(())
}

/// Keeps what a call came to: its writes, and their digest.
pub(crate) fn keep(m: &mut Machine<'_>, dapp: &str, result: &DappResult) {
    let prefix = keys::dapp_space(dapp);
    for (key, value) in &result.writes {
        match value {
            Some(value) => m.state.put(format!("{prefix}{key}"), value.clone()),
            None => m.state.delete(format!("{prefix}{key}")),
        }
    }
    let digest = digest(result);
    m.digests.entry(dapp.to_owned()).or_default().push(digest);
}

fn digest(result: &DappResult) -> Digest {
    let hashed: BTreeMap<&String, Option<Digest>> = result
        .writes
        .iter()
        .map(|(key, value)| (key, value.as_ref().map(|v| Digest::of(v))))
        .collect();
    let said = serde_json::json!({"verdicts": result.verdicts, "writes": hashed});
    let bytes = json::to_vec(&said).expect("keys and outputs were checked to be canonical");
    Digest::tagged("instar/dapp-result/v1", &bytes)
}

/// What a header says of one dapp: all its calls in this block, in order.
pub(crate) fn header_digests(calls: BTreeMap<String, Vec<Digest>>) -> BTreeMap<String, Digest> {
    let one = |digests: Vec<Digest>| {
        let bytes: Vec<u8> = digests.iter().flat_map(|d| *d.as_bytes()).collect();
        Digest::tagged("instar/dapp/v1", &bytes)
    };
    calls.into_iter().map(|(name, d)| (name, one(d))).collect()
}
