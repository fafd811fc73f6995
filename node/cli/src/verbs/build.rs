//! `instar build`: a release from a commit.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use instar_attest::ChainId;
use instar_attest::release::{ProgramName, Slot};
use instar_builder::{
    BuildOutcome, BuildRequest, Built, How, Progress, RELEASE_FOLDER, bring, build, is_url,
    without_credentials,
};
use serde_json::json;

use crate::exit::{Negative, facts};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RecipeArg {
    /// Hermetic, from vendored crates, built twice
    Cargo,
    /// Once, from a checkout's warm target folder: not hermetic, and the attestation says so
    CargoWarm,
    /// In Nix's own sandbox, and again with `--check`
    Nix,
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar build                                       # this checkout's HEAD, into ./instar-out\n  instar build https://git.example.org/coin.git --rev v1.2\n  instar build . --rev HEAD --slot dapps/coin --number 2 --name coin --out ../coin-2"
)]
pub struct Args {
    /// A git repository or its URL; the work tree is not looked at
    #[arg(value_name = "REPO", default_value = ".")]
    repo: String,
    /// The commit
    #[arg(long, default_value = "HEAD", conflicts_with = "allow_dirty")]
    rev: String,
    /// Build the work tree with what is not committed; such a build can't be attested
    #[arg(long)]
    allow_dirty: bool,
    /// What the release replaces, `node` or `dapps/NAME`; by default what kind of program the source says it is
    #[arg(long)]
    slot: Option<Slot>,
    /// The release number
    #[arg(long, default_value_t = 1)]
    number: u64,
    /// The program's name; by default as instar.toml says, or like the binary
    #[arg(long)]
    name: Option<ProgramName>,
    /// The chain that it is for; the root CID depends on it
    #[arg(long, value_name = "ID")]
    chain: Option<ChainId>,
    /// The output folder, new or empty: `release/`, `build.json` and the logs
    #[arg(long, value_name = "DIR", default_value = "instar-out")]
    out: PathBuf,
    /// How to build; by default as instar.toml says, or with cargo
    #[arg(long, value_enum)]
    recipe: Option<RecipeArg>,
    /// The checkout whose target folder is warm, for the recipe `cargo-warm`
    #[arg(long, value_name = "DIR", required_if_eq("recipe", "cargo-warm"))]
    warm: Option<PathBuf>,
    /// That checkout's target folder, when it is not `target`
    #[arg(long, value_name = "DIR", requires = "warm")]
    warm_target: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What every build on this machine shares.
#[derive(clap::Args)]
pub struct Place {
    /// What may be kept between builds
    #[arg(long, value_name = "DIR", env = "INSTAR_BUILD_CACHE")]
    cache: Option<PathBuf>,
    /// Jobs of the first build; the second always takes one
    #[arg(short, long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
}

impl Place {
    /// The folder, made if it isn't there yet.
    pub fn cache(&self) -> Result<PathBuf> {
        self.cache.clone().map_or_else(cache, Ok)
    }

    /// How many jobs the first build runs.
    pub const fn jobs(&self) -> usize {
        self.jobs
    }
}

/// The repository on this machine: a folder as it is, a URL brought into the cache.
pub fn repository(repo: &str, cache: &Path) -> Result<PathBuf> {
    if !is_url(repo) {
        return Ok(repo.into());
    }
    eprintln!("bringing {}", without_credentials(repo));
    Ok(bring(repo, cache)?)
}

fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache")));
    Ok(base
        .context("neither XDG_CACHE_HOME nor HOME is set; name a folder with --cache")?
        .join("instar"))
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let how = match (&args.recipe, &args.warm) {
        (Some(RecipeArg::CargoWarm), Some(checkout)) => How::CargoWarm {
            checkout: checkout.clone(),
            target: args
                .warm_target
                .clone()
                .unwrap_or_else(|| checkout.join("target")),
        },
        (Some(RecipeArg::Nix), _) => How::Nix,
        (Some(_), _) => How::Cargo,
        (None, _) => How::AsSourceSays,
    };
    let cache = args.place.cache()?;
    let request = BuildRequest {
        repository: repository(&args.repo, &cache)?,
        revision: args.rev.clone(),
        slot: args.slot.clone(),
        number: args.number,
        name: args.name.clone(),
        allow_dirty: args.allow_dirty,
        how,
        out: args.out.clone(),
        cache,
        jobs: args.place.jobs,
    };
    outcome(build(&request, &mut progress)?, |built, how| {
        report(args, built, how)
    })
}

/// Says what came out, and turns everything but equal bytes into the exit code 1.
pub fn outcome(
    outcome: BuildOutcome,
    report: impl FnOnce(&Built, &str) -> Result<()>,
) -> Result<()> {
    match outcome {
        BuildOutcome::Equal(built) => report(
            &built,
            "built twice under different conditions, with the same bytes",
        ),
        BuildOutcome::Once(built) => report(&built, "built once, not hermetic"),
        BuildOutcome::Different(different) => {
            for file in &different.files {
                eprintln!("{file}");
            }
            if let Some(whole) = &different.diffoscope {
                eprintln!("diffoscope's whole report: {}", whole.display());
            }
            let logs = format!(
                "{} and {}",
                different.logs[0].display(),
                different.logs[1].display()
            );
            Err(Negative(format!("the two builds made different bytes; logs: {logs}")).into())
        }
        BuildOutcome::Failed(failed) => {
            eprintln!("{}", failed.tail.join("\n"));
            Err(Negative(format!(
                "build {} failed ({}); the whole log: {}",
                failed.build,
                failed.ended,
                failed.log.display()
            ))
            .into())
        }
    }
}

/// Tells on stderr how far a build is.
pub fn progress(progress: Progress<'_>) {
    match progress {
        Progress::Extracted(commit) => eprintln!(
            "source: commit {} (tree {})",
            commit.source.commit, commit.source.tree
        ),
        Progress::TargetLeftOut(target) => {
            eprintln!("no standard library for {target} here, left to others")
        }
        Progress::Vendored(n) => eprintln!("{n} vendored crates match Cargo.lock"),
        Progress::Building(n) => eprintln!("build {n}"),
        Progress::Line(line) => eprintln!("  {line}"),
        Progress::FellBack(why) => eprintln!("the warm target folder can't be used: {why}"),
        Progress::Comparing => eprintln!("comparing"),
        Progress::Assembling => eprintln!("assembling"),
    }
}

/// Writes `release.json` beside the files, as the ledger will compute it; the root CID.
fn write_release(built: &Built, chain: ChainId) -> Result<String> {
    let release = crate::release::of_build(&built.out, chain)?;
    let at = built.out.join(RELEASE_FOLDER).join("release.json");
    std::fs::write(&at, release.to_bytes()?).with_context(|| at.display().to_string())?;
    Ok(crate::release::root(&release)?.to_string())
}

fn report(args: &Args, built: &Built, how: &str) -> Result<()> {
    let root = args
        .chain
        .map(|chain| write_release(built, chain))
        .transpose()?;
    let value =
        json!({"out": built.out, "record": built.record, "root": root, "wall_ms": built.wall_ms});
    facts(args.json, &value, |_| {
        let mut lines = vec![how.to_owned()];
        if built.record.dirty {
            lines.push(
                "NOT of the commit: the work tree was changed, so this can't be attested".into(),
            );
        }
        for file in built.record.targets.iter().flat_map(|t| &t.files) {
            lines.push(format!(
                "sha256:{} {} ({} bytes)",
                file.sha256, file.path, file.size
            ));
        }
        lines.push(match root {
            Some(root) => format!("release root on this chain: {root}"),
            None => "the release root depends on the chain; name it with --chain".into(),
        });
        lines.join("\n")
    })
}
