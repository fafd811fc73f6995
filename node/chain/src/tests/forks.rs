//! What a fork begins with: its own registry, and of the mother's state the key spaces of dapps.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest, Purpose};
use instar_ledger::light::SignedHeader;
use instar_ledger::{Certificate, Genesis, GenesisFork, Header, Oid};
use serde_json::json;

use super::world::{World, secret};
use crate::query;
use crate::view::{MemoryState, StateView as _};
use crate::{BlockInput, GenesisError, apply_block, fork_writes, genesis_writes};

/// The newest block of a world, as far as the state machine looks at it.
fn header(world: &World) -> SignedHeader {
    let height = world.height();
    let key = secret("consensus of nobody").public();
    let block = Oid::from_bytes([7; 32]);
    SignedHeader {
        certificate: Certificate {
            block,
            height,
            round: 0,
            signatures: vec![],
        },
        entries: 0,
        header: Header {
            chain: world.chain,
            dapps: BTreeMap::new(),
            forks: vec![],
            height,
            kernel: 1,
            lanes: vec![],
            left_out: vec![],
            parent: block,
            proposer: key,
            protocol: 1,
            receipts: Digest::of(b"receipts"),
            state_root: Digest::of(b"root"),
            time_ms: query::head(&world.state).unwrap().time_ms,
            validators: Digest::of(b"validators"),
        },
        previous: None,
        receipts: block,
    }
}

const FORK: [u8; 32] = [9; 32];

/// A mother whose coin holds something of genesis and something of a block, and the genesis of a fork with two of her
/// validators.
fn mother() -> (World, Genesis) {
    let mut world = World::new();
    let ann = world.nodes[0].account.clone();
    world.say(0, &ann, "coin", json!({"put": {"later": "20"}}));
    world.block();
    let mut genesis = world.genesis.clone();
    genesis.accounts.clear();
    genesis.chain_name = "fork".into();
    genesis.operators.clear();
    genesis.time_ms = header(&world).header.time_ms + 1;
    genesis.fork = Some(GenesisFork {
        dapps: vec!["coin".into()],
        header: header(&world),
    });
    (world, genesis)
}

fn begin(world: &World, genesis: &Genesis) -> Result<MemoryState, GenesisError> {
    let writes = fork_writes(genesis, &ChainId::from_bytes(FORK), &world.state)?;
    let mut state = MemoryState::default();
    state.apply(&writes);
    Ok(state)
}

#[test]
fn a_fork_takes_the_dapps_and_no_more() {
    let (world, genesis) = mother();
    let state = begin(&world, &genesis).unwrap();
    for key in ["d/coin/balance/ann", "d/coin/later"] {
        assert_eq!(state.get(key).unwrap(), world.state.get(key).unwrap());
        assert!(state.get(key).unwrap().is_some());
    }
    let ann = world.nodes[0].account.public();
    assert_eq!(query::nonce(&world.state, &ann).unwrap(), 1);
    assert_eq!(query::nonce(&state, &ann).unwrap(), 0, "nonces begin again");
    assert_eq!(query::head(&state).unwrap().height, 0);
    let developer = world.developer.public();
    assert!(query::key(&world.state, &developer).unwrap().is_some());
    assert_eq!(query::key(&state, &developer).unwrap(), None);
    let lane = world.lane(0);
    assert!(query::lane(&world.state, &lane).unwrap().is_some());
    assert_eq!(query::lane(&state, &lane).unwrap(), None);
    // Whatever is not a dapp's is as if the chain had begun with nothing.
    let mut alone = genesis.clone();
    alone.fork = None;
    let writes = genesis_writes(&alone, &ChainId::from_bytes(FORK)).unwrap();
    let native: Vec<_> = state.iter().filter(|(k, _)| k.starts_with("n/")).collect();
    assert_eq!(native.len(), writes.len());
    for (key, value) in native {
        assert_eq!(writes[key].as_deref(), Some(value), "{key}");
    }
}

#[test]
fn a_block_of_the_mother_is_none_of_the_fork() {
    let (world, genesis) = mother();
    let state = begin(&world, &genesis).unwrap();
    let mut host = crate::fake::FakeHost::of_node(0);
    let input = BlockInput {
        chain: world.chain,
        height: 1,
        time_ms: genesis.time_ms + 1,
        parent: Oid::from_bytes(FORK),
        proposer: world.nodes[0].keys().consensus,
        previous: None,
        lanes: &[],
        fork: None,
        left_out: &[],
    };
    let refused = apply_block(&state, &input, &mut host).unwrap_err();
    assert!(
        refused.to_string().contains("belongs to chain"),
        "{refused}"
    );
}

#[track_caller]
fn refused(world: &World, genesis: &Genesis, part: &str) {
    let error = begin(world, genesis).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn a_fork_that_does_not_fit_its_mother() {
    let (mut world, genesis) = mother();
    let change = |change: &dyn Fn(&mut Genesis)| {
        let mut changed = genesis.clone();
        change(&mut changed);
        changed
    };
    let of = |g: &mut Genesis, f: &dyn Fn(&mut GenesisFork)| f(g.fork.as_mut().unwrap());
    let other_height = change(&|g| of(g, &|f| f.header.header.height += 1));
    refused(&world, &other_height, "stands on height 2");
    let other_chain = change(&|g| {
        of(g, &|f| f.header.header.chain = ChainId::from_bytes([1; 32]));
    });
    refused(&world, &other_chain, "but the state is that");
    let printed = change(&|g| {
        g.accounts
            .insert("coin".into(), json!({"balance": {"me": "1000000"}}));
    });
    refused(&world, &printed, "no accounts of its own");
    let unknown = change(&|g| of(g, &|f| f.dapps.push("door".into())));
    refused(&world, &unknown, "not among its own");
    let another = change(&|g| {
        g.releases.clear();
    });
    refused(&world, &another, "the release that runs on the mother");
    let none = change(&|g| g.fork = None);
    refused(&world, &none, "names no mother");
    // And nobody begins a fork with nothing, by mistake.
    let without = genesis_writes(&genesis, &ChainId::from_bytes(FORK)).unwrap_err();
    assert!(
        without.to_string().contains("which is needed too"),
        "{without}"
    );
    // A state of before or after is not the one that the fork stands on.
    world.block();
    refused(&world, &genesis, "height 2");
}

#[test]
fn a_dapp_that_is_not_taken_over_begins_empty() {
    let (world, mut genesis) = mother();
    genesis.fork.as_mut().unwrap().dapps.clear();
    let state = begin(&world, &genesis).unwrap();
    assert_eq!(state.range("d/", 10).unwrap(), vec![]);
    let lane = world.nodes[0].keys().lane;
    let known = query::key(&state, &lane).unwrap().unwrap();
    assert_eq!(known.purpose, Purpose::Lane);
}
