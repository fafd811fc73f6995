//! `instar add`: a file, folder or stream becomes blocks; its content address is printed.

use std::path::{Path, PathBuf};

use anyhow::Result;
use instar_chunks::import::{Content, ImportOptions, Imported, Keep, import, only_cid};
use instar_chunks::{BlockError, Cid, Profile};
use serde_json::json;

use crate::client::{BlockUpload, Client};
use crate::exit::facts;
use crate::store::{StoreArgs, human};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  instar add target/release/instar               keep a file and print its CID
  tar c src | instar add - --name src            keep a stream, pinned as `src`
  instar add --only-cid ../coin-2/release        only print the CID
  instar add --profile unixfs-v1-2025 FILE       the CID that a stock IPFS importer gives
  instar add DIR --node http://127.0.0.1:8080 --token-file ~/node/token

A folder keeps names, contents and symbolic links, in an order of its own: modes, owners and times
play no part, so that the same content always has the same CID.")]
pub struct Args {
    /// A file or folder; `-` is standard input
    path: PathBuf,
    /// Only print the CID; nothing is stored
    #[arg(long, conflicts_with_all = ["node", "name", "no_pin"])]
    only_cid: bool,
    /// How files are cut: instar-cdc-v1 or unixfs-v1-2025
    #[arg(long, value_name = "NAME", default_value = "instar-cdc-v1", value_parser = profile)]
    profile: Profile,
    /// Take names that begin with a dot, which unixfs-v1-2025 leaves out and instar-cdc-v1 always takes
    #[arg(long)]
    hidden: bool,
    /// Name of the pin that keeps it from being collected [default: its CID]
    #[arg(long)]
    name: Option<String>,
    /// Don't pin it: the next `instar store gc` may forget it
    #[arg(long, conflicts_with = "name")]
    no_pin: bool,
    /// Keep it at this node instead of the local store
    #[arg(long, value_name = "URL", conflicts_with = "store")]
    node: Option<String>,
    /// File with that node's write token
    #[arg(long, value_name = "FILE", env = "INSTAR_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn profile(name: &str) -> Result<Profile, String> {
    Profile::from_name(name).map_err(|e| e.to_string())
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let options = ImportOptions {
        profile: args.profile,
        hidden: args.hidden,
    };
    let mut stdin = std::io::stdin();
    let content = if args.path == Path::new("-") {
        Content::Stream(&mut stdin)
    } else {
        Content::Path(&args.path)
    };
    let added = if args.only_cid {
        only_cid(content, &options)?
    } else if let Some(node) = &args.node {
        let token = args
            .token_file
            .as_deref()
            .map(super::read_token)
            .transpose()?;
        at_node(&Client::new(node, token), content, &options, args)?
    } else {
        let pin = (!args.no_pin).then(|| args.name.as_deref().unwrap_or_default());
        args.store.open()?.import(content, &options, pin)?
    };
    let value = json!({
        "cid": added.cid.to_string(),
        "profile": args.profile.name(),
        "content_bytes": added.content_bytes,
        "dag_size": added.dag_size,
        "files": added.files,
        "folders": added.folders,
        "links": added.links,
    });
    // The address alone goes to standard output, so that a script can use it.
    facts(args.json, &value, |_| added.cid.to_string())?;
    if !args.json && !args.only_cid {
        eprintln!("{} in {} files", human(added.content_bytes), added.files);
    }
    Ok(())
}

fn at_node(
    client: &Client,
    content: Content<'_>,
    options: &ImportOptions,
    args: &Args,
) -> Result<Imported> {
    let mut upload = ToNode(BlockUpload::new(client));
    let added = import(content, options, &|_, _, ()| Ok(()), &mut upload)?;
    upload.0.finish()?;
    if !args.no_pin {
        let root = added.cid.to_string();
        client.pin(args.name.as_deref().unwrap_or(&root), &added.cid)?;
    }
    Ok(added)
}

struct ToNode<'a>(BlockUpload<'a>);

impl Keep<()> for ToNode<'_> {
    fn chunks(&mut self, chunks: &[(Cid, &[u8])], (): &mut ()) -> Result<(), BlockError> {
        chunks
            .iter()
            .try_for_each(|(cid, bytes)| self.node(cid, bytes))
    }

    fn node(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        self.0.put(cid, bytes).map_err(|e| BlockError::Store {
            what: "sending a block to the node",
            source: e.into(),
        })
    }
}
