//! `instar chain verify`: everything about a chain that a clone of its ledger shows, from genesis on, offline.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cid::Cid;
use instar_attest::{ChainId, Digest};
use instar_audit::{Counts, Settings, Trusted, Verdict, verify};
use instar_chain::{DappCall, DappFailure, DappHost, DappResult};
use instar_chunks::{BlockStore, Limits};
use instar_ipfs::sources::fetch_mixed;
use instar_ledger::Oid;
use instar_runtime::Runtime;
use serde::Serialize;

use crate::exit::{Negative, Untold, facts};
use crate::store::StoreArgs;
use crate::verbs::get::{Open, Sources};

/// Between two signs of life on a terminal, where one line is written over.
const ON_TERMINAL: Duration = Duration::from_millis(250);
/// Between two signs of life elsewhere, where each is a line that stays.
const ELSEWHERE: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  instar chain verify ledger --chain 3f0c…                        a clone made by stock git
  instar chain verify http://127.0.0.1:8080/ledger.git            clones it first, and only fetches the next time
  instar chain verify ledger --dapps --car images.car             runs every dapp again, images from a CAR file
  instar chain verify ledger --from 120000:9ab1…                  signatures up to there on your word

What was verified is kept, so that the same command goes on where it was interrupted; --fresh starts over.
Exit codes: 0 it holds · 1 it does not, or the command failed · 2 wrong use · 3 it could not be told.")]
pub struct Args {
    /// A clone, made by stock git, or the URL of a ledger
    #[arg(value_name = "PATH|URL")]
    ledger: String,
    /// The chain that it must be
    #[arg(long, value_name = "ID")]
    chain: Option<ChainId>,
    /// Signatures and certificates up to this height are taken on your word; with :BLOCK, only if that is the block
    #[arg(long, value_name = "HEIGHT[:BLOCK]", value_parser = parse_from)]
    from: Option<Trusted>,
    /// Run every dapp again, in its container, and compare the whole state
    #[arg(long)]
    dapps: bool,
    /// Start over, whatever was verified before
    #[arg(long)]
    fresh: bool,
    /// Folder for what was verified, clones and images [default: $XDG_CACHE_HOME/instar/verify, or ~/.cache/instar/verify]
    #[arg(long, value_name = "DIR", env = "INSTAR_VERIFY_WORK")]
    work: Option<PathBuf>,
    #[command(flatten)]
    images: Sources,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_from(text: &str) -> Result<Trusted, String> {
    let (height, block) = match text.split_once(':') {
        Some((height, block)) => (height, Some(block)),
        None => (text, None),
    };
    Ok(Trusted {
        height: height
            .parse::<u64>()
            .map_err(|e| format!("{height:?}: {e}"))?,
        block: block
            .map(|id| id.parse::<Oid>().map_err(|e| format!("{id:?}: {e}")))
            .transpose()?,
    })
}

/// The answer, and where the images of dapps came from.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    images: BTreeMap<String, String>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let work = match &args.work {
        Some(work) => work.clone(),
        None => default_work()?,
    };
    std::fs::create_dir_all(&work)
        .with_context(|| format!("the folder {} can't be made", work.display()))?;
    let clone = match args.ledger.contains("://") {
        true => bring(&args.ledger, &work)?,
        false => PathBuf::from(&args.ledger),
    };
    let mut images = match args.dapps {
        true => Some(Images::open(args, &work)?),
        false => None,
    };
    let progress = progress_file(&work, &clone, args.dapps)?;
    let mut life = Life::new();
    let mut tell = |height: u64, of: u64, counts: &Counts| life.show(height, of, counts);
    let mut note = |text: &str| eprintln!("{text}");
    let verdict = verify(
        &clone,
        Settings {
            chain: args.chain,
            trusted: args.from,
            dapps: images.as_mut().map(|host| host as &mut dyn DappHost),
            progress: Some(&progress),
            fresh: args.fresh,
            tell: Some(&mut tell),
            note: Some(&mut note),
        },
    );
    life.end();
    let answer = Answer {
        verdict: &verdict,
        images: images.map(|i| i.seen).unwrap_or_default(),
    };
    facts(args.json, &answer, |a| words(a.verdict))?;
    match (&verdict.wrong, &verdict.cannot_tell) {
        (Some(wrong), _) => Err(Negative(format!("the chain does not hold: {wrong}")).into()),
        (None, Some(why)) => Err(Untold(format!(
            "it can't be told whether the chain holds above height {}: {why}",
            verdict.verified_height
        ))
        .into()),
        (None, None) => Ok(()),
    }
}

fn words(verdict: &Verdict) -> String {
    let checked = &verdict.checked;
    let mut lines = Vec::new();
    if let Some(chain) = &verdict.chain {
        lines.push(format!("chain       {chain}"));
    }
    for mother in verdict.forked_from.iter().rev() {
        lines.push(format!(
            "fork of     {} at height {}",
            mother.chain, mother.height
        ));
    }
    if let Some(head) = &verdict.head {
        lines.push(format!("head        {} at height {}", head, verdict.height));
    }
    lines.push(format!(
        "checked     {} blocks, {} certificates, {} lane commits of {} devices, {} entries, {} signatures",
        checked.blocks,
        checked.certificates,
        checked.lane_commits,
        checked.signers.len(),
        checked.entries,
        checked.signatures
    ));
    lines.push(format!(
        "recomputed  every receipt{}, {} of {} state roots",
        match verdict.dapps_run {
            true => " with dapps run again",
            false => " by the native rules",
        },
        checked.state_roots,
        checked.blocks
    ));
    for sentence in &verdict.not_checked {
        lines.push(format!("NOT checked {sentence}"));
    }
    lines.push(match (&verdict.wrong, &verdict.cannot_tell) {
        (Some(wrong), _) => format!(
            "WRONG       {wrong}\nholds up to height {}",
            verdict.verified_height
        ),
        (None, Some(_)) => format!("holds up to height {}", verdict.verified_height),
        (None, None) => "it holds".to_owned(),
    });
    lines.join("\n")
}

fn default_work() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = set("XDG_CACHE_HOME") {
        return Ok(Path::new(&cache).join("instar/verify"));
    }
    match set("HOME") {
        Some(home) => Ok(Path::new(&home).join(".cache/instar/verify")),
        None => bail!("there is no home folder to keep progress in; name a folder with --work DIR"),
    }
}

/// One file for each clone and strictness: two clones of one chain may stand at different heights.
fn progress_file(work: &Path, clone: &Path, dapps: bool) -> Result<PathBuf> {
    let place = clone
        .canonicalize()
        .with_context(|| format!("there is no clone in {}", clone.display()))?;
    let name = Digest::of(place.as_os_str().as_encoded_bytes()).to_hex();
    let kind = if dapps { "dapps" } else { "native" };
    Ok(work.join(format!("{}.{kind}", &name[..16])))
}

/// Clones a ledger, or fetches what is new if it was cloned before.
fn bring(url: &str, work: &Path) -> Result<PathBuf> {
    let name = Digest::of(url.as_bytes()).to_hex();
    let clone = work.join(format!("{}.git", &name[..16]));
    let mut command = Command::new("git");
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh");
    let there = clone.join("HEAD").exists();
    if there {
        command.arg("-C").arg(&clone).args([
            "fetch",
            "--quiet",
            "--",
            url,
            "+refs/heads/*:refs/heads/*",
        ]);
    } else {
        command
            .args(["clone", "--quiet", "--bare", "--", url])
            .arg(&clone);
    }
    eprintln!(
        "{} {url} {} {}",
        if there { "fetching" } else { "cloning" },
        if there { "into" } else { "to" },
        clone.display()
    );
    let status = command.status().context("git can't be run")?;
    if !status.success() {
        bail!("git could not bring {url}");
    }
    Ok(clone)
}

/// Runs dapps, and brings the images they need from where the user said.
struct Images {
    runtime: Runtime,
    store: Arc<BlockStore>,
    open: Open,
    /// Release → where its blocks came from.
    seen: BTreeMap<String, String>,
}

impl Images {
    fn open(args: &Args, work: &Path) -> Result<Self> {
        let store = Arc::new(args.store.open()?);
        let open = args.images.open(&store)?;
        let runtime = Runtime::new(&work.join("images"), Arc::clone(&store))?;
        Ok(Self {
            runtime,
            store,
            open,
            seen: BTreeMap::new(),
        })
    }

    fn bring(&mut self, dapp: &str, release: &str) -> Result<()> {
        if self.seen.contains_key(release) {
            return Ok(());
        }
        let cid: Cid = release.parse()?;
        self.open.seek(&cid);
        let quiet = |_: usize, _: u64| {};
        let report = fetch_mixed(
            &*self.store,
            self.open.sources(),
            &cid,
            &Limits::default(),
            &quiet,
        )?;
        let mut from: Vec<String> = report
            .sources
            .iter()
            .filter(|s| s.blocks > 0)
            .map(|s| format!("{} blocks from {}", s.blocks, s.name))
            .collect();
        let had = (report.blocks as u64).saturating_sub(report.fetched_blocks);
        if had > 0 || from.is_empty() {
            from.push(format!("{had} blocks from the local store"));
        }
        let from = from.join(", ");
        eprintln!("dapp {dapp}: image {release}: {from}");
        self.seen.insert(release.to_owned(), from);
        Ok(())
    }
}

impl DappHost for Images {
    fn run(&mut self, call: DappCall<'_>) -> Result<DappResult, DappFailure> {
        self.bring(call.dapp, call.release).map_err(|e| {
            DappFailure::Abstain(format!(
                "its image {} can't be had ({e:#}); name a source with --car, --node, --gateway, --kubo, --peer or --dht",
                call.release
            ))
        })?;
        self.runtime.run(call)
    }
}

/// Shows that it goes on.
struct Life {
    start: Instant,
    shown: Instant,
    terminal: bool,
    any: bool,
}

impl Life {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            shown: now,
            terminal: std::io::stderr().is_terminal(),
            any: false,
        }
    }

    fn show(&mut self, height: u64, of: u64, counts: &Counts) {
        let every = match self.terminal {
            true => ON_TERMINAL,
            false => ELSEWHERE,
        };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let text = format!(
            "height {height} of {of}, {} entries, {} s",
            counts.entries,
            self.start.elapsed().as_secs()
        );
        let mut stderr = std::io::stderr();
        // Talk that can't be written is no failure.
        let _ = match self.terminal {
            true => write!(stderr, "\r{text}    "),
            false => writeln!(stderr, "{text}"),
        };
        self.any = true;
    }

    fn end(&self) {
        if self.any && self.terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}
