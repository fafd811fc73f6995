//! `instar get --have`: a delta from what is there already, asked of the peers before any block is fetched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use cid::Cid;
use instar_chunks::import::{Content, ImportOptions, only_cid};
use instar_chunks::{BlockStore, Limits};
use instar_ipfs::Peer;
use instar_node::deltas::{Old, Outcome, Wish, obtain};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::store::human;

/// What is there already.
#[derive(clap::Args)]
pub struct HaveArgs {
    /// An older one that is here, a file or folder, or the CID of one that the store holds: a peer (--peer) may have a delta
    /// that is smaller than the blocks
    #[arg(long, value_name = "PATH|CID")]
    have: Option<PathBuf>,
    /// Seconds that a peer is given to make the delta; 0 takes only one that is there
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "have")]
    delta_wait: u64,
}

impl HaveArgs {
    /// Tries it; what came lies in the store. Nothing was asked for: `None`.
    pub fn obtain(
        &self,
        peer: Option<(&Handle, &Peer)>,
        store: &Arc<BlockStore>,
        want: &Cid,
        scratch: &Path,
        limits: &Limits,
    ) -> Result<Option<Outcome>> {
        let Some(old) = &self.have else {
            return Ok(None);
        };
        let Some((runtime, peer)) = peer else {
            bail!("--have needs a peer to ask for the delta; name one with --peer");
        };
        let (have, old) = address(old)?;
        let wish = Wish {
            patience: Duration::from_secs(self.delta_wait),
            ..Wish::new(have, old, *want, scratch)
        };
        let outcome = runtime.block_on(obtain(peer, store, &wish, limits));
        for (peer, why) in &outcome.refused {
            eprintln!("warning: the delta of {peer} was no good: {why}");
        }
        Ok(Some(outcome))
    }
}

fn address(old: &Path) -> Result<(Cid, Old)> {
    if !old.exists()
        && let Some(cid) = old.to_str().and_then(|text| text.parse::<Cid>().ok())
    {
        return Ok((cid, Old::Held));
    }
    let added = only_cid(Content::Path(old), &ImportOptions::default())?;
    Ok((added.cid, Old::Path(old.to_owned())))
}

/// For the report.
pub fn value(outcome: &Outcome) -> Value {
    match &outcome.got {
        Some(got) => json!({
            "peer": got.peer.to_string(),
            "bytes": got.bytes,
            "instead_of": got.instead_of,
        }),
        None => json!({"why_not": outcome.why_not}),
    }
}

/// For people.
pub fn words(outcome: &Outcome) -> String {
    match &outcome.got {
        Some(got) => format!(
            "a delta of {} from {} instead of {} of blocks",
            human(got.bytes),
            got.peer,
            human(got.instead_of)
        ),
        None => format!("no delta: {}", outcome.why_not),
    }
}
