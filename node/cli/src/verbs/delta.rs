//! `instar delta`: from one release to the next with as few bytes as can be.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use cid::Cid;
use clap::Subcommand;
use instar_delta::release::{Choice, List, apply_release, make_release};
use serde_json::{Value, json};

use crate::exit::facts;

/// What can be done with deltas.
#[derive(Subcommand)]
pub enum Verb {
    /// Make the delta that leads from one release to another
    Make(MakeArgs),
    /// Rebuild a release from an older one and a delta
    Apply(ApplyArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar delta make release-7 release-8 -o 7-to-8.delta")]
pub struct MakeArgs {
    /// The release that the receiver has: a folder, or a file
    old: PathBuf,
    /// The release that it wants
    new: PathBuf,
    /// Where to write the delta; must not exist
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar delta apply release-7 7-to-8.delta -o release-8 --cid bafybei…\n\nNothing is kept unless every content address comes out; then fetch the blocks: instar get CID -o release-8"
)]
pub struct ApplyArgs {
    /// The release that is there
    old: PathBuf,
    /// The delta
    delta: PathBuf,
    /// Where to write the new release; must not exist
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// The root CID that is wanted; another release is refused before anything is written
    #[arg(long)]
    cid: Option<Cid>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Make(args) => make(&args),
        Verb::Apply(args) => apply(&args),
    }
}

fn make(args: &MakeArgs) -> Result<()> {
    ensure!(
        !args.output.exists(),
        "{} exists; nothing is overwritten",
        args.output.display()
    );
    let made = make_release(&args.old, &args.new)?;
    fs::write(&args.output, &made.object)
        .with_context(|| format!("{} can't be written", args.output.display()))?;
    // The delta is content-addressed like everything else, so that a peer can offer it by name.
    let own = instar_chunks::add_file(
        instar_chunks::Profile::InstarCdcV1,
        &mut made.object.as_slice(),
        &mut |_, _| Ok(()),
    )?;
    let mut value = describe(&made.list);
    value["delta"] = json!(own.cid.to_string());
    value["bytes"] = json!(made.object.len());
    facts(args.json, &value, |_| {
        let mut text = format!(
            "{} to {}\ndelta {} in {}: {} bytes",
            made.list.old,
            made.list.new,
            own.cid,
            args.output.display(),
            made.object.len()
        );
        for file in &made.list.files {
            text += &format!(
                "\n  {:5} {:>10} of {:>10}  {}",
                Choice::of(file).name(),
                file.delta,
                file.size,
                if file.path.is_empty() {
                    "(the file)"
                } else {
                    &file.path
                }
            );
        }
        text
    })
}

fn apply(args: &ApplyArgs) -> Result<()> {
    let object = File::open(&args.delta)
        .with_context(|| format!("{} can't be opened", args.delta.display()))?;
    let list = apply_release(&args.old, &object, args.cid.as_ref(), &args.output).with_context(|| {
        "the delta was not applied and nothing was kept; fetch the blocks instead: instar get CID"
    })?;
    let mut value = describe(&list);
    value["path"] = json!(args.output);
    facts(args.json, &value, |_| {
        format!(
            "{} in {} ({} files, each verified)",
            list.new,
            args.output.display(),
            list.files.len()
        )
    })
}

fn describe(list: &List) -> Value {
    let files: Vec<Value> = list
        .files
        .iter()
        .map(|f| {
            json!({"path": f.path, "cid": f.cid, "size": f.size, "how": Choice::of(f).name(), "from": f.from, "bytes": f.delta})
        })
        .collect();
    json!({"old": list.old, "new": list.new, "files": files})
}
