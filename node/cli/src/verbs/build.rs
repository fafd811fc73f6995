//! `instar build`: a release from a commit.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use instar_attest::ChainId;
use instar_attest::release::{ProgramName, Slot};
use instar_builder::{BuildOutcome, BuildRequest, Built, How, Progress, build};
use serde_json::json;

use crate::exit::{Negative, facts};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RecipeArg {
    /// Hermetic, from vendored crates, built twice
    Cargo,
    /// Once, from a checkout's warm target folder: not hermetic, and the attestation says so
    CargoWarm,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar build . --rev HEAD --slot dapps/coin --number 2 --name coin --out ../coin-2"
)]
pub struct Args {
    /// A git repository; its work tree is never looked at
    #[arg(value_name = "REPO", default_value = ".")]
    repo: PathBuf,
    /// The commit
    #[arg(long, default_value = "HEAD")]
    rev: String,
    /// What the release replaces: `node` or `dapps/NAME`
    #[arg(long)]
    slot: Slot,
    /// The release number
    #[arg(long)]
    number: u64,
    /// The program's name
    #[arg(long)]
    name: ProgramName,
    /// The chain that it is for; the root CID depends on it
    #[arg(long, value_name = "ID")]
    chain: Option<ChainId>,
    /// The output folder, new or empty: `release/`, `build.json` and the logs
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How to build
    #[arg(long, value_enum, default_value = "cargo")]
    recipe: RecipeArg,
    /// The checkout whose target folder is warm, for the recipe `cargo-warm`
    #[arg(long, value_name = "DIR", required_if_eq("recipe", "cargo-warm"))]
    warm: Option<PathBuf>,
    /// That checkout's target folder, when it is not `target`
    #[arg(long, value_name = "DIR", requires = "warm")]
    warm_target: Option<PathBuf>,
    /// What may be kept between builds
    #[arg(long, value_name = "DIR", env = "INSTAR_BUILD_CACHE")]
    cache: Option<PathBuf>,
    /// Jobs of the first build; the second always takes one
    #[arg(short, long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
        (RecipeArg::CargoWarm, Some(checkout)) => How::CargoWarm {
            checkout: checkout.clone(),
            target: args
                .warm_target
                .clone()
                .unwrap_or_else(|| checkout.join("target")),
        },
        _ => How::Cargo,
    };
    let request = BuildRequest {
        repository: args.repo.clone(),
        revision: args.rev.clone(),
        slot: args.slot.clone(),
        number: args.number,
        name: args.name.clone(),
        how,
        out: args.out.clone(),
        cache: args.cache.clone().map_or_else(cache, Ok)?,
        jobs: args.jobs,
    };
    match build(&request, &mut progress)? {
        BuildOutcome::Equal(built) => report(
            args,
            &built,
            "built twice under different conditions, with the same bytes",
        ),
        BuildOutcome::Once(built) => report(args, &built, "built once, not hermetic"),
        BuildOutcome::Different(different) => {
            for file in &different.files {
                eprintln!("{file}");
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

fn progress(progress: Progress<'_>) {
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

fn report(args: &Args, built: &Built, how: &str) -> Result<()> {
    let root = args
        .chain
        .map(|chain| crate::release::root(&crate::release::of_build(&built.out, chain)?))
        .transpose()?;
    let root = root.map(|r| r.to_string());
    let value =
        json!({"out": built.out, "record": built.record, "root": root, "wall_ms": built.wall_ms});
    facts(args.json, &value, |_| {
        let mut lines = vec![how.to_owned()];
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
