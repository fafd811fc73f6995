//! One block in the making: the state as it is so far, what happened, and what the rules look at.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::{ChainId, Digest, PublicKey, Purpose};
use instar_ledger::{Entry, Event};
use serde_json::Value;

use crate::gates::Gates;
use crate::host::{DappContext, DappHost};
use crate::keys;
use crate::policy::Policy;
use crate::record::{self, KeyRecord, ValidatorRecord};
use crate::upgrade::Member;
use crate::view::{Overlay, StateError};

/// Why an entry takes no effect. It becomes its receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub rule: String,
    pub detail: String,
}

/// Why an operation came to nothing.
#[derive(Debug)]
pub(crate) enum OpError {
    /// A rule refused it.
    Refused(Refused),
    /// The state can't be read, so nobody can tell.
    State(StateError),
}

impl From<StateError> for OpError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// What an operation comes to: what the receipt shows.
pub(crate) type Op<T = Option<Value>> = Result<T, OpError>;

/// Refuses by `rule`, in kebab case.
pub(crate) fn refuse<T>(rule: impl Into<String>, detail: impl Into<String>) -> Op<T> {
    Err(OpError::Refused(Refused {
        rule: rule.into(),
        detail: detail.into(),
    }))
}

/// Refuses by `rule` unless `holds`.
pub(crate) fn ensure(holds: bool, rule: &str, detail: impl FnOnce() -> String) -> Op<()> {
    if holds {
        Ok(())
    } else {
        refuse(rule, detail())
    }
}

/// Who signed an entry, as the registry knows them.
#[derive(Debug, Clone)]
pub(crate) struct Author {
    pub account: PublicKey,
    pub operator: String,
    /// The validator that the account speaks for.
    pub validator: Option<String>,
}

/// One block in the making.
pub(crate) struct Machine<'a> {
    pub state: Overlay<'a>,
    pub host: &'a mut dyn DappHost,
    pub chain: ChainId,
    pub height: u64,
    pub time_ms: u64,
    pub seed: Digest,
    pub protocol: u32,
    pub policy: Policy,
    pub gates: Gates,
    /// The dapps that this block leaves out.
    pub left_out: BTreeSet<String>,
    /// The ledger's own transitions since they were taken last.
    pub events: Vec<Event>,
    /// For each dapp, what its calls came to.
    pub digests: BTreeMap<String, Vec<Digest>>,
}

impl Machine<'_> {
    /// Notes a transition that the ledger makes by itself.
    pub fn event(&mut self, event: &str, id: Digest, body: Value) {
        self.events.push(Event {
            body,
            event: event.to_owned(),
            id,
        });
    }

    /// What a dapp may know about this block.
    pub fn dapp_context(&self) -> DappContext {
        DappContext {
            chain: self.chain,
            height: self.height,
            seed: self.seed,
            time_ms: self.time_ms,
        }
    }

    /// What a key is registered for.
    pub fn key(&self, key: &PublicKey) -> Result<Option<KeyRecord>, StateError> {
        record::read(&self.state, &keys::key(key))
    }

    /// The validators, sorted by consensus key.
    pub fn validators(&self) -> Result<Vec<ValidatorRecord>, StateError> {
        record::expect(&self.state, keys::VALIDATORS)
    }

    /// The validators as they are now, for what lasts longer than a block.
    pub fn members(&self) -> Result<Vec<Member>, StateError> {
        let members = self.validators()?.into_iter().map(|v| Member {
            account: v.keys.account,
            key: v.keys.consensus,
            name: v.name,
            operator: v.operator,
            power: v.power,
        });
        Ok(members.collect())
    }

    /// The author of a native entry: a registered account key that is not retired.
    pub fn author(&self, entry: &Entry) -> Op<Author> {
        let Some(known) = self.key(&entry.author)? else {
            let detail = format!("{} is the account of no operator", entry.author);
            return refuse("unknown-author", detail);
        };
        check_purpose(&entry.author, &known)?;
        if let Some(height) = known.retired {
            let detail = format!("{} was retired at height {height}", entry.author);
            return refuse("key-retired", detail);
        }
        Ok(Author {
            account: entry.author,
            operator: known.operator,
            validator: known.validator,
        })
    }
}

/// A key has one purpose; entries are for account keys.
pub(crate) fn check_purpose(key: &PublicKey, known: &KeyRecord) -> Op<()> {
    ensure(
        known.purpose == Purpose::Account,
        "wrong-key-purpose",
        || {
            format!(
                "{key} is a {} key of {}, entries are signed by account keys",
                known.purpose, known.operator
            )
        },
    )
}

/// Cuts a text that somebody gave, so that receipts stay small.
pub(crate) fn clip(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).collect()
}
