//! What an audit says: one step after the other, each with what it rests on.

use instar_attest::ChainId;
use serde::Serialize;

use crate::wrong::{Stop, Wrong};

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// A sentence for people: what was found, or why it was refused.
    pub detail: String,
    /// A short name in kebab case.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
}

/// The answer of an audit. It stops at the first step that does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The height at which the release went live; 0 for one that the chain started with.
    pub activated_at: Option<u64>,
    /// `voted`, or `genesis-admitted`: nobody voted on what a chain starts with.
    pub admitted: Option<String>,
    /// How many blocks were checked.
    pub blocks: u64,
    /// The chain, as its genesis commit names it.
    pub chain: Option<ChainId>,
    /// How many lane commits were checked, with their signatures.
    pub lane_commits: u64,
    /// Whether every step holds.
    pub ok: bool,
    /// The root CID that was audited.
    pub release: Option<String>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// A step that did not hold. The report has the words; this only ends the audit.
#[derive(Debug)]
pub(crate) struct Refused;

impl Report {
    /// Notes a step that holds.
    pub(crate) fn hold(&mut self, name: &str, detail: impl Into<String>) {
        self.steps.push(Step {
            detail: detail.into(),
            name: name.to_owned(),
            ok: true,
        });
    }

    /// Notes a step that does not hold.
    pub(crate) fn refuse(&mut self, name: &str, detail: impl Into<String>) -> Refused {
        self.steps.push(Step {
            detail: detail.into(),
            name: name.to_owned(),
            ok: false,
        });
        Refused
    }

    /// Notes what is wrong with the chain as the step's refusal.
    pub(crate) fn wrong(&mut self, wrong: &Wrong) -> Refused {
        self.refuse(wrong.step, wrong.to_string())
    }

    /// Notes what ended a walk.
    pub(crate) fn stop(&mut self, stop: &Stop) -> Refused {
        match stop {
            Stop::Wrong(wrong) => self.wrong(wrong),
            Stop::CannotTell(why) => self.refuse("cannot-tell", why),
        }
    }

    /// Unwraps a result, and notes its error as the step's.
    pub(crate) fn need<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        result: Result<T, E>,
    ) -> Result<T, Refused> {
        result.map_err(|error| self.refuse(name, error.to_string()))
    }

    /// The first step that does not hold.
    pub fn refused_by(&self) -> Option<&Step> {
        self.steps.iter().find(|s| !s.ok)
    }
}
