//! What the chain is about: the coin's releases, and the genesis that has the first of them.

use std::collections::BTreeMap;

use instar_attest::release::{
    Activation, FileMode, FileReveal, Release, ReleaseHead, SbomReveal, Source, SourceFormat,
};
use instar_attest::{ChainId, Digest};
use instar_chain::build::release_root;
use instar_chain::{Policy, SlotPolicy};
use instar_chunks::{Profile, add_file};
use instar_ledger::{
    Genesis, GenesisDapp, GenesisOperator, GenesisRelease, GenesisValidator, Keys,
};
use serde_json::json;

use super::{RECIPE, TARGET, TIME_MS, key};

/// The raw commit that is built.
pub const COMMIT: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@a> 1700000000 +0000\ncommitter A <a@a> 1700000000 +0000\n\ncoin: Add a memo\n";

pub fn source() -> Source {
    let id = git2::Oid::hash_object(git2::ObjectType::Commit, COMMIT.as_bytes()).unwrap();
    Source {
        commit: id.to_string(),
        format: SourceFormat::Sha1,
        tree: COMMIT[5..45].to_owned(),
    }
}

/// Every file of every release, by content.
pub fn contents() -> Vec<Vec<u8>> {
    let big: Vec<u8> = (0..60_000u32)
        .flat_map(|i| (i % 251).to_be_bytes())
        .collect();
    vec![
        b"{\"bomFormat\":\"CycloneDX\"}".to_vec(),
        b"{\"name\":\"coin\"}".to_vec(),
        b"coin 1".to_vec(),
        [b"coin 2 ".to_vec(), big].concat(),
    ]
}

pub(super) fn summary(content: &[u8]) -> instar_chunks::FileSummary {
    let mut from = content;
    add_file(Profile::InstarCdcV1, &mut from, &mut |_, _| Ok(())).unwrap()
}

fn file(path: &str, mode: FileMode, content: &[u8]) -> FileReveal {
    let sum = summary(content);
    FileReveal {
        cid: sum.cid.to_string().parse().unwrap(),
        dag_size: sum.dag_size,
        mode,
        path: format!("{TARGET}/{path}").parse().unwrap(),
        sha256: Digest::from_bytes(sum.sha256),
        size: sum.size,
    }
}

pub fn files(version: usize) -> Vec<FileReveal> {
    let contents = contents();
    vec![
        file("dapp.json", FileMode::Plain, &contents[1]),
        file(
            "rootfs/bin/coin",
            FileMode::Executable,
            &contents[version + 1],
        ),
    ]
}

pub fn sbom() -> SbomReveal {
    let sum = summary(&contents()[0]);
    SbomReveal {
        cid: sum.cid.to_string().parse().unwrap(),
        dag_size: sum.dag_size,
        path: "sbom.cdx.json".parse().unwrap(),
        sha256: Digest::from_bytes(sum.sha256),
        size: sum.size,
    }
}

/// What is upgraded.
#[derive(Clone, Copy)]
pub struct Program {
    pub activation: Activation,
    pub name: &'static str,
    pub slot: &'static str,
}

pub const COIN: Program = Program {
    activation: Activation::Dapp,
    name: "coin",
    slot: "dapps/coin",
};
pub const NODE: Program = Program {
    activation: Activation::Rolling,
    name: "instar",
    slot: "node",
};

pub(super) fn release(chain: ChainId, program: Program, version: usize) -> (String, String) {
    let head = ReleaseHead {
        activation: program.activation,
        chain,
        chunk_profile: Profile::InstarCdcV1.name().parse().unwrap(),
        name: program.name.parse().unwrap(),
        number: version as u64,
        protocol: 1,
        slot: program.slot.parse().unwrap(),
        source: source(),
    };
    let targets = BTreeMap::from([(TARGET.parse().unwrap(), files(version))]);
    let release = Release::assemble(head, &targets, sbom()).unwrap();
    let (text, root) = release_root(&release).unwrap();
    (text, root.to_string())
}

pub(super) fn genesis() -> Genesis {
    let slot_policy = SlotPolicy {
        recipes: vec![RECIPE.into()],
        rehearsal_blocks: 1,
        ..SlotPolicy::default()
    };
    let policy = Policy {
        dapps: slot_policy.clone(),
        node: slot_policy,
        ..Policy::default()
    };
    let (release_json, root) = release(ChainId::from_bytes([0; 32]), COIN, 1);
    Genesis {
        accounts: BTreeMap::new(),
        chain_name: "audited".into(),
        dapps: vec![GenesisDapp {
            manifest: json!({}),
            name: "coin".into(),
        }],
        fork: None,
        kernel: 1,
        operators: vec![GenesisOperator {
            account: key("account", 9).public(),
            name: "developer".into(),
        }],
        policy: serde_json::to_value(policy).unwrap(),
        protocol: 1,
        releases: vec![GenesisRelease {
            number: 1,
            release: root,
            release_json,
            slot: "dapps/coin".into(),
        }],
        time_ms: TIME_MS,
        validators: (0..4)
            .map(|i| GenesisValidator {
                keys: Keys {
                    account: key("account", i).public(),
                    builder: key("builder", i).public(),
                    consensus: key("consensus", i).public(),
                    lane: key("lane", i).public(),
                },
                name: format!("v{i}"),
                operator: format!("operator-{i}"),
                power: 1,
            })
            .collect(),
    }
}
