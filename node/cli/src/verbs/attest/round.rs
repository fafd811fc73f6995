//! For a build round on the ledger: commit, wait until everybody has, reveal with a signed attestation.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use instar_attest::bundle::Bundle;
use instar_attest::provenance::{self, BuilderId};
use instar_attest::release::{Nonce, commitment, target_digest};
use instar_attest::statement::{Build, Statement};
use instar_attest::{ChainId, Digest, PublicKey, SecretKey, keyfile};
use instar_builder::record::BuildRecord;
use instar_ledger::Outcome;
use serde_json::{Value, json};

use super::{Args, BUNDLE_FILE, PROVENANCE_FILE, files, provenance_of};
use crate::client::Client;
use crate::exit::facts;
use crate::verbs::receipt;

/// Between two looks at the round.
const POLL: Duration = Duration::from_millis(200);
/// How long a statement may take to become final.
const FINAL: Duration = Duration::from_secs(60);
/// What hides the commitment until it is opened; kept so that a runner that was stopped can still reveal.
const NONCE_FILE: &str = "commitment-nonce";

/// Commits and reveals.
pub(super) fn on_ledger(
    args: &Args,
    record: &BuildRecord,
    key: &SecretKey,
    round: Digest,
) -> Result<()> {
    let client = args.node.client()?;
    let chain = client.status()?.chain;
    let round_path = format!("/v1/rounds/{round}");
    let asked: Value = client.get(&round_path)?;
    ensure!(
        asked["source"] == serde_json::to_value(&record.source)?,
        "the round is for source {}, this is built from {}",
        asked["source"],
        record.source.commit
    );
    let nonce = nonce(&args.dir)?;
    let bundle = sign(&args.dir, record, key, chain, round)?;
    // The reveal's statement has a fixed form; what the CI says about itself stands in a bundle beside it.
    let beside = provenance::sign(
        key,
        provenance_of(args, record, BuilderId::Key(key.public()))?,
    )?;
    let path = args.dir.join(PROVENANCE_FILE);
    fs::write(&path, beside).with_context(|| path.display().to_string())?;

    let id = client.statement(
        "build",
        commit_body(record, &key.public(), chain, round, &nonce),
    )?;
    must_apply(&client, &id, "the commitment")?;
    eprintln!("committed in entry {id}, waiting for the others");
    wait_for_reveal(&client, &round_path, Duration::from_secs(args.wait))?;
    let id = client.statement("build", reveal_body(record, round, &nonce, &bundle))?;
    must_apply(&client, &id, "the reveal")?;
    let value = json!({"round": round, "reveal": id, "builder": key.public(), "bundle": args.dir.join(BUNDLE_FILE)});
    facts(args.json, &value, |_| {
        format!(
            "revealed in entry {id}; attestation in {}",
            args.dir.join(BUNDLE_FILE).display()
        )
    })
}

fn nonce(dir: &Path) -> Result<Nonce> {
    let path = dir.join(NONCE_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .with_context(|| path.display().to_string()),
        Err(_) => {
            let nonce = Nonce::from_bytes(*keyfile::os_seed()?);
            fs::write(&path, nonce.to_hex()).with_context(|| path.display().to_string())?;
            Ok(nonce)
        }
    }
}

fn sign(
    dir: &Path,
    record: &BuildRecord,
    key: &SecretKey,
    chain: ChainId,
    round: Digest,
) -> Result<Vec<u8>> {
    let build = Build {
        builder: key.public(),
        cargo_lock: record.cargo_lock,
        chain,
        name: record.name.clone(),
        number: record.number,
        recipe: record.recipe.clone(),
        round,
        slot: record.slot.clone(),
        source: record.source.clone(),
        targets: record.targets.iter().map(|t| t.target.clone()).collect(),
        toolchain: record.toolchain.digest,
        vendor: record.vendor.digest,
    };
    let statement = Statement::new(build, &files(record), &record.sbom)?;
    let bytes = Bundle::sign(key, &statement)?.to_bytes()?;
    let path = dir.join(BUNDLE_FILE);
    fs::write(&path, &bytes).with_context(|| path.display().to_string())?;
    Ok(bytes)
}

fn commit_body(
    record: &BuildRecord,
    builder: &PublicKey,
    chain: ChainId,
    round: Digest,
    nonce: &Nonce,
) -> Value {
    let commitments: Vec<Value> = record
        .targets
        .iter()
        .map(|t| {
            let digest = commitment(
                builder,
                &chain,
                &target_digest(&t.files),
                nonce,
                &round,
                &t.target,
            );
            json!({"target": t.target, "digest": digest})
        })
        .collect();
    json!({"op": "commit", "round": round, "commitments": commitments})
}

fn reveal_body(record: &BuildRecord, round: Digest, nonce: &Nonce, bundle: &[u8]) -> Value {
    let reveals: Vec<Value> = record
        .targets
        .iter()
        .map(|t| json!({"target": t.target, "nonce": nonce, "files": t.files}))
        .collect();
    json!({"op": "reveal", "round": round, "reveals": reveals, "sbom": record.sbom, "bundle": String::from_utf8_lossy(bundle)})
}

fn must_apply(client: &Client, id: &Digest, what: &str) -> Result<()> {
    let answer = client.wait_receipt(id, FINAL)?;
    if answer.receipt.outcome != Outcome::Applied {
        bail!("{what} was refused: {}", receipt::words(&answer));
    }
    Ok(())
}

fn wait_for_reveal(client: &Client, path: &str, patience: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        // A node that is restarted in the middle is no reason to give up.
        let phase = client
            .get::<Value>(path)
            .map(|r| r["phase"].as_str().unwrap_or_default().to_owned());
        match phase.as_deref() {
            Ok("reveal") => return Ok(()),
            Ok("commit") | Err(_) => {}
            Ok(other) => {
                bail!("the round is {other} already; a reveal now would only be a confirmation")
            }
        }
        if start.elapsed() > patience {
            bail!(
                "the round did not reach its reveal phase within {} s",
                patience.as_secs()
            );
        }
        std::thread::sleep(POLL);
    }
}
