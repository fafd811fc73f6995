//! The genesis commit: no parent, a tree with `genesis.json`. Its id is the chain's.

use super::{GENESIS_FILE, GrammarError, Kind, MAX_TIME_S, Object, commit_head, single_file_tree};
use crate::genesis::Genesis;
use crate::oid::Oid;

/// The bytes of the genesis commit.
pub fn genesis_commit(genesis: &Genesis, tree: &Oid) -> Vec<u8> {
    let head = commit_head(
        tree,
        &[],
        "instar",
        "genesis@genesis.instar",
        genesis.time_ms / 1000,
    );
    format!("{head}\ngenesis {}\n", genesis.chain_name).into_bytes()
}

/// The objects of the genesis: commit, tree, blob.
pub fn genesis_objects(genesis: &Genesis) -> Result<[Object; 3], GrammarError> {
    let broken = |part| GrammarError::Part {
        what: "genesis",
        part,
    };
    // The name stands in a commit message, so it must not be able to look like anything else there.
    let name = genesis.chain_name.as_bytes();
    let named = (1..=63).contains(&name.len())
        && name
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !named {
        return Err(broken("chain name ([a-z0-9-]{1,63})"));
    }
    if genesis.time_ms / 1000 > MAX_TIME_S {
        return Err(broken("time"));
    }
    let bytes = genesis.to_bytes().map_err(|source| GrammarError::Json {
        file: GENESIS_FILE,
        source,
    })?;
    let blob = Object::new(Kind::Blob, bytes);
    let tree = single_file_tree(GENESIS_FILE, &blob);
    let commit = Object::new(Kind::Commit, genesis_commit(genesis, &tree.id));
    Ok([commit, tree, blob])
}
