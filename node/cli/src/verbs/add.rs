//! `instar add`: the content address of a file or folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use instar_chunks::{Profile, TreeLink, add_file, tree_root};
use serde_json::json;

use crate::exit::facts;

/// Files of one folder at most; a release has far fewer.
const MAX_FILES: usize = 10_000;

#[derive(clap::Args)]
#[command(after_help = "Example: instar add --only-cid target/release/instar")]
pub struct Args {
    /// A file or folder
    path: PathBuf,
    /// Only print the CID; nothing is stored (the one way there is so far)
    #[arg(long, required = true)]
    only_cid: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let cid = if args.path.is_dir() {
        let mut files = BTreeMap::new();
        collect(&args.path, "", &mut files)?;
        tree_root(&files)?.0
    } else {
        cut(&args.path)?.cid
    };
    facts(args.json, &json!({"cid": cid.to_string()}), |_| {
        cid.to_string()
    })
}

fn cut(path: &Path) -> Result<TreeLink> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let summary = add_file(Profile::InstarCdcV1, &mut file, &mut |_, _| Ok(()))?;
    Ok(TreeLink {
        cid: summary.cid,
        dag_size: summary.dag_size,
    })
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, TreeLink>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            bail!("{} is not UTF-8", entry.path().display())
        };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else if kind.is_file() {
            if files.len() >= MAX_FILES {
                bail!("more than {MAX_FILES} files");
            }
            files.insert(path, cut(&entry.path())?);
        } else {
            bail!("{} is neither a file nor a folder", entry.path().display());
        }
    }
    Ok(())
}
