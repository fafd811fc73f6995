//! The chain's rules for upgrades, as genesis fixes them.

use std::collections::BTreeSet;

use instar_attest::release::{Recipe, Slot, Target};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The largest delay that a policy may ask for, in milliseconds or blocks: three years, and far below 2^53.
pub const MAX_DELAY: u64 = 100_000_000_000;
/// How many targets a release may have. With the largest validator set a round's record still fits a value.
pub const MAX_TARGETS: usize = 4;
/// How many recipes a policy may allow.
pub const MAX_RECIPES: usize = 16;
/// How many blocks a rehearsal may replay at most, so that a fork of the state is never kept for long.
pub const MAX_REHEARSAL_BLOCKS: u64 = 1000;

/// What one kind of slot asks of an upgrade. A deadline has passed when both its blocks and its block time have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotPolicy {
    /// Blocks from readiness to activation, at least 1.
    pub activation_blocks: u64,
    /// The names of the validators whose builders are asked; all where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder_names: Option<Vec<String>>,
    /// How many distinct operators must have built the same bytes: k of the n that the round asks.
    pub builders: u32,
    /// How long builders have to commit, in blocks.
    pub commit_blocks: u64,
    /// How long builders have to commit, in milliseconds of block time.
    pub commit_ms: u64,
    /// How many blocks a validator of a rollout has to live on after it reported its health.
    pub probation_blocks: u64,
    /// The recipes that a build may follow.
    pub recipes: Vec<String>,
    /// How long validators have to rehearse after the last block that is replayed, in blocks.
    pub rehearse_blocks: u64,
    /// How long validators have to rehearse, in milliseconds of block time.
    pub rehearse_ms: u64,
    /// N: how many blocks a rehearsal replays.
    pub rehearsal_blocks: u64,
    /// How long builders have to reveal, in blocks.
    pub reveal_blocks: u64,
    /// How long builders have to reveal, in milliseconds of block time.
    pub reveal_ms: u64,
    /// The targets that a release must have.
    pub targets: Vec<String>,
    /// How long validators have to vote, in blocks.
    pub vote_blocks: u64,
    /// How long validators have to vote, in milliseconds of block time.
    pub vote_ms: u64,
}

/// The chain's policy. Genesis carries it as canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What dapp slots ask.
    pub dapps: SlotPolicy,
    /// What the node slot asks.
    pub node: SlotPolicy,
    /// How long a rollout rests after a revert, in blocks.
    pub pause_blocks: u64,
    /// How long a rollout rests after a revert, in milliseconds of block time.
    pub pause_ms: u64,
    /// How long a wave has to become healthy, in blocks.
    pub wave_blocks: u64,
    /// How long a wave has to become healthy, in milliseconds of block time.
    pub wave_ms: u64,
}

/// Why a policy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not of a policy's shape.
    #[error("the policy is refused: {0}")]
    Shape(#[from] serde_json::Error),
    /// A field that can't be as it is.
    #[error("the policy for {kind}: {field} {why}")]
    Field {
        /// `dapps`, `node`, or `rollouts`.
        kind: &'static str,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl Default for SlotPolicy {
    /// A baby's dapps: three operators must agree, minutes to answer, three blocks of rehearsal.
    fn default() -> Self {
        Self {
            activation_blocks: 2,
            builder_names: None,
            builders: 3,
            commit_blocks: 5,
            commit_ms: 600_000,
            probation_blocks: 3,
            recipes: vec!["cargo".into()],
            rehearse_blocks: 5,
            rehearse_ms: 300_000,
            rehearsal_blocks: 3,
            reveal_blocks: 5,
            reveal_ms: 120_000,
            targets: vec!["x86_64-unknown-linux-gnu".into()],
            vote_blocks: 5,
            vote_ms: 300_000,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            dapps: SlotPolicy::default(),
            // A node takes longer to build than a dapp.
            node: SlotPolicy {
                commit_ms: 4 * 3_600_000,
                ..SlotPolicy::default()
            },
            pause_blocks: 5,
            pause_ms: 60_000,
            wave_blocks: 10,
            wave_ms: 300_000,
        }
    }
}

impl Policy {
    /// Reads the policy of a genesis.
    pub fn from_value(value: &Value) -> Result<Self, PolicyError> {
        Ok(serde_json::from_value(value.clone())?)
    }

    /// The part that holds for a slot.
    pub fn of(&self, slot: &Slot) -> &SlotPolicy {
        if slot.dapp_name().is_some() {
            &self.dapps
        } else {
            &self.node
        }
    }

    /// Checks that these validators, as (name, operator), can meet it at all.
    pub fn check(&self, validators: &[(&str, &str)]) -> Result<(), PolicyError> {
        let rollouts = [
            ("pause_blocks", self.pause_blocks),
            ("pause_ms", self.pause_ms),
            ("wave_blocks", self.wave_blocks),
            ("wave_ms", self.wave_ms),
        ];
        for (field, value) in rollouts {
            delay("rollouts", field, value)?;
        }
        self.dapps.check("dapps", validators)?;
        self.node.check("node", validators)
    }
}

fn delay(kind: &'static str, field: &'static str, value: u64) -> Result<(), PolicyError> {
    if value > MAX_DELAY {
        let why = format!("is {value}, at most {MAX_DELAY} is allowed");
        return Err(PolicyError::Field { kind, field, why });
    }
    Ok(())
}

impl SlotPolicy {
    /// Whether the builder of this validator is asked.
    pub fn asks(&self, name: &str) -> bool {
        self.builder_names
            .as_ref()
            .is_none_or(|names| names.iter().any(|n| n == name))
    }

    /// The targets, typed.
    pub fn target_list(&self) -> Vec<Target> {
        self.targets.iter().filter_map(|t| t.parse().ok()).collect()
    }

    /// The recipes, typed.
    pub fn recipe_list(&self) -> Vec<Recipe> {
        self.recipes.iter().filter_map(|r| r.parse().ok()).collect()
    }

    fn check(&self, kind: &'static str, validators: &[(&str, &str)]) -> Result<(), PolicyError> {
        let wrong = |field, why: String| Err(PolicyError::Field { kind, field, why });
        let delays = [
            ("activation_blocks", self.activation_blocks),
            ("commit_blocks", self.commit_blocks),
            ("commit_ms", self.commit_ms),
            ("probation_blocks", self.probation_blocks),
            ("rehearse_blocks", self.rehearse_blocks),
            ("rehearse_ms", self.rehearse_ms),
            ("reveal_blocks", self.reveal_blocks),
            ("reveal_ms", self.reveal_ms),
            ("vote_blocks", self.vote_blocks),
            ("vote_ms", self.vote_ms),
        ];
        for (field, value) in delays {
            delay(kind, field, value)?;
        }
        if self.rehearsal_blocks > MAX_REHEARSAL_BLOCKS {
            return wrong(
                "rehearsal_blocks",
                format!("is over {MAX_REHEARSAL_BLOCKS}"),
            );
        }
        let targets: BTreeSet<Target> = self.target_list().into_iter().collect();
        if targets.is_empty() || targets.len() != self.targets.len() || targets.len() > MAX_TARGETS
        {
            return wrong(
                "targets",
                format!("must be 1 to {MAX_TARGETS} different target triples"),
            );
        }
        if self.recipe_list().len() != self.recipes.len()
            || self.recipes.is_empty()
            || self.recipes.len() > MAX_RECIPES
        {
            return wrong(
                "recipes",
                format!("must be 1 to {MAX_RECIPES} recipe names"),
            );
        }
        for name in self.builder_names.iter().flatten() {
            if !validators.iter().any(|(n, _)| n == name) {
                return wrong("builder_names", format!("names {name:?}, no validator"));
            }
        }
        // A threshold that nobody can meet would stop upgrades for ever.
        let operators: BTreeSet<&str> = validators
            .iter()
            .filter(|(name, _)| self.asks(name))
            .map(|(_, operator)| *operator)
            .collect();
        if self.builders == 0 || self.builders as usize > operators.len() {
            let why = format!(
                "is {}, the operators asked are {}",
                self.builders,
                operators.len()
            );
            return wrong("builders", why);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: [(&str, &str); 4] = [("a", "A"), ("b", "B"), ("c", "C"), ("d", "C")];

    #[test]
    fn the_default_can_be_met_by_four_and_survives_json() {
        let policy = Policy::default();
        policy.check(&FOUR).unwrap();
        let value = serde_json::to_value(&policy).unwrap();
        assert_eq!(Policy::from_value(&value).unwrap(), policy);
    }

    #[test]
    fn thresholds_count_operators() {
        let mut policy = Policy::default();
        policy.node.builders = 4;
        assert!(
            policy.check(&FOUR).is_err(),
            "four builders, three operators"
        );
        policy.node.builders = 2;
        policy.node.builder_names = Some(vec!["c".into(), "d".into()]);
        assert!(policy.check(&FOUR).is_err(), "two builders, one operator");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let mut value = serde_json::to_value(Policy::default()).unwrap();
        value["builders"] = 1.into();
        assert!(Policy::from_value(&value).is_err());
    }
}
