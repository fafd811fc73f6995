//! `instar attest`: sign what was built, as a bundle for anybody; or commit to it on the ledger, and reveal it with a signed
//! attestation when everybody has committed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use instar_attest::layout;
use instar_attest::provenance::{self, BuilderId, GitLabFacts, Provenance};
use instar_attest::received::Named;
use instar_attest::{Digest, Purpose, SecretKey};
use instar_builder::record::BuildRecord;
use serde_json::json;

use super::NodeArgs;
use super::key::KeyArgs;
use crate::exit::facts;

mod keyless;
mod round;

/// The bundle's file in the build folder.
pub const BUNDLE_FILE: &str = "attestation.sigstore.json";
/// The file of a provenance that no round asked for.
pub const PROVENANCE_FILE: &str = "provenance.sigstore.json";
/// The file of a test result.
pub const TEST_FILE: &str = "test-result.sigstore.json";

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar attest instar-out --key builder.json                         # a bundle for anybody\n  instar attest instar-out --key env:BUILDER_KEY --repository https://git.example.org/coin.git --ref refs/heads/main\n  instar attest instar-out --key tester.json --tested pass            # an in-toto test result\n  instar attest instar-out --keyless                                  # by GitLab's SIGSTORE_ID_TOKEN, no key at all\n  instar attest instar-out --flush-queue                              # what the log could not take then\n  instar attest ../coin-2 --round 4f1c…(64 digits) --key builder.json --token-file ~/node/token"
)]
#[command(group = clap::ArgGroup::new("signer").required(true).args(["key", "keyless", "flush_queue"]))]
pub struct Args {
    /// The folder that `instar build` made
    dir: PathBuf,
    /// The build round on the ledger; without it the bundle is for anybody
    #[arg(long, value_name = "ID")]
    round: Option<Digest>,
    #[command(flatten)]
    key: KeyArgs,
    /// Sign by the identity token in SIGSTORE_ID_TOKEN: Fulcio's certificate, a log entry, a timestamp
    #[arg(long, conflicts_with_all = ["round", "link"])]
    keyless: bool,
    /// Enter the bundles of this folder into the log that was down when they were signed
    #[arg(long, conflicts_with_all = ["round", "link", "tested"])]
    flush_queue: bool,
    /// The private Sigstore instance to sign at, a client trust configuration; else the public one
    #[arg(long, value_name = "FILE")]
    trust_config: Option<PathBuf>,
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
    if args.flush_queue {
        return keyless::flush(args);
    }
    let record = BuildRecord::read(&args.dir)?;
    ensure!(
        !record.dirty,
        "this was built from a work tree that is not the commit's (`--allow-dirty`), so it can't be attested; commit, and build that"
    );
    if args.keyless {
        return keyless::sign(args, &record);
    }
    let key = args.key.load(Purpose::Builder)?;
    if let Some(step) = args.link {
        return link(args, &record, &key, step);
    }
    if args.tested.is_some() || args.round.is_none() {
        return for_anybody(args, &record, &key);
    }
    let round = args.round.context("clap asks for it or for no round")?;
    round::on_ledger(args, &record, &key, round)
}

/// Every file that was built, whatever its target.
fn files(record: &BuildRecord) -> Vec<instar_attest::release::FileReveal> {
    record
        .targets
        .iter()
        .flat_map(|t| t.files.clone())
        .collect()
}

/// What is signed when no round asks, and the name of the bundle's file.
fn statement_of(
    args: &Args,
    record: &BuildRecord,
    builder: BuilderId,
) -> Result<(&'static str, Vec<u8>)> {
    let Some(tested) = args.tested else {
        return Ok((PROVENANCE_FILE, provenance_of(args, record, builder)?));
    };
    let passed = tested == Tested::Pass;
    let statement = provenance::test_result(passed, &args.test_name, &files(record), &record.sbom)?;
    Ok((TEST_FILE, statement))
}

fn for_anybody(args: &Args, record: &BuildRecord, key: &SecretKey) -> Result<()> {
    let (file, statement) = statement_of(args, record, BuilderId::Key(key.public()))?;
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

fn provenance_of(args: &Args, record: &BuildRecord, builder: BuilderId) -> Result<Vec<u8>> {
    let public = |url: &String| instar_builder::without_credentials(url);
    let statement = Provenance {
        builder,
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
