//! What a fork takes from its mother, the history, the state, and the images of its dapps; and how a history is fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use instar_chain::{StateView, query};
use instar_chunks::{BlockStore, Limits};
use instar_ipfs::sources::{Gateway, Source, fetch_mixed};
use instar_ledger::light::SignedHeader;
use instar_ledger::{Genesis, GenesisDapp, GenesisFork, GenesisRelease, Oid};
use instar_node::core::open;
use instar_node::home::Home;
use instar_state::MAX_DUMP_BYTES;

use crate::client::Client;

/// The largest image of a dapp that is fetched.
const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// Gets a dump of a state into a home. Whose it is, its root has to show.
pub fn fetch_state(client: &Client, path: &str, home: &Home) -> Result<()> {
    client.download(path, &home.mother_state(), MAX_DUMP_BYTES)
}

/// A repository that has the history of `block`: the one that is named, or a new one in the home, with what a node serves.
/// Object ids are hashes, so whatever has this block has its one history.
pub fn history(share: Option<&Path>, client: &Client, block: &Oid, home: &Home) -> Result<PathBuf> {
    if let Some(path) = share {
        // A running node writes its newest blocks into git when somebody asks for its refs, and seconds later else.
        client.find_bytes("/ledger.git/info/refs?service=git-upload-pack")?;
        return path
            .canonicalize()
            .with_context(|| format!("there is no ledger in {}", path.display()));
    }
    let path = home.mother_history();
    fetch_history(client, &path, block, None)?;
    Ok(path)
}

/// Fetches a block with all its history into a repository of its own. What `known` has is not fetched again: its objects are
/// read in their place.
pub fn fetch_history(
    client: &Client,
    path: &Path,
    block: &Oid,
    known: Option<&Path>,
) -> Result<()> {
    if !path.join("HEAD").exists() {
        git(Command::new("git")
            .args(["init", "--quiet", "--bare", "--object-format=sha256", "--"])
            .arg(path))?;
        // Of a ledger that begins later git would believe that it has all of its past.
        if let Some(known) = known.filter(|known| !known.join("shallow").exists()) {
            instar_ledger::store::borrow(path, known)?;
        }
    }
    let url = format!("{}/ledger.git", client.base());
    eprintln!("fetching the history of block {block} from {url}");
    git(Command::new("git")
        .arg("-C")
        .arg(path)
        .args(["fetch", "--quiet", "--no-tags", "--", &url])
        .arg(format!("+{block}:refs/heads/trunk")))
}

fn git(command: &mut Command) -> Result<()> {
    let status = command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
        .status()
        .context("git can't be run")?;
    ensure!(
        status.success(),
        "git could not bring the history; a node keeps its newest blocks only, an archive has all"
    );
    Ok(())
}

/// Names the mother in the genesis of a fork, and takes over all her dapps as they run there.
pub fn take_over(
    genesis: &mut Genesis,
    mother: &Genesis,
    header: SignedHeader,
    state: &dyn StateView,
) -> Result<()> {
    let mut dapps = Vec::new();
    for (name, slot) in query::slots(state)? {
        let Some(dapp) = name.strip_prefix("dapps/") else {
            continue;
        };
        ensure!(
            genesis.releases.iter().all(|r| r.slot != name),
            "{dapp} runs on the mother, so the fork begins with that release of it; upgrade it afterwards"
        );
        if slot.release.is_empty() {
            continue;
        }
        let manifest = mother.dapps.iter().find(|d| d.name == dapp);
        let manifest = manifest
            .with_context(|| format!("the mother's genesis does not name dapp {dapp}"))?
            .manifest
            .clone();
        let release_json = query::release_json(state, &slot.release)?
            .with_context(|| format!("the mother's state lacks release {}", slot.release))?;
        genesis.dapps.push(GenesisDapp {
            manifest,
            name: dapp.to_owned(),
        });
        genesis.releases.push(GenesisRelease {
            number: slot.number,
            release: slot.release,
            release_json,
            slot: name.clone(),
        });
        dapps.push(dapp.to_owned());
    }
    genesis.dapps.sort_by(|a, b| a.name.cmp(&b.name));
    genesis.releases.sort_by(|a, b| a.slot.cmp(&b.slot));
    dapps.sort();
    genesis.fork = Some(GenesisFork { dapps, header });
    Ok(())
}

/// Fetches the images of the dapps that a fork takes over, from a node that runs them.
pub fn images(client: &Client, home: &Home, genesis: &Genesis) -> Result<()> {
    let store = BlockStore::open(&home.blocks())?;
    let taken = genesis.fork.iter().flat_map(|f| &f.dapps);
    for slot in taken.map(|dapp| format!("dapps/{dapp}")) {
        let release = genesis.releases.iter().find(|r| r.slot == slot);
        let release = release.ok_or_else(|| anyhow!("the genesis has no release of {slot}"))?;
        let root = release
            .release
            .parse()
            .with_context(|| release.release.clone())?;
        let sources: [Box<dyn Source>; 1] = [Box::new(Gateway::new(client.base()))];
        let limits = Limits {
            max_total_bytes: MAX_IMAGE_BYTES,
            ..Limits::default()
        };
        fetch_mixed(&store, &sources, &root, &limits, &|_, _| {})
            .with_context(|| format!("the image of {slot} ({root}) can't be had"))?;
        store.pin(&slot, &root)?;
    }
    Ok(())
}

/// Makes the home of somebody who joins a fork, from a node of it.
pub fn join(client: &Client, home: &Home, genesis: &Genesis, share: Option<&Path>) -> Result<()> {
    let Some(fork) = &genesis.fork else {
        bail!("the chain is no fork");
    };
    home.create()?;
    let history = history(share, client, &fork.block(), home)?;
    fetch_state(client, "/v1/mother/state", home)?;
    open::create_fork(home, genesis, &history)?;
    Ok(())
}
