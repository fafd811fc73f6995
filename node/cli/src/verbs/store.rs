//! `instar store`: look after the local block store.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cid::Cid;
use instar_chunks::car::{CarReader, write_car};
use instar_chunks::{BlockStore, Limits};
use serde_json::json;

use crate::exit::{Negative, facts};
use crate::store::{StoreArgs, human, parse_bytes};

/// Size of the buffer in front of an archive.
const ARCHIVE_BUFFER_BYTES: usize = 1024 * 1024;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Say what the store holds and what it costs
    Stat(Common),
    /// Forget what no pin reaches, and give the space back
    Gc(Gc),
    /// Read and hash every block, and look whether what is pinned is whole
    Verify(Common),
    /// Show, set or lift the most bytes that the store may have
    Quota(Quota),
    /// List the pins
    Pins(Common),
    /// Drop a pin; its blocks stay until they are collected
    Unpin(Unpin),
    /// Write DAGs to a CAR file, depth first, each block once
    Export(Export),
    /// Keep the blocks of CAR files, and pin their roots
    Import(Import),
    /// Serve the store, read-only, as a trustless IPFS gateway and as a bitswap peer
    Serve(super::serve::Args),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar store stat --json")]
pub struct Common {
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar store gc --grace 3600")]
pub struct Gc {
    /// Keep what was added in the last SECONDS, pinned or not
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    grace: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  instar store quota 20GiB\n  instar store quota none")]
pub struct Quota {
    /// Bytes (500MB, 20GiB), or `none`; without it the quota is shown
    bytes: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar store unpin coin/1")]
pub struct Unpin {
    /// The pin's name
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar store export bafybei… -o release.car")]
pub struct Export {
    /// The roots, in the order in which they are to stand in the archive
    #[arg(required = true)]
    roots: Vec<Cid>,
    /// Where to write it; must not exist; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar store import release.car")]
pub struct Import {
    /// CAR files of version 1 or 2; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Don't pin the roots: an archive of loose blocks
    #[arg(long)]
    no_pin: bool,
    #[command(flatten)]
    common: Common,
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Stat(args) => stat(&args),
        Verb::Gc(args) => gc(&args),
        Verb::Verify(args) => verify(&args),
        Verb::Quota(args) => quota(&args),
        Verb::Pins(args) => pins(&args),
        Verb::Unpin(args) => unpin(&args),
        Verb::Export(args) => export(&args),
        Verb::Import(args) => import(&args),
        Verb::Serve(args) => super::serve::run(&args),
    }
}

fn stat(args: &Common) -> Result<()> {
    let stat = args.store.open_existing()?.stat()?;
    let value = json!({
        "blocks": stat.blocks,
        "block_bytes": stat.block_bytes,
        "stored_bytes": stat.stored_bytes,
        "index_bytes": stat.index_bytes,
        "pins": stat.pins,
        "quota_bytes": stat.quota_bytes,
    });
    facts(args.json, &value, |_| {
        let quota = stat.quota_bytes.map_or("none".into(), human);
        format!(
            "blocks  {} ({})\non disk {} and an index of {}\npins    {}\nquota   {quota}",
            stat.blocks,
            human(stat.block_bytes),
            human(stat.stored_bytes),
            human(stat.index_bytes),
            stat.pins,
        )
    })
}

fn gc(args: &Gc) -> Result<()> {
    let store = args.common.store.open_existing()?;
    let report = store.gc(Duration::from_secs(args.grace), Duration::ZERO)?;
    let value = json!({
        "kept_blocks": report.kept_blocks,
        "removed_blocks": report.removed_blocks,
        "removed_bytes": report.removed_bytes,
        "freed_bytes": report.freed_bytes,
        "missing_blocks": report.missing_blocks,
    });
    facts(args.common.json, &value, |_| {
        format!(
            "{} blocks kept, {} forgotten; {} freed on disk",
            report.kept_blocks,
            report.removed_blocks,
            human(report.freed_bytes)
        )
    })
}

fn verify(args: &Common) -> Result<()> {
    let report = args.store.open_existing()?.verify(&mut |_| ())?;
    let corrupt: Vec<String> = report.corrupt.iter().map(Cid::to_string).collect();
    let incomplete: Vec<_> = report
        .incomplete
        .iter()
        .map(|(name, cid)| json!({"pin": name, "missing": cid.to_string()}))
        .collect();
    let value = json!({
        "blocks": report.blocks,
        "bytes": report.bytes,
        "corrupt": corrupt,
        "incomplete": incomplete,
    });
    facts(args.json, &value, |_| {
        let mut text = format!("{} blocks read and hashed", report.blocks);
        for cid in &corrupt {
            text.push_str(&format!("\ncorrupt: {cid}"));
        }
        for (name, cid) in &report.incomplete {
            text.push_str(&format!("\nthe pin {name} is not whole: {cid} is missing"));
        }
        text
    })?;
    if corrupt.is_empty() && report.incomplete.is_empty() {
        return Ok(());
    }
    Err(Negative(
        "the store is damaged; fetch what is named again with `instar get`, which replaces it"
            .into(),
    )
    .into())
}

fn quota(args: &Quota) -> Result<()> {
    let store = args.common.store.open()?;
    if let Some(text) = &args.bytes {
        let quota = match text.as_str() {
            "none" => None,
            text => Some(parse_bytes(text).map_err(anyhow::Error::msg)?),
        };
        store.set_quota(quota)?;
    }
    let quota = store.quota()?;
    facts(args.common.json, &json!({"quota_bytes": quota}), |_| {
        quota.map_or("none".into(), |bytes| {
            format!("{bytes} bytes ({})", human(bytes))
        })
    })
}

fn pins(args: &Common) -> Result<()> {
    let pins = args.store.open_existing()?.pins()?;
    let value: Vec<_> = pins
        .iter()
        .map(|(name, cid)| json!({"name": name, "cid": cid.to_string()}))
        .collect();
    facts(args.json, &value, |_| {
        let lines: Vec<String> = pins.iter().map(|(n, c)| format!("{c} {n}")).collect();
        lines.join("\n")
    })
}

fn unpin(args: &Unpin) -> Result<()> {
    let store = args.common.store.open_existing()?;
    ensure!(
        store.unpin(&args.name)?,
        "there is no pin called {:?}; `instar store pins` lists them",
        args.name
    );
    facts(args.common.json, &json!({"unpinned": args.name}), |_| {
        format!("unpinned {}", args.name)
    })
}

fn export(args: &Export) -> Result<()> {
    let store = args.common.store.open_existing()?;
    let limits = Limits::default();
    if args.output == Path::new("-") {
        let out = BufWriter::with_capacity(ARCHIVE_BUFFER_BYTES, std::io::stdout().lock());
        write_car(&store, &args.roots, &limits, out)?;
        return Ok(());
    }
    let shown = args.output.display();
    let folder = match args.output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    ensure!(
        !args.output.exists(),
        "{shown} exists; nothing is overwritten"
    );
    // It appears under its name only when all of it is on disk.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| shown.to_string())?;
    let blocks = {
        let out = BufWriter::with_capacity(ARCHIVE_BUFFER_BYTES, file.as_file_mut());
        write_car(&store, &args.roots, &limits, out)?
    };
    file.as_file().sync_all()?;
    let bytes = file.as_file().metadata()?.len();
    file.persist_noclobber(&args.output)
        .with_context(|| format!("{shown} can't be made"))?;
    let value = json!({"path": args.output, "blocks": blocks, "bytes": bytes});
    facts(args.common.json, &value, |_| {
        format!("{blocks} blocks in {shown} ({})", human(bytes))
    })
}

fn import(args: &Import) -> Result<()> {
    let store = args.common.store.open()?;
    let mut roots = Vec::new();
    let mut blocks = 0;
    for path in &args.files {
        let shown = path.display();
        let input: Box<dyn Read> = match path == Path::new("-") {
            true => Box::new(std::io::stdin()),
            false => Box::new(File::open(path).with_context(|| shown.to_string())?),
        };
        let (count, found) = import_one(&store, input).with_context(|| shown.to_string())?;
        blocks += count;
        roots.extend(found);
    }
    for root in &roots {
        if args.no_pin {
            continue;
        }
        let absent = store.pin_whole(&root.to_string(), root, &Limits::default())?;
        if let Some(first) = absent.first() {
            bail!(
                "the archives don't hold all of {root}: {first} is missing. Its blocks are kept, unpinned; --no-pin takes archives that are not whole"
            );
        }
    }
    let named: Vec<String> = roots.iter().map(Cid::to_string).collect();
    let value = json!({"roots": named, "blocks": blocks});
    facts(args.common.json, &value, |_| named.join("\n"))
}

/// Keeps every block of an archive; returns how many there were, and its roots.
pub(crate) fn import_one(store: &BlockStore, input: impl Read) -> Result<(u64, Vec<Cid>)> {
    let mut car = CarReader::new(BufReader::with_capacity(ARCHIVE_BUFFER_BYTES, input))?;
    let mut append = store.append();
    let mut blocks = 0;
    while let Some((cid, bytes)) = car.next_block()? {
        append.put(&cid, &bytes)?;
        blocks += 1;
    }
    append.commit()?;
    std::io::stdout().flush()?;
    Ok((blocks, car.roots().to_vec()))
}
