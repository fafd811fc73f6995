//! The demo's chain: its rules, and what its accounts start with.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
pub use instar_chain::Policy;
use instar_chain::SlotPolicy;
use serde_json::json;

use super::traffic::account_key;
use crate::founding::Plan;

/// Accounts that have something to spend: the client's, and those of the benchmark.
pub const FUNDED: usize = 100;
/// What each of them has at the start; more than can be spent.
const ALLOCATION: &str = "1000000";
/// Builders that must have got the same bytes for a dapp's release: one may be down.
const DAPP_BUILDERS: u32 = 3;
/// How long builders have to commit. The refused release waits for the whole of it, since only one builder commits.
const COMMIT_MS: u64 = 75_000;
/// How long the one builder of the node's own binary has to commit. The round goes on as soon as it has, so this only
/// says how slow a machine may be.
const NODE_COMMIT_MS: u64 = 15 * 60_000;
/// How long builders have to reveal.
const REVEAL_MS: u64 = 20_000;
/// How long validators have to vote, and to rehearse.
const VOTE_MS: u64 = 30_000;

/// The validators' names.
pub fn names(count: usize) -> Vec<String> {
    (1..=count).map(|i| format!("val-{i}")).collect()
}

/// The rules of the demo's chain. `full` asks all four builders for the node's own binary too.
pub fn policy(full: bool) -> Policy {
    let dapps = SlotPolicy {
        builders: DAPP_BUILDERS,
        builder_names: None,
        targets: vec!["x86_64-unknown-linux-gnu".into()],
        recipes: vec![instar_builder::record::RECIPE_CARGO.into()],
        commit_ms: COMMIT_MS,
        commit_blocks: 5,
        reveal_ms: REVEAL_MS,
        reveal_blocks: 5,
        vote_ms: VOTE_MS,
        vote_blocks: 5,
        rehearsal_blocks: 3,
        rehearse_ms: VOTE_MS,
        rehearse_blocks: 5,
        activation_blocks: 2,
        probation_blocks: 5,
    };
    let node = if full {
        // Six hundred crates, twice, by four builders at once, on two cores.
        SlotPolicy {
            commit_ms: 4 * 3_600_000,
            ..dapps.clone()
        }
    } else {
        SlotPolicy {
            commit_ms: NODE_COMMIT_MS,
            builders: 1,
            builder_names: Some(names(1)),
            recipes: vec![instar_builder::record::RECIPE_CARGO_WARM.into()],
            ..dapps.clone()
        }
    };
    Policy {
        dapps,
        node,
        ..Policy::default()
    }
}

/// What the demo's chain starts with besides its validators: `accounts` that have something to spend.
pub fn plan(policy: Policy, accounts: usize) -> Result<Plan> {
    let balances: BTreeMap<String, String> = (0..accounts)
        .map(|i| (account_key(i).public().to_hex(), ALLOCATION.to_owned()))
        .collect();
    Ok(Plan {
        accounts: BTreeMap::from([("coin".to_owned(), json!({"balance": balances}))]),
        chain_name: "demo".into(),
        operators: Vec::new(),
        policy,
        time_ms: u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?,
    })
}
