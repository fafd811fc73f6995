//! One conversation with a dapp, from `begin` to `done`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use instar_chain::host::{DappEntry, Migration};
use instar_chain::view::{Overlay, is_key};
use instar_chain::{DappContext, DappResult, StateError, StateView, Verdict, Writes};
use serde_json::{Value, json};

use crate::budget::{Budget, MAX_KEY_BYTES, MAX_LINE_BYTES, MAX_RANGE_ROWS, MAX_VALUE_BYTES};
use crate::duplex::{Duplex, End};
use crate::manifest::{ABI, Manifest};
use crate::wire::{self, Said};

/// How many entries are sent at once.
const BATCH_ENTRIES: usize = 100;
/// Entries are sent at once until their bodies have this size. Each is bounded by the ledger at a quarter of it.
const BATCH_BYTES: usize = MAX_LINE_BYTES;

/// Why a conversation came to nothing.
#[derive(Debug)]
pub enum Broken {
    /// The program stopped talking; how it ended says whose fault that is.
    Ended,
    /// The time is up.
    TimedOut,
    /// It said what no dapp may say.
    Protocol(String),
    /// This node can't read its own state.
    State(StateError),
}

impl From<End> for Broken {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Ended,
            End::TimedOut => Self::TimedOut,
            End::TooMuch(what) => Self::Protocol(what),
        }
    }
}

impl From<StateError> for Broken {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// One conversation.
pub struct Session<'a> {
    duplex: &'a mut Duplex,
    manifest: &'a Manifest,
    budget: Budget,
    state: Overlay<'a>,
    /// What is final, where a question is asked about more than that.
    trunk: Option<&'a dyn StateView>,
    /// What the entry at hand would change.
    changes: Writes,
    may_write: bool,
}

impl<'a> Session<'a> {
    /// Before its first line.
    pub fn new(
        duplex: &'a mut Duplex,
        manifest: &'a Manifest,
        budget: Budget,
        state: &'a dyn StateView,
    ) -> Self {
        Self {
            duplex,
            manifest,
            budget,
            state: Overlay::new(state),
            trunk: None,
            changes: Writes::new(),
            may_write: true,
        }
    }

    /// The entries of a block.
    pub fn apply(mut self, ctx: &DappContext, entries: &[DappEntry]) -> Result<DappResult, Broken> {
        self.begin(ctx, "apply", None);
        let mut verdicts = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_length(rest));
            self.send_batch(batch)?;
            for entry in batch {
                let verdict = self.verdict_on(entry)?;
                let changes = std::mem::take(&mut self.changes);
                if verdict.ok {
                    self.state.extend(changes);
                }
                verdicts.push(verdict);
            }
            rest = after;
        }
        match self.end()? {
            None => Ok(DappResult {
                verdicts,
                writes: self.state.into_writes()?,
            }),
            Some(veto) => Ok(DappResult {
                verdicts: vec![veto; entries.len()],
                writes: Writes::new(),
            }),
        }
    }

    /// The state before a release sees its first entry.
    pub fn migrate(
        mut self,
        ctx: &DappContext,
        migration: &Migration,
    ) -> Result<DappResult, Broken> {
        self.begin(ctx, "migrate", Some(migration));
        match self.end()? {
            None => {
                let changes = std::mem::take(&mut self.changes);
                self.state.extend(changes);
                Ok(DappResult {
                    verdicts: Vec::new(),
                    writes: self.state.into_writes()?,
                })
            }
            Some(veto) => Err(Broken::Protocol(format!(
                "it refuses to migrate: {}",
                veto.detail.or(veto.rule).unwrap_or_default()
            ))),
        }
    }

    /// A question; `trunk` is the dapp's own key space as far as it is final.
    pub fn query(
        mut self,
        ctx: &DappContext,
        question: &Value,
        trunk: &'a dyn StateView,
    ) -> Result<Verdict, Broken> {
        self.may_write = false;
        self.trunk = Some(trunk);
        self.begin(ctx, "query", None);
        self.duplex
            .say(&json!({"type": "question", "body": question}));
        let answer = loop {
            match self.hear()? {
                Said::Answer {
                    ok,
                    rule,
                    detail,
                    output,
                } => {
                    break wire::verdict(ok, rule, detail, output).map_err(Broken::Protocol)?;
                }
                said => self.serve(said)?,
            }
        };
        self.end()?;
        Ok(answer)
    }

    fn begin(&mut self, ctx: &DappContext, mode: &str, migration: Option<&Migration>) {
        let mut line = json!({
            "type": "begin", "abi": ABI, "mode": mode,
            "chain": ctx.chain, "height": ctx.height, "seed": ctx.seed, "time_ms": ctx.time_ms,
        });
        if let Some(migration) = migration {
            line["migrate"] = json!(migration);
        }
        self.duplex.say(&line);
    }

    fn send_batch(&mut self, batch: &[DappEntry]) -> Result<(), Broken> {
        let mut known = BTreeMap::new();
        for key in batch
            .iter()
            .flat_map(|entry| self.manifest.wanted_keys(entry))
        {
            if let Entry::Vacant(place) = known.entry(key) {
                let value = self.read(place.key())?;
                place.insert(value);
            }
        }
        self.duplex
            .say(&json!({"type": "entries", "entries": batch, "state": known}));
        Ok(())
    }

    fn verdict_on(&mut self, entry: &DappEntry) -> Result<Verdict, Broken> {
        loop {
            match self.hear()? {
                Said::Verdict {
                    id,
                    ok,
                    rule,
                    detail,
                    output,
                } => {
                    if id != entry.id.to_string() {
                        return Err(Broken::Protocol(format!(
                            "a verdict on {id:?}, but {} is next",
                            entry.id
                        )));
                    }
                    return wire::verdict(ok, rule, detail, output).map_err(Broken::Protocol);
                }
                said => self.serve(said)?,
            }
        }
    }

    /// Ends the conversation; the dapp may take everything back.
    fn end(&mut self) -> Result<Option<Verdict>, Broken> {
        self.duplex.say(&json!({"type": "end"}));
        loop {
            match self.hear()? {
                Said::Done { veto: None } => return Ok(None),
                Said::Done { veto: Some(veto) } => {
                    let veto = wire::verdict(false, Some(veto.rule), veto.detail, None);
                    return veto.map(Some).map_err(Broken::Protocol);
                }
                said => self.serve(said)?,
            }
        }
    }

    fn hear(&mut self) -> Result<Said, Broken> {
        let line = self.duplex.hear()?;
        serde_json::from_slice(&line)
            .map_err(|error| Broken::Protocol(format!("a line that is not understood: {error}")))
    }

    /// What a dapp may say at any time.
    fn serve(&mut self, said: Said) -> Result<(), Broken> {
        self.budget.ops = self
            .budget
            .ops
            .checked_sub(1)
            .ok_or_else(|| Broken::Protocol("too many operations".to_owned()))?;
        match said {
            Said::Get { key, trunk } => {
                check_key(&key)?;
                let value = match self.changes.get(&key) {
                    _ if trunk => self.read_trunk(&key)?,
                    Some(changed) => changed
                        .as_ref()
                        .map(|bytes| text(&key, bytes))
                        .transpose()?,
                    None => self.read(&key)?,
                };
                self.told(key.len() + value.as_ref().map_or(0, String::len))?;
                self.duplex
                    .say(&json!({"type": "value", "key": key, "value": value}));
            }
            Said::Range { prefix, limit } => {
                if !prefix.is_empty() {
                    check_key(&prefix)?;
                }
                let rows = self.range(&prefix, limit)?;
                self.told(
                    rows.iter()
                        .map(|(key, value)| key.len() + value.len())
                        .sum(),
                )?;
                self.duplex.say(&json!({"type": "values", "values": rows}));
            }
            Said::Put { key, value } => {
                if value.len() > MAX_VALUE_BYTES {
                    return Err(Broken::Protocol(format!(
                        "a value of more than {MAX_VALUE_BYTES} bytes"
                    )));
                }
                self.write(key, Some(value.into_bytes()))?;
            }
            Said::Delete { key } => self.write(key, None)?,
            Said::Verdict { .. } | Said::Answer { .. } | Said::Done { .. } => {
                return Err(Broken::Protocol(format!("{said:?} is not expected here")));
            }
        }
        Ok(())
    }

    fn write(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), Broken> {
        if !self.may_write {
            return Err(Broken::Protocol(
                "a question may not change the state".to_owned(),
            ));
        }
        check_key(&key)?;
        self.changes.insert(key, value);
        Ok(())
    }

    fn told(&mut self, bytes: usize) -> Result<(), Broken> {
        let left = self.budget.told_bytes.checked_sub(bytes as u64);
        self.budget.told_bytes =
            left.ok_or_else(|| Broken::Protocol("too much of the state was read".to_owned()))?;
        Ok(())
    }

    fn read(&self, key: &str) -> Result<Option<String>, Broken> {
        self.state
            .get(key)?
            .map(|bytes| text(key, &bytes))
            .transpose()
    }

    /// Entries are tested on one state alone, so only a question can tell what is final from what is not.
    fn read_trunk(&self, key: &str) -> Result<Option<String>, Broken> {
        let Some(trunk) = self.trunk else {
            let why = "only in answering a question is there a trunk beside the state";
            return Err(Broken::Protocol(why.to_owned()));
        };
        let value = trunk.get(key)?;
        value.map(|bytes| text(key, &bytes)).transpose()
    }

    fn range(&self, prefix: &str, limit: u64) -> Result<Vec<(String, String)>, Broken> {
        let limit = usize::try_from(limit)
            .unwrap_or(MAX_RANGE_ROWS)
            .min(MAX_RANGE_ROWS);
        let mut view = Overlay::new(&self.state);
        view.extend(self.changes.clone());
        let rows = view.range(prefix, limit)?;
        rows.into_iter()
            .map(|(key, value)| text(&key, &value).map(|value| (key, value)))
            .collect()
    }
}

/// Values are text: the host never stores anything else for a dapp.
fn text(key: &str, bytes: &[u8]) -> Result<String, Broken> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        Broken::State(StateError::Corrupt {
            key: key.to_owned(),
            why: "a dapp's value is not text".to_owned(),
        })
    })
}

fn check_key(key: &str) -> Result<(), Broken> {
    if key.len() <= MAX_KEY_BYTES && is_key(key) {
        return Ok(());
    }
    Err(Broken::Protocol(format!(
        "a key is 1 to {MAX_KEY_BYTES} printable ASCII characters without spaces"
    )))
}

/// How many of the entries make the next batch: at least one.
fn batch_length(entries: &[DappEntry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&DappEntry| {
        bytes += entry.body.to_string().len();
        bytes <= BATCH_BYTES
    };
    entries
        .iter()
        .take(BATCH_ENTRIES)
        .take_while(fits)
        .count()
        .max(1)
}
