//! The genesis commit: a tree with `genesis.json`, and no parent but the mother's block if the chain is a fork. Its id is
//! the chain's.

use super::{
    GENESIS_FILE, GrammarError, Kind, Loose, MAX_TIME_S, Object, commit_head, files_of, same,
    single_file_tree,
};
use crate::genesis::{Genesis, GenesisFork};
use crate::oid::Oid;

const WHAT: &str = "genesis";
/// What the author of a genesis commit, and of no other one, begins with.
const AUTHOR: &str = "author instar <genesis@genesis.instar> ";

/// The bytes of the genesis commit.
pub fn genesis_commit(genesis: &Genesis, tree: &Oid) -> Vec<u8> {
    let mother: Vec<Oid> = genesis.fork.iter().map(GenesisFork::block).collect();
    let head = commit_head(
        tree,
        &mother,
        "instar",
        "genesis@genesis.instar",
        genesis.time_ms / 1000,
    );
    let mut text = format!("{head}\ngenesis {}\n", genesis.chain_name);
    if let Some(fork) = &genesis.fork {
        text += &format!(
            "\nMother: {}\nMother-Height: {}\n",
            fork.mother(),
            fork.height()
        );
    }
    text.into_bytes()
}

/// Whether a commit says that it is a genesis: a walk by first parents ends there, since what is below belongs to the
/// mother. Read leniently; [`read_genesis`] decides.
pub fn is_genesis(commit: &[u8]) -> bool {
    let head_end = commit.windows(2).position(|w| w == b"\n\n");
    commit[..head_end.unwrap_or(commit.len())]
        .split(|b| *b == b'\n')
        .any(|line| line.starts_with(AUTHOR.as_bytes()))
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
    if let Some(fork) = &genesis.fork {
        fork.check(genesis.time_ms)?;
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
