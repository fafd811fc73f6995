//! One small release with four builders, from fixed seeds.

// Each test program uses another part of this module.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;

use instar_attest::bundle::Bundle;
use instar_attest::policy::{OtherKey, Policy, PolicyBuilder, PolicyFormat};
use instar_attest::release::{Activation, Release, ReleaseHead, Source, SourceFormat};
use instar_attest::reveal::{FileMode, FileReveal, SbomReveal};
use instar_attest::statement::{Build, Statement};
use instar_attest::{ChainId, Digest, Purpose, SecretKey};
use serde_json::Value;

pub const TARGET: &str = "x86_64-unknown-linux-gnu";

pub fn builder(i: u8) -> SecretKey {
    SecretKey::from_seed(&[0x10 + i; 32])
}

pub fn account(i: u8) -> SecretKey {
    SecretKey::from_seed(&[0x20 + i; 32])
}

pub fn chain() -> ChainId {
    ChainId::from_bytes([0xc4; 32])
}

pub fn round() -> Digest {
    Digest::from_bytes([0x5e; 32])
}

/// The CID of a content that is one raw leaf: what any IPFS implementation gives it.
pub fn raw_cid(content: &[u8]) -> String {
    let mut bytes = vec![0x01, 0x55, 0x12, 0x20];
    bytes.extend(Digest::of(content).as_bytes());
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |i: usize| bytes.get(i / 8).map_or(0, |b| (b >> (7 - i % 8)) & 1);
    let digits = (0..58).map(|d| (0..5).fold(0, |v, i| (v << 1) | bit(d * 5 + i)) as usize);
    format!(
        "b{}",
        digits.map(|v| alphabet[v] as char).collect::<String>()
    )
}

pub fn file(path: &str, mode: FileMode, content: &[u8]) -> FileReveal {
    FileReveal {
        cid: raw_cid(content).parse().unwrap(),
        dag_size: content.len() as u64,
        mode,
        path: format!("{TARGET}/{path}").parse().unwrap(),
        sha256: Digest::of(content),
        size: content.len() as u64,
    }
}

pub fn files() -> Vec<FileReveal> {
    vec![
        file("dapp.json", FileMode::Plain, b"{\"name\":\"coin\"}"),
        file("rootfs/bin/coin", FileMode::Executable, b"\x7fELF coin 2"),
    ]
}

pub fn sbom() -> SbomReveal {
    let content = b"{\"bomFormat\":\"CycloneDX\"}";
    SbomReveal {
        cid: raw_cid(content).parse().unwrap(),
        dag_size: content.len() as u64,
        path: "sbom.cdx.json".parse().unwrap(),
        sha256: Digest::of(content),
        size: content.len() as u64,
    }
}

pub fn source() -> Source {
    Source {
        commit: "11".repeat(20),
        format: SourceFormat::Sha1,
        tree: "22".repeat(20),
    }
}

pub fn release() -> Release {
    let head = ReleaseHead {
        activation: Activation::Dapp,
        chain: chain(),
        chunk_profile: "instar-cdc-v1".parse().unwrap(),
        name: "coin".parse().unwrap(),
        number: 2,
        protocol: 1,
        slot: "dapps/coin".parse().unwrap(),
        source: source(),
    };
    let targets = BTreeMap::from([(TARGET.parse().unwrap(), files())]);
    Release::assemble(head, &targets, sbom()).unwrap()
}

pub fn build(i: u8) -> Build {
    Build {
        builder: builder(i).public(),
        cargo_lock: Digest::of(b"Cargo.lock"),
        chain: chain(),
        name: "coin".parse().unwrap(),
        number: 2,
        recipe: "cargo-vendored-v1".parse().unwrap(),
        round: round(),
        slot: "dapps/coin".parse().unwrap(),
        source: source(),
        targets: vec![TARGET.parse().unwrap()],
        toolchain: Digest::of(b"toolchain"),
        vendor: Digest::of(b"vendor"),
    }
}

pub fn statement(i: u8) -> Statement {
    Statement::new(build(i), &files(), &sbom()).unwrap()
}

pub fn bundle(i: u8) -> Vec<u8> {
    let bundle = Bundle::sign(&builder(i), &statement(i)).unwrap();
    bundle.to_bytes().unwrap()
}

/// Three of four builders, each with an operator of its own.
pub fn policy() -> Policy {
    Policy {
        builders: (0..4)
            .map(|i| PolicyBuilder {
                key: builder(i).public(),
                name: format!("builder-{i}"),
                operator: format!("operator-{i}"),
            })
            .collect(),
        chain: chain(),
        format: PolicyFormat::V1,
        other_keys: vec![OtherKey {
            key: account(0).public(),
            purpose: Purpose::Account,
        }],
        recipes: vec!["cargo-vendored-v1".parse().unwrap()],
        round: round(),
        source: source(),
        targets: vec![TARGET.parse().unwrap()],
        threshold: 3,
    }
}

/// Compares `value` with the vector file of that name.
pub fn golden(name: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    if std::env::var("INSTAR_VECTORS").as_deref() == Ok("write") {
        std::fs::write(&path, &text).unwrap();
        panic!("{name} is written; run the test again without INSTAR_VECTORS");
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    let stored: Value = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored, *value, "{name} no longer holds");
}
