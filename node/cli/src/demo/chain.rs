//! The demo's chain: keys, genesis, and what the validators start with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use instar_attest::release::Release;
use instar_attest::{ChainId, Purpose, keyfile};
pub use instar_chain::Policy;
use instar_chain::SlotPolicy;
use instar_ledger::{Genesis, GenesisDapp, GenesisRelease, GenesisValidator, Keys};
use serde_json::json;

use super::VALIDATORS;
use super::traffic::{ACCOUNTS, account_key};
use super::validators::Validator;

/// What every account of the client has at the start; more than the demo can spend.
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

/// A release that the chain starts with.
pub struct Admitted {
    /// The slot.
    pub slot: String,
    /// The root CID.
    pub root: String,
    /// Its release.json.
    pub release: Release,
    /// The folder that holds the files, laid out as the release names them.
    pub dir: std::path::PathBuf,
}

/// Makes one key a purpose for every validator.
pub fn make_keys(validators: &[Validator]) -> Result<()> {
    for validator in validators {
        for purpose in [
            Purpose::Account,
            Purpose::Builder,
            Purpose::Consensus,
            Purpose::Lane,
        ] {
            keyfile::generate(&validator.home.key_file(purpose), purpose)?;
        }
        validator.home.token()?;
    }
    Ok(())
}

/// The validators' names.
pub fn names() -> Vec<String> {
    (1..=VALIDATORS).map(|i| format!("val-{i}")).collect()
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
            builder_names: Some(names()[..1].to_vec()),
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

/// The genesis of the demo's chain.
pub fn genesis(
    validators: &[Validator],
    admitted: &[Admitted],
    manifest: serde_json::Value,
    policy: &Policy,
) -> Result<Genesis> {
    let mut members = Vec::new();
    for validator in validators {
        let public = |purpose| validator.home.key(purpose).map(|k| k.public());
        members.push(GenesisValidator {
            keys: Keys {
                account: public(Purpose::Account)?,
                builder: public(Purpose::Builder)?,
                consensus: public(Purpose::Consensus)?,
                lane: public(Purpose::Lane)?,
            },
            name: validator.name.clone(),
            operator: format!("operator-{}", validator.name),
            power: 1,
        });
    }
    let balances: BTreeMap<String, String> = (0..ACCOUNTS)
        .map(|i| (account_key(i).public().to_hex(), ALLOCATION.to_owned()))
        .collect();
    let releases = admitted
        .iter()
        .map(|a| {
            let text = String::from_utf8(a.release.to_bytes()?).context("release.json is ASCII")?;
            Ok(GenesisRelease {
                number: a.release.number,
                release: a.root.clone(),
                release_json: text,
                slot: a.slot.clone(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Genesis {
        accounts: BTreeMap::from([("coin".to_owned(), json!({"balance": balances}))]),
        chain_name: "demo".into(),
        dapps: vec![GenesisDapp {
            manifest,
            name: "coin".into(),
        }],
        kernel: 1,
        operators: Vec::new(),
        policy: serde_json::to_value(policy)?,
        protocol: 1,
        releases,
        time_ms: u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?,
        validators: members,
    })
}

/// Every home gets the same genesis, and the blocks of the releases that it admits.
pub fn found(
    validators: &[Validator],
    genesis: &Genesis,
    admitted: &[Admitted],
) -> Result<ChainId> {
    let mut id = None;
    for validator in validators {
        let chain = instar_node::core::open::create(&validator.home, genesis)?;
        anyhow::ensure!(
            id.is_none_or(|i| i == chain),
            "two homes made two chains of one genesis"
        );
        id = Some(chain);
        let store = Arc::new(instar_chunks::BlockStore::open(&validator.home.blocks())?);
        for release in admitted {
            store_release(&store, release)?;
        }
    }
    id.context("a chain needs validators")
}

fn store_release(store: &instar_chunks::BlockStore, admitted: &Admitted) -> Result<()> {
    let root = crate::release::store(&admitted.dir, &admitted.release, &mut |cid, bytes| {
        instar_chunks::Blocks::put(store, cid, bytes).map_err(std::io::Error::other)
    })?;
    anyhow::ensure!(
        root.to_string() == admitted.root,
        "{} holds another release than {}",
        admitted.dir.display(),
        admitted.root
    );
    store.pin(&admitted.slot, &root)?;
    Ok(())
}

/// Takes a folder that `instar build` made as a release that needs no vote.
pub fn admit_built(dir: &Path) -> Result<Admitted> {
    let release = crate::release::of_build(dir, ChainId::from_bytes([0; 32]))?;
    let root = crate::release::root(&release)?;
    Ok(Admitted {
        slot: release.slot.to_string(),
        root: root.to_string(),
        release,
        dir: dir.join("release"),
    })
}
