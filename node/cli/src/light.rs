//! Following a chain by headers alone: from what a person trusts to a certified header, through any node.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use instar_attest::{ChainId, json};
use instar_audit::{Start, Trust};
use instar_ledger::light::{Change, Changes, Light, SignedHeader};
use instar_ledger::{Genesis, Oid, ValidatorSet};
use serde::{Deserialize, Serialize};

use crate::client::Client;

/// The largest set, as a node answers with it.
const MAX_SET_BYTES: usize = 64 * 1024;
/// The largest checkpoint file.
const MAX_CHECKPOINT_BYTES: usize = 1024;
/// The format of a checkpoint file.
const CHECKPOINT_FORMAT: &str = "instar-checkpoint-v1";

/// What a person knows of a chain from elsewhere.
#[derive(clap::Args, Clone)]
#[group(required = true, multiple = false)]
pub struct TrustArgs {
    /// The chain's id, from somewhere you trust
    #[arg(long, value_name = "ID")]
    chain: Option<ChainId>,
    /// A block that you trust: HEIGHT:ID, or a file that `chain light --save` wrote
    #[arg(long, value_name = "HEIGHT:ID|FILE")]
    checkpoint: Option<CheckpointArg>,
}

/// A block that a person trusts, as it is named at the command line.
#[derive(Clone)]
pub struct CheckpointArg(Checkpoint);

impl CheckpointArg {
    /// What is trusted.
    pub fn trust(&self) -> Trust {
        Trust::Block {
            height: self.0.height,
            block: self.0.block,
        }
    }
}

impl FromStr for CheckpointArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let inline = text
            .split_once(':')
            .and_then(|(height, block)| Some((height.parse().ok()?, block.parse().ok()?)));
        if let Some((height, block)) = inline {
            return Ok(Self(Checkpoint::new(height, block)));
        }
        Checkpoint::read(Path::new(text))
            .map(Self)
            .map_err(|e| format!("neither HEIGHT:ID nor a checkpoint file: {e:#}"))
    }
}

impl TrustArgs {
    /// What is trusted.
    pub fn trust(&self) -> Result<Trust> {
        match (&self.chain, &self.checkpoint) {
            (Some(chain), _) => Ok(Trust::Chain(*chain)),
            (None, Some(checkpoint)) => Ok(checkpoint.trust()),
            (None, None) => bail!("name what you trust: --chain ID or --checkpoint HEIGHT:ID"),
        }
    }
}

/// A block to begin at the next time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The block.
    pub block: Oid,
    format: String,
    /// Its height.
    pub height: u64,
}

impl Checkpoint {
    /// A block that was checked.
    pub fn new(height: u64, block: Oid) -> Self {
        Self {
            block,
            format: CHECKPOINT_FORMAT.into(),
            height,
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let read: Self = json::from_slice(bytes.trim_ascii_end(), MAX_CHECKPOINT_BYTES)?;
        ensure!(
            read.format == CHECKPOINT_FORMAT,
            "its format is {:?}",
            read.format
        );
        Ok(read)
    }

    /// Writes it beside its place and renames it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let mut bytes = json::to_vec(self)?;
        bytes.push(b'\n');
        std::fs::write(&fresh, bytes)
            .and_then(|()| std::fs::rename(&fresh, path))
            .with_context(|| path.display().to_string())
    }
}

/// The way from what is trusted to a header, every step of it checked.
pub struct Way {
    /// The genesis, if it begins there.
    pub genesis: Option<Genesis>,
    /// The block that it begins at otherwise.
    pub checkpoint: Option<Start>,
    /// The changes of the validator set on the way.
    pub changes: Vec<Change>,
    /// The header.
    pub header: SignedHeader,
    /// Its block.
    pub block: Oid,
}

/// Goes from what is trusted to `header`, asking a node for what lies between.
pub fn way_to(client: &Client, trust: &Trust, header: SignedHeader) -> Result<Way> {
    let (mut light, genesis, checkpoint) = begin(client, trust)?;
    let to = header.header.height;
    let mut changes = Vec::new();
    if to == light.height() && header.block()? == *light.block() {
        let block = *light.block();
        return Ok(Way {
            genesis,
            checkpoint,
            changes,
            header,
            block,
        });
    }
    loop {
        let after = light.height();
        let page =
            Changes::from_bytes(&bytes(client, &format!("/v1/light/changes?after={after}"))?)?;
        let (more, mut ended) = (page.more, page.changes.is_empty());
        for change in page.changes {
            if change.at.header.height >= to {
                ended = true;
                break;
            }
            light
                .advance(&change)
                .context("a change of the validators does not hold")?;
            changes.push(change);
        }
        if ended || !more {
            break;
        }
    }
    let block = light
        .verify(&header)
        .with_context(|| format!("the header of height {to} does not hold"))?;
    Ok(Way {
        genesis,
        checkpoint,
        changes,
        header,
        block,
    })
}

fn begin(client: &Client, trust: &Trust) -> Result<(Light, Option<Genesis>, Option<Start>)> {
    match trust {
        Trust::Chain(chain) => {
            let genesis = Genesis::from_bytes(&bytes(client, "/v1/genesis")?)?;
            Ok((Light::from_genesis(chain, &genesis)?, Some(genesis), None))
        }
        Trust::Block { height, block } => {
            let header = header_at(client, Some(*height))?;
            let path = format!("/v1/light/validators/{height}");
            let validators: ValidatorSet = json::from_slice(&bytes(client, &path)?, MAX_SET_BYTES)?;
            let light = Light::from_checkpoint(*height, block, &header, validators.clone())?;
            Ok((light, None, Some(Start { header, validators })))
        }
    }
}

/// The header of a height as a node has it, or its newest: unchecked.
pub fn header_at(client: &Client, height: Option<u64>) -> Result<SignedHeader> {
    let path = match height {
        Some(height) => format!("/v1/headers/{height}"),
        None => "/v1/headers".to_owned(),
    };
    Ok(SignedHeader::from_bytes(&bytes(client, &path)?)?)
}

fn bytes(client: &Client, path: &str) -> Result<Vec<u8>> {
    client
        .find_bytes(path)?
        .ok_or_else(|| anyhow!("{}{path}: not found", client.base()))
}
