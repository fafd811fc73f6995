//! `instar audit`: a release's way from source commit to activation, from a clone and a bundle alone.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use cid::Cid;
use instar_attest::release::Source;
use instar_audit::archive::{pack, unpack};
use instar_audit::bundle::{Bundle, LEDGER_FILE};
use instar_audit::page::page;
use instar_audit::{Report, Supplier, export_verified, run as audit, run_after, verify_chain};
use instar_chunks::{BlockStore, Blocks as _, Limits, missing, read_file};

use super::NodeArgs;
use crate::client::Client;
use crate::exit::{Negative, facts};

mod ledger;

/// The largest file of a release.
const MAX_FILE_BYTES: u64 = 1 << 30;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar audit bafy… --ledger http://node.example.org/ledger.git --export coin-2.audit   # collects, checks, keeps\n  instar audit --bundle coin-2.audit                           # checks it again, offline, from this one file\n  instar audit --bundle coin-2.audit --html coin-2.html        # the chain of custody as a page"
)]
pub struct Args {
    /// The release's root CID; with a bundle, the one that it must be about
    #[arg(value_name = "CID", required_unless_present = "bundle")]
    cid: Option<String>,
    /// The ledger: a node's URL, a clone made by stock git, or a git bundle; by default that of --node
    #[arg(long, value_name = "URL|PATH")]
    ledger: Option<String>,
    /// The audit bundle to check: one file, or the folder that it was unpacked to
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Write all that the audit rests on into this one file
    #[arg(long, value_name = "FILE", conflicts_with = "bundle")]
    export: Option<PathBuf>,
    /// A repository that has the release's source commit, where the bundle is collected
    #[arg(long, value_name = "REPO", conflicts_with = "bundle")]
    source: Option<PathBuf>,
    /// Also write the chain of custody as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let report = match &args.bundle {
        Some(bundle) => check(args, bundle, scratch.path())?,
        None => collect(args, scratch.path())?,
    };
    if let Some(at) = &args.html {
        std::fs::write(at, page(&report)).with_context(|| at.display().to_string())?;
    }
    print(args.json, &report)
}

/// Checks a bundle that was made before, with nothing but it, or it and a ledger of one's own.
fn check(args: &Args, bundle: &Path, scratch: &Path) -> Result<Report> {
    let dir = if bundle.is_dir() {
        bundle.to_owned()
    } else {
        let dir = scratch.join("bundle");
        unpack(bundle, &dir)?;
        dir
    };
    let clone = scratch.join("ledger");
    match &args.ledger {
        Some(ledger) => ledger::fetch(ledger, &clone)?,
        None => {
            let inside = dir.join(LEDGER_FILE);
            ensure!(
                inside.is_file(),
                "{} holds no ledger; name one with --ledger",
                bundle.display()
            );
            ledger::fetch(&inside.display().to_string(), &clone)?;
        }
    }
    let cid = match &args.cid {
        Some(cid) => cid.clone(),
        None => Bundle::at(&dir).about()?.release,
    };
    Ok(audit(&clone, &dir, &cid))
}

/// Collects what the audit rests on from a ledger and a node, checks it, and keeps it where that was asked for.
fn collect(args: &Args, scratch: &Path) -> Result<Report> {
    let cid = args.cid.as_ref().context("clap asks for it")?;
    let from = args
        .ledger
        .clone()
        .unwrap_or_else(|| format!("{}/ledger.git", args.node.node.trim_end_matches('/')));
    if let Some(out) = &args.export {
        ensure!(!out.exists(), "{} is there already", out.display());
    }
    let mut node = args.node.clone();
    if let Some(same) = ledger::node_of(&from) {
        node.node = same;
    }
    let clone = scratch.join("ledger");
    ledger::fetch(&from, &clone)?;
    let (report, verified) = verify_chain(&clone);
    let Some(verified) = verified else {
        return Ok(report);
    };
    let dir = scratch.join("bundle");
    let mut supplier = NodeSupplier {
        client: node.client()?,
        source: args.source.clone(),
    };
    export_verified(&verified, cid, &mut supplier, &dir)?;
    ledger::bundle(&clone, &ledger::absolute(&dir)?.join(LEDGER_FILE))?;
    let report = run_after(report, &verified, &dir, cid);
    if let Some(out) = &args.export {
        // Kept whatever the answer is: what does not hold is worth showing to others, too.
        pack(&dir, out)?;
        eprintln!("audit bundle in {}", out.display());
    }
    Ok(report)
}

fn print(json: bool, report: &Report) -> Result<()> {
    facts(json, report, words)?;
    match report.refused_by() {
        None if report.ok => Ok(()),
        Some(step) => Err(Negative(format!("{} does not hold: {}", step.name, step.detail)).into()),
        None => Err(Negative("not everything was shown".into()).into()),
    }
}

fn words(report: &Report) -> String {
    let mut lines: Vec<String> = report
        .steps
        .iter()
        .map(|s| {
            format!(
                "{} {}: {}",
                if s.ok { "ok     " } else { "REFUSED" },
                s.name,
                s.detail
            )
        })
        .collect();
    lines.push(match (report.ok, report.activated_at) {
        (true, Some(height)) => format!("verified: live since height {height}"),
        (true, None) => "verified".into(),
        (false, _) => "NOT verified".into(),
    });
    lines.join("\n")
}

/// Fetches what no ledger holds: files from a node, each block verified, and the commit from a git repository.
struct NodeSupplier {
    client: Client,
    source: Option<PathBuf>,
}

impl Supplier for NodeSupplier {
    fn file(&mut self, cid: &str) -> io::Result<Box<dyn Read + '_>> {
        let cid: Cid = cid.parse().map_err(io::Error::other)?;
        let scratch = tempfile::tempdir()?;
        let store =
            BlockStore::open(&scratch.path().join("blocks.redb")).map_err(io::Error::other)?;
        fetch(&self.client, &store, &cid).map_err(io::Error::other)?;
        let content = read_file(&store, &cid, MAX_FILE_BYTES).map_err(io::Error::other)?;
        Ok(Box::new(Cursor::new(content)))
    }

    fn source_commit(&mut self, source: &Source) -> io::Result<Option<Vec<u8>>> {
        let Some(repository) = &self.source else {
            return Ok(None);
        };
        let output = Command::new("git")
            .args(["-c", "safe.directory=*", "-C"])
            .arg(repository)
            .args(["cat-file", "commit", &source.commit])
            .output()?;
        Ok(output.status.success().then_some(output.stdout))
    }
}

/// Brings the blocks below `root` from a node into `store`, each hashed before it is kept. How many came.
pub fn fetch(client: &Client, store: &BlockStore, root: &Cid) -> Result<u64> {
    let mut blocks = 0;
    loop {
        let wanted = missing(store, root, &Limits::default())?;
        if wanted.is_empty() {
            return Ok(blocks);
        }
        for cid in wanted {
            let Some(bytes) = client.find_bytes(&format!("/ipfs/{cid}?format=raw"))? else {
                bail!("{} does not have block {cid}", client.base());
            };
            store.put(&cid, &bytes)?;
            blocks += 1;
        }
    }
}
