//! `instar attest`: sign what was built, as a bundle for anybody; or commit to it on the ledger, and reveal it with a signed
//! attestation when everybody has committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use instar_attest::bundle::Bundle;
use instar_attest::layout;
use instar_attest::provenance::{self, GitLabFacts, Provenance};
use instar_attest::received::Named;
use instar_attest::release::{Nonce, commitment, target_digest};
use instar_attest::statement::{Build, Statement};
use instar_attest::{ChainId, Digest, PublicKey, Purpose, SecretKey, keyfile};
use instar_builder::record::BuildRecord;
use instar_ledger::Outcome;
use serde_json::{Value, json};

use super::NodeArgs;
use super::key::KeyArgs;
use crate::client::Client;
use crate::exit::facts;

/// Between two looks at the round.
const POLL: Duration = Duration::from_millis(200);
/// How long a statement may take to become final.
const FINAL: Duration = Duration::from_secs(60);
/// The bundle's file in the build folder.
pub const BUNDLE_FILE: &str = "attestation.sigstore.json";
/// What hides the commitment until it is opened; kept so that a runner that was stopped can still reveal.
const NONCE_FILE: &str = "commitment-nonce";

/// The file of a provenance that no round asked for.
pub const PROVENANCE_FILE: &str = "provenance.sigstore.json";
/// The file of a test result.
pub const TEST_FILE: &str = "test-result.sigstore.json";

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar attest instar-out --key builder.json                         # a bundle for anybody\n  instar attest instar-out --key env:BUILDER_KEY --repository https://git.example.org/coin.git --ref refs/heads/main\n  instar attest instar-out --key tester.json --tested pass            # an in-toto test result\n  instar attest ../coin-2 --round 4f1c…(64 digits) --key builder.json --token-file ~/node/token"
)]
pub struct Args {
    /// The folder that `instar build` made
    dir: PathBuf,
    /// The build round on the ledger; without it the bundle is for anybody
    #[arg(long, value_name = "ID")]
    round: Option<Digest>,
    #[command(flatten)]
    key: KeyArgs,
    /// Where the source comes from, as a URL; by default what `instar build` was told
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// The ref that leads to the commit; by default what `instar build` was told
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Sign how a test of these files went, in the place of how they were built
    #[arg(long, value_name = "RESULT", conflicts_with = "round")]
    tested: Option<Tested>,
    /// What was tested with, for people: the command
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "cargo test",
        requires = "tested"
    )]
    test_name: String,
    /// Write an in-toto link for this step of a layout, in the place of a bundle
    #[arg(long, value_name = "STEP", conflicts_with_all = ["round", "tested"])]
    link: Option<LinkStep>,
    /// Seconds to wait for the others' commitments
    #[arg(long, value_name = "SECONDS", default_value_t = 6 * 3600)]
    wait: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tested {
    Pass,
    Fail,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LinkStep {
    Review,
    Build,
    Test,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let record = BuildRecord::read(&args.dir)?;
    ensure!(
        !record.dirty,
        "this was built from a work tree that is not the commit's (`--allow-dirty`), so it can't be attested; commit, and build that"
    );
    let key = args.key.load(Purpose::Builder)?;
    if let Some(step) = args.link {
        return link(args, &record, &key, step);
    }
    if args.tested.is_some() || args.round.is_none() {
        return for_anybody(args, &record, &key);
    }
    let round = args.round.context("clap asks for it or for no round")?;
    on_ledger(args, &record, &key, round)
}

/// Every file that was built, whatever its target.
fn files(record: &BuildRecord) -> Vec<instar_attest::release::FileReveal> {
    record
        .targets
        .iter()
        .flat_map(|t| t.files.clone())
        .collect()
}

fn for_anybody(args: &Args, record: &BuildRecord, key: &SecretKey) -> Result<()> {
    let (file, statement) = if let Some(tested) = args.tested {
        let passed = tested == Tested::Pass;
        let statement =
            provenance::test_result(passed, &args.test_name, &files(record), &record.sbom)?;
        (TEST_FILE, statement)
    } else {
        (PROVENANCE_FILE, provenance_of(args, record, key)?)
    };
    let bundle = provenance::sign(key, statement)?;
    let path = args.dir.join(file);
    fs::write(&path, &bundle).with_context(|| path.display().to_string())?;
    let value = json!({"builder": key.public(), "key_id": key.public().key_id(), "bundle": path});
    facts(args.json, &value, |_| {
        format!(
            "signed by builder key {}; bundle in {}",
            key.public(),
            path.display()
        )
    })
}

fn provenance_of(args: &Args, record: &BuildRecord, key: &SecretKey) -> Result<Vec<u8>> {
    let public = |url: &String| instar_builder::without_credentials(url);
    let statement = Provenance {
        builder: key.public(),
        name: record.name.clone(),
        recipe: record.recipe.clone(),
        source: record.source.clone(),
        repository: args
            .repository
            .as_ref()
            .map(public)
            .or_else(|| record.repository.clone()),
        reference: args.reference.clone().or_else(|| record.reference.clone()),
        targets: record.targets.iter().map(|t| t.target.clone()).collect(),
        lock: record.cargo_lock,
        toolchain: record.toolchain.digest,
        vendor: record.vendor.digest,
        equal_builds: record.equal_builds,
        gitlab: GitLabFacts::from_variables(|name| std::env::var(name).ok()),
    };
    Ok(statement.statement(&files(record), &record.sbom)?)
}

fn link(args: &Args, record: &BuildRecord, key: &SecretKey, step: LinkStep) -> Result<()> {
    let source = vec![layout::source_artifact(&record.source.commit)];
    let mut built: Vec<Named> = files(record)
        .into_iter()
        .map(|f| Named {
            name: f.path.to_string(),
            sha256: f.sha256,
        })
        .collect();
    built.push(Named {
        name: record.sbom.path.to_string(),
        sha256: record.sbom.sha256,
    });
    let (name, document) = match step {
        LinkStep::Review => ("review", layout::link("review", &[], &source)),
        LinkStep::Build => ("build", layout::link("build", &source, &built)),
        LinkStep::Test => ("test", layout::link("test", &built, &[])),
    };
    let path = args.dir.join(layout::link_name(name, &key.public()));
    fs::write(&path, layout::sign(key, &document)?).with_context(|| path.display().to_string())?;
    facts(args.json, &json!({"link": path, "step": name}), |_| {
        format!("in-toto link for the step {name} in {}", path.display())
    })
}

fn on_ledger(args: &Args, record: &BuildRecord, key: &SecretKey, round: Digest) -> Result<()> {
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
    let beside = provenance::sign(key, provenance_of(args, record, key)?)?;
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
        bail!("{what} was refused: {}", super::receipt::words(&answer));
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
