//! `instar audit`: a release's way from source commit to activation, from a clone and a bundle alone.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use cid::Cid;
use instar_attest::release::Source;
use instar_audit::{Report, Supplier, export, run as audit, verify_chain};
use instar_chunks::{BlockStore, Blocks as _, Limits, missing, read_file};

use super::NodeArgs;
use crate::client::Client;
use crate::exit::{Negative, facts};

/// The largest file of a release.
const MAX_FILE_BYTES: u64 = 1 << 30;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar audit bafy… --ledger ledger --node http://127.0.0.1:8080 --export bundle   # collects\n  instar audit bafy… --ledger ledger --bundle bundle                                 # checks, offline"
)]
pub struct Args {
    /// The release's root CID
    cid: String,
    /// A clone of the ledger, made by stock git
    #[arg(long, value_name = "DIR")]
    ledger: PathBuf,
    /// The audit bundle to check
    #[arg(long, value_name = "DIR", required_unless_present = "export")]
    bundle: Option<PathBuf>,
    /// Write an audit bundle here, with the files fetched from the node
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    export: Option<PathBuf>,
    /// A repository that has the release's source commit, for the export
    #[arg(long, value_name = "REPO", requires = "export")]
    source: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    if let Some(out) = &args.export {
        let mut supplier = NodeSupplier {
            client: args.node.client()?,
            source: args.source.clone(),
        };
        export(&args.ledger, &args.cid, &mut supplier, out)?;
        return facts(args.json, &serde_json::json!({"bundle": out}), |_| {
            format!("audit bundle in {}", out.display())
        });
    }
    let Some(bundle) = &args.bundle else {
        bail!("name a bundle with --bundle, or make one with --export")
    };
    print(args.json, &audit(&args.ledger, bundle, &args.cid))
}

/// `instar chain verify`: everything about a clone but the custody of a release.
pub fn verify(clone: &Path, json: bool) -> Result<()> {
    let (report, _) = verify_chain(clone);
    print(json, &report)
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
