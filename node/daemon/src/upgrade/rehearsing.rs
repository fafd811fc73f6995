//! Starting a rehearsal: the state at R and the releases it needs are written out, and another process runs the blocks.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use cid::Cid;
use instar_attest::Digest;
use instar_chain::query;
use instar_chain::upgrade::{Proposal, Rehearsal};
use instar_chunks::{BlockStore, Blocks, Limits, Walk};

use super::stage::Staged;
use crate::node::Shared;
use crate::rehearse::{Rehearsed, write_snapshot};

/// How long a rehearsal may take; a release that is much slower than the running one is not ready.
const MAX_TIME: Duration = Duration::from_secs(120);

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Runs the rehearsal of a staged release; the state root after it.
pub(crate) async fn rehearse(
    node: &Shared,
    proposal: &Proposal,
    window: Rehearsal,
    staged: &Staged,
) -> Result<Digest, String> {
    // The node's slot is rehearsed by the new program, a dapp's by the running one.
    let program = match &staged.program {
        Some(program) => program.path.clone(),
        None => std::env::current_exe().map_err(text)?,
    };
    let dir = node
        .home
        .staged()
        .join(format!("rehearsal-{}", &proposal.id.to_hex()[..16]));
    let prepared = {
        let (node, proposal, dir) = (node.clone(), proposal.clone(), dir.clone());
        tokio::task::spawn_blocking(move || prepare(&node, &proposal, window, &dir))
            .await
            .map_err(text)?
    };
    let result = match prepared {
        Ok(()) => run(node, proposal, window, program, &dir).await,
        Err(e) => Err(e),
    };
    let _ = tokio::fs::remove_dir_all(&dir).await;
    result
}

fn prepare(
    node: &Shared,
    proposal: &Proposal,
    window: Rehearsal,
    dir: &PathBuf,
) -> Result<(), String> {
    // What a killed rehearsal left behind is of no use.
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).map_err(text)?;
    // The other process reads the ledger as git has it.
    node.core().flush().map_err(text)?;
    let export = node.state.export(window.from).map_err(text)?;
    write_snapshot(&dir.join("state.jsonl"), export).map_err(text)?;
    let store = BlockStore::open(&dir.join("blocks.redb")).map_err(text)?;
    let slots = query::slots(&node.view().map_err(text)?).map_err(text)?;
    let live = slots
        .iter()
        .filter(|(name, slot)| name.starts_with("dapps/") && !slot.release.is_empty())
        .map(|(_, s)| s.release.clone());
    let candidate = proposal
        .slot
        .dapp_name()
        .map(|_| proposal.release.to_string());
    for release in live.chain(candidate) {
        copy(&node.blocks, &store, &release)?;
    }
    Ok(())
}

/// Copies what is held of a release: the files of other targets are not, and the image says what it lacks.
fn copy(from: &BlockStore, to: &BlockStore, root: &str) -> Result<(), String> {
    let root: Cid = root.parse().map_err(text)?;
    let mut walk = Walk::new(&root, Limits::default()).map_err(text)?;
    let mut batch = to.batch();
    while let Some(cid) = walk.next_wanted() {
        let Some(bytes) = from.get(&cid).map_err(text)? else {
            continue;
        };
        walk.visit(&cid, &bytes).map_err(text)?;
        batch.put(&cid, &bytes).map_err(text)?;
    }
    batch.commit().map_err(text)
}

async fn run(
    node: &Shared,
    proposal: &Proposal,
    window: Rehearsal,
    program: PathBuf,
    dir: &std::path::Path,
) -> Result<Digest, String> {
    let mut command = tokio::process::Command::new(&program);
    command
        .args(["node", "rehearse", "--snapshot"])
        .arg(dir.join("state.jsonl"))
        .arg("--ledger")
        .arg(node.home.ledger())
        .arg("--images")
        .arg(dir.join("images"))
        .arg("--blocks")
        .arg(dir.join("blocks.redb"))
        .args([
            "--from",
            &window.from.to_string(),
            "--to",
            &window.last().to_string(),
        ])
        .args([
            "--slot",
            &proposal.slot.to_string(),
            "--release",
            proposal.release.as_str(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = tokio::time::timeout(MAX_TIME, command.output())
        .await
        .map_err(|_| format!("the rehearsal took more than {} s", MAX_TIME.as_secs()))?
        .map_err(|e| format!("{} can't be started: {e}", program.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr
            .lines()
            .rev()
            .take(3)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join(" · ");
        return Err(format!(
            "the rehearsal ended with {}: {last}",
            output.status
        ));
    }
    let rehearsed: Rehearsed =
        serde_json::from_str(stdout.lines().last().unwrap_or_default()).map_err(text)?;
    if rehearsed.height != window.last() {
        return Err(format!(
            "the rehearsal ended at height {}, not {}",
            rehearsed.height,
            window.last()
        ));
    }
    Ok(rehearsed.root)
}
