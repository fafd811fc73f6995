//! What every run begins with: four validators, one dapp, one genesis.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use instar_attest::release::{
    Activation, ChunkProfile, Cid, FileMode, FileReveal, Release, ReleaseHead, ReleasePath,
    SbomReveal, Source, SourceFormat, Target,
};
use instar_attest::{ChainId, Digest, SecretKey};
use instar_chain::{Policy, Writes, build, genesis_writes};
use instar_chunks::{Profile, add_file};
use instar_ledger::{DeviceId, Genesis, GenesisDapp, GenesisRelease, GenesisValidator, Keys, Lane};
use serde_json::json;

/// How many validators there are.
pub const VALIDATORS: usize = 4;
/// When a run begins, in milliseconds since 1970.
pub const BEGIN_MS: u64 = 1_700_000_000_000;
/// The dapp whose topic the entries have.
pub const DAPP: &str = "coin";

/// One validator's secrets.
pub struct Secrets {
    /// Signs entries.
    pub account: SecretKey,
    /// Signs votes.
    pub consensus: SecretKey,
    /// Signs lane commits.
    pub lane: SecretKey,
    builder: SecretKey,
}

/// The same for every run.
pub struct World {
    /// The chain's id.
    pub chain: ChainId,
    /// The state before the first block.
    pub writes: Writes,
    /// What the chain started with.
    pub genesis: Genesis,
    /// The validators.
    pub secrets: Vec<Secrets>,
}

fn secret(name: &str) -> SecretKey {
    SecretKey::from_seed(Digest::of(name.as_bytes()).as_bytes())
}

fn cid_of(content: &[u8]) -> (Cid, u64) {
    let added = add_file(Profile::InstarCdcV1, &mut &*content, &mut |_, _| Ok(()));
    let added = added.expect("a few bytes are cut in memory");
    let cid = added.cid.to_string().parse().expect("a CID of our own");
    (cid, added.dag_size)
}

fn release() -> GenesisRelease {
    let target: Target = "x86_64-unknown-linux-gnu".parse().expect("a target");
    let id = |what: &str| Digest::of(what.as_bytes()).to_hex();
    let head = ReleaseHead {
        activation: Activation::Dapp,
        chain: ChainId::from_bytes([0; 32]),
        chunk_profile: ChunkProfile::new("instar-cdc-v1").expect("a profile"),
        name: DAPP.parse().expect("a name"),
        number: 1,
        protocol: 1,
        slot: format!("dapps/{DAPP}").parse().expect("a slot"),
        source: Source {
            commit: id("commit"),
            format: SourceFormat::Sha256,
            tree: id("tree"),
        },
    };
    let (program, sbom) = (b"a dapp that is simulated", b"{}");
    let (cid, dag_size) = cid_of(program);
    let file = FileReveal {
        cid,
        dag_size,
        mode: FileMode::Executable,
        path: ReleasePath::of_target(&target, "rootfs/bin/coin").expect("a path"),
        sha256: Digest::of(program),
        size: program.len() as u64,
    };
    let (cid, dag_size) = cid_of(sbom);
    let sbom = SbomReveal {
        cid,
        dag_size,
        path: "sbom.cdx.json".parse().expect("a path"),
        sha256: Digest::of(sbom),
        size: sbom.len() as u64,
    };
    let files = BTreeMap::from([(target, vec![file])]);
    let release = Release::assemble(head, &files, sbom).expect("a whole release");
    let (release_json, root) = build::release_root(&release).expect("a release has a root");
    GenesisRelease {
        number: 1,
        release: root.to_string(),
        release_json,
        slot: format!("dapps/{DAPP}"),
    }
}

impl World {
    /// The world; it is made once.
    pub fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(Self::new)
    }

    fn new() -> Self {
        let secrets: Vec<Secrets> = (0..VALIDATORS)
            .map(|n| Secrets {
                account: secret(&format!("account {n}")),
                consensus: secret(&format!("consensus {n}")),
                lane: secret(&format!("lane {n}")),
                builder: secret(&format!("builder {n}")),
            })
            .collect();
        let validator = |(n, s): (usize, &Secrets)| GenesisValidator {
            keys: Keys {
                account: s.account.public(),
                builder: s.builder.public(),
                consensus: s.consensus.public(),
                lane: s.lane.public(),
            },
            name: format!("v{n}"),
            operator: format!("operator-{n}"),
            power: 1,
        };
        let genesis = Genesis {
            accounts: BTreeMap::new(),
            chain_name: "simulated".into(),
            dapps: vec![GenesisDapp {
                manifest: json!({}),
                name: DAPP.into(),
            }],
            fork: None,
            kernel: 1,
            operators: Vec::new(),
            policy: serde_json::to_value(Policy::default()).expect("a policy is JSON"),
            protocol: 1,
            releases: vec![release()],
            time_ms: BEGIN_MS,
            validators: secrets.iter().enumerate().map(validator).collect(),
        };
        let chain = genesis.chain_id().expect("this genesis is of the grammar");
        let writes = genesis_writes(&genesis, &chain).expect("a chain can start from this genesis");
        Self {
            chain,
            writes,
            genesis,
            secrets,
        }
    }

    /// The lane of a validator's device.
    pub fn lane(&self, node: usize) -> Lane {
        Lane {
            device: DeviceId::of(&self.secrets[node].lane.public()),
            incarnation: 1,
        }
    }
}
