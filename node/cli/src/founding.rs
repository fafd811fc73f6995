//! How a chain begins: the operators' public files and one plan make one genesis, which has one id for everybody.
//!
//! Nobody is trusted with it: whoever has the same plan, the same public files and the same first releases computes the
//! same bytes, and whoever doesn't gets another id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use instar_attest::release::Release;
use instar_attest::{ChainId, Purpose, keyfile};
use instar_chain::Policy;
use instar_chunks::BlockStore;
use instar_ledger::{
    Genesis, GenesisDapp, GenesisOperator, GenesisRelease, GenesisValidator, Keys,
};
use instar_node::home::Home;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The consensus kernel that a new chain starts with.
const KERNEL: u32 = 1;
/// The largest plan or public file that is read; a genesis of a few thousand accounts fits.
const MAX_FILE_BYTES: usize = 4 << 20;
/// What every validator has a key for.
const PURPOSES: [Purpose; 4] = [
    Purpose::Account,
    Purpose::Builder,
    Purpose::Consensus,
    Purpose::Lane,
];

/// What a public file says of its own format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublicFormat {
    /// The first.
    #[serde(rename = "instar-validator-v1")]
    V1,
}

/// A validator's public file: what its operator gives to the others before a chain begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicValidator {
    /// Multiaddress of its consensus swarm, as the others reach it.
    pub consensus: String,
    /// Multiaddress of its data swarm, as the others reach it.
    pub data: String,
    /// Which version of this shape it is.
    pub format: PublicFormat,
    /// Its public keys.
    pub keys: Keys,
    /// Its name on the ledger.
    pub name: String,
    /// The person or organisation it belongs to.
    pub operator: String,
    /// Its voting power.
    pub power: u64,
}

/// What all operators agree on besides the validators.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// For each dapp, what it starts with; the shape belongs to the dapp.
    #[serde(default)]
    pub accounts: BTreeMap<String, Value>,
    /// A name for people: `[a-z0-9-]{1,63}`.
    pub chain_name: String,
    /// Operators without a validator.
    #[serde(default)]
    pub operators: Vec<GenesisOperator>,
    /// The rules for upgrades.
    #[serde(default)]
    pub policy: Policy,
    /// The genesis time in milliseconds since 1970.
    pub time_ms: u64,
}

/// A release that the chain starts with.
pub struct Admitted {
    /// The slot.
    pub slot: String,
    /// The root CID.
    pub root: String,
    /// Its release.json.
    pub release: Release,
    /// The folder that holds the files, laid out as the release names them.
    pub dir: PathBuf,
}

/// Makes a validator's keys and token in its home; keys that are there stay as they are.
pub fn make_keys(home: &Home) -> Result<Keys> {
    home.create()?;
    for purpose in PURPOSES {
        let file = home.key_file(purpose);
        if !file.exists() {
            keyfile::generate(&file, purpose)?;
        }
    }
    home.token()?;
    public_keys(home)
}

/// The public halves of a home's keys.
pub fn public_keys(home: &Home) -> Result<Keys> {
    let public = |purpose| home.key(purpose).map(|k| k.public());
    Ok(Keys {
        account: public(Purpose::Account)?,
        builder: public(Purpose::Builder)?,
        consensus: public(Purpose::Consensus)?,
        lane: public(Purpose::Lane)?,
    })
}

/// Reads somebody's JSON file: bounded, strict, with the path in the error.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() <= MAX_FILE_BYTES,
        "{} is larger than {MAX_FILE_BYTES} bytes",
        path.display()
    );
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}

/// Takes a folder that `instar build` made as a release that needs no vote.
pub fn admit_built(dir: &Path) -> Result<Admitted> {
    let release = crate::release::of_build(dir, ChainId::from_bytes([0; 32]))
        .with_context(|| format!("{} is no folder that `instar build` made", dir.display()))?;
    admit(release, dir.join("release"))
}

/// Takes a release whose files lie in `dir`.
pub fn admit(release: Release, dir: PathBuf) -> Result<Admitted> {
    Ok(Admitted {
        slot: release.slot.to_string(),
        root: crate::release::root(&release)?.to_string(),
        release,
        dir,
    })
}

/// The genesis that plan, validators and releases make, whatever order they are named in.
pub fn genesis(
    plan: &Plan,
    validators: &[PublicValidator],
    admitted: &[Admitted],
) -> Result<Genesis> {
    ensure!(!validators.is_empty(), "a chain needs validators");
    let mut members: Vec<GenesisValidator> = validators
        .iter()
        .map(|v| GenesisValidator {
            keys: v.keys.clone(),
            name: v.name.clone(),
            operator: v.operator.clone(),
            power: v.power,
        })
        .collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let mut releases = Vec::new();
    let mut dapps = Vec::new();
    for a in admitted {
        if let Some(name) = a.release.slot.dapp_name() {
            dapps.push(GenesisDapp {
                manifest: manifest(a)?,
                name: name.to_string(),
            });
        }
        releases.push(GenesisRelease {
            number: a.release.number,
            release: a.root.clone(),
            release_json: String::from_utf8(a.release.to_bytes()?)
                .context("release.json is ASCII")?,
            slot: a.slot.clone(),
        });
    }
    dapps.sort_by(|a, b| a.name.cmp(&b.name));
    releases.sort_by(|a, b| a.slot.cmp(&b.slot));
    let slots: BTreeSet<&String> = releases.iter().map(|r| &r.slot).collect();
    ensure!(
        slots.len() == releases.len(),
        "two releases are given for one slot"
    );
    if let Some(unknown) = plan
        .accounts
        .keys()
        .find(|name| dapps.iter().all(|d| d.name != **name))
    {
        bail!("the plan gives accounts to dapp {unknown}, but no release of it is admitted");
    }
    Ok(Genesis {
        accounts: plan.accounts.clone(),
        chain_name: plan.chain_name.clone(),
        dapps,
        fork: None,
        kernel: KERNEL,
        operators: plan.operators.clone(),
        policy: serde_json::to_value(&plan.policy)?,
        protocol: crate::release::PROTOCOL,
        releases,
        time_ms: plan.time_ms,
        validators: members,
    })
}

/// The manifest that a dapp's release carries.
fn manifest(admitted: &Admitted) -> Result<Value> {
    let mut files = admitted.release.files.iter();
    let path = files
        .find(|f| f.path.as_str().ends_with("/dapp.json"))
        .with_context(|| format!("the release of {} has no dapp.json", admitted.slot))?;
    read(&admitted.dir.join(path.path.as_str()))
}

/// Makes the ledger and the state of a home from a genesis, and stores the releases that it admits.
pub fn found(home: &Home, genesis: &Genesis, admitted: &[Admitted]) -> Result<ChainId> {
    let chain = instar_node::core::open::create(home, genesis)?;
    store_releases(home, admitted)?;
    Ok(chain)
}

/// Stores releases in a home's block store, and pins them.
pub fn store_releases(home: &Home, admitted: &[Admitted]) -> Result<()> {
    let store = BlockStore::open(&home.blocks())?;
    for release in admitted {
        store_release(&store, release)?;
    }
    Ok(())
}

fn store_release(store: &BlockStore, admitted: &Admitted) -> Result<()> {
    let root = crate::release::store(&admitted.dir, &admitted.release, &mut |cid, bytes| {
        instar_chunks::Blocks::put(store, cid, bytes).map_err(std::io::Error::other)
    })?;
    ensure!(
        root.to_string() == admitted.root,
        "{} holds another release than {}",
        admitted.dir.display(),
        admitted.root
    );
    store.pin(&admitted.slot, &root)?;
    Ok(())
}
