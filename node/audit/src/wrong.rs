//! The first thing that is wrong with a chain: which object, which rule.

use instar_ledger::grammar::GrammarError;
use instar_ledger::{CertificateError, EntryError, Oid};
use serde::Serialize;

use crate::objects::ObjectError;

/// What ends a walk before the tip.
#[derive(Debug)]
pub enum Stop {
    /// The chain breaks a rule.
    Wrong(Box<Wrong>),
    /// This machine can't tell whether it does.
    CannotTell(String),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// The height of the block at hand; 0 for genesis, none for what belongs to no height.
    pub height: Option<u64>,
    /// The git object that is wrong, where there is one.
    pub object: Option<Oid>,
    /// The rule, in kebab case; `docs/formats/audit.md` lists them.
    pub rule: &'static str,
    /// The step of an audit that the rule belongs to.
    pub step: &'static str,
    /// The object in words: `block 7`.
    pub what: String,
    /// A sentence for people.
    pub why: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (rule {}", self.what, self.why, self.rule)?;
        if let Some(id) = &self.object {
            write!(f, ", object {id}")?;
        }
        f.write_str(")")
    }
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(Box::new(wrong))
    }
}

/// Where something is found wrong: the context that every finding shares.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub height: Option<u64>,
    pub object: Option<Oid>,
    pub step: &'static str,
    pub what: String,
}

impl At {
    pub fn new(step: &'static str, what: impl Into<String>) -> Self {
        Self {
            height: None,
            object: None,
            step,
            what: what.into(),
        }
    }

    /// A block.
    pub fn block(step: &'static str, height: u64, id: Oid) -> Self {
        Self {
            height: Some(height),
            object: Some(id),
            step,
            what: format!("block {height}"),
        }
    }

    pub fn object(mut self, id: Oid) -> Self {
        self.object = Some(id);
        self
    }

    pub fn height(mut self, height: u64) -> Self {
        self.height = Some(height);
        self
    }

    pub fn wrong(&self, rule: &'static str, why: impl std::fmt::Display) -> Wrong {
        Wrong {
            height: self.height,
            object: self.object,
            rule,
            step: self.step,
            what: self.what.clone(),
            why: why.to_string(),
        }
    }

    /// An object that can't be read, or is not in the grammar. What the error names stands in `object`.
    pub fn unread(&self, error: &ObjectError) -> Wrong {
        let mut wrong = self.wrong(rule_of(error), error);
        wrong.object = error.id().or(wrong.object);
        wrong
    }
}

fn rule_of(error: &ObjectError) -> &'static str {
    match error {
        ObjectError::Missing { .. } => "object-missing",
        ObjectError::Unexpected { .. } => "object-kind",
        ObjectError::Hash { .. } => "object-hash",
        ObjectError::Unreadable { .. } | ObjectError::Git(_) => "object-unreadable",
        ObjectError::Format => "object-format",
        ObjectError::NoRef(_) => "no-trunk",
        ObjectError::Grammar(error) => rule_of_grammar(error),
    }
}

fn rule_of_grammar(error: &GrammarError) -> &'static str {
    match error {
        GrammarError::OtherChain { .. } => "other-chain",
        GrammarError::TooMany { .. } => "too-many",
        GrammarError::Armour(_) => "lane-armour",
        GrammarError::Signature(_) => "lane-signature",
        GrammarError::Entry { source, .. } => match source {
            EntryError::Signature(_) => "entry-signature",
            EntryError::OtherChain { .. } => "other-chain",
            _ => "entry-bytes",
        },
        GrammarError::Certificate(error) => rule_of_certificate(error),
        GrammarError::Contradiction(_) => "block-contradiction",
        GrammarError::Part { .. }
        | GrammarError::Bytes { .. }
        | GrammarError::Lane(_)
        | GrammarError::Json { .. } => "object-bytes",
    }
}

pub(crate) fn rule_of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Json(_) => "certificate-bytes",
        CertificateError::Order(_) => "certificate-order",
        CertificateError::NotAValidator(_) => "certificate-signer",
        CertificateError::Signature { .. } => "certificate-signature",
        CertificateError::Power { .. } => "certificate-power",
    }
}
