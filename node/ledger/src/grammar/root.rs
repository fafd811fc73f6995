//! The genesis commit: no parent, a tree with `genesis.json`. Its id is the chain's.

use super::{
    GENESIS_FILE, GrammarError, Kind, Loose, MAX_TIME_S, Object, commit_head, files_of, same,
    single_file_tree,
};
use crate::genesis::Genesis;
use crate::oid::Oid;

const WHAT: &str = "genesis";

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

/// Reads a chain's genesis: `fetch` gives the object of an id. Also gives the bytes of `genesis.json`.
pub fn read_genesis<E: From<GrammarError>>(
    root: &Oid,
    mut fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<(Genesis, Vec<u8>), E> {
    let commit = fetch(root, Kind::Commit)?;
    let tree = fetch(&Loose::read(WHAT, &commit)?.tree, Kind::Tree)?;
    let [(GENESIS_FILE, blob)] = files_of(&tree)?[..] else {
        return Err(GrammarError::Part {
            what: WHAT,
            part: "tree of one genesis.json",
        }
        .into());
    };
    let bytes = fetch(&blob, Kind::Blob)?;
    let genesis = Genesis::from_bytes(&bytes).map_err(|source| GrammarError::Json {
        file: GENESIS_FILE,
        source,
    })?;
    let [rebuilt, ..] = genesis_objects(&genesis)?;
    same(WHAT, &commit, &rebuilt.bytes)?;
    Ok((genesis, bytes))
}
