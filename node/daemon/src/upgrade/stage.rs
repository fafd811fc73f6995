//! Staging: a release's document is fetched and verified against the policy that its build round fixed; then what this node
//! needs of it comes from peers, by a delta from the release that it replaces or block by block; and it is laid out on disk,
//! checked once more from the bytes that lie there.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use instar_attest::policy::{self, Input, OtherKey};
use instar_attest::release::{
    MAX_RELEASE_BYTES as MAX_DOCUMENT_BYTES, RELEASE_PATH, Recipe, Release, ReleaseFile,
};
use instar_attest::{Digest, Purpose};
use instar_chain::build::Round;
use instar_chain::query;
use instar_chain::upgrade::Proposal;
use instar_chunks::node::DirLink;
use instar_chunks::read::{list_directory, resolve};
use instar_chunks::{Limits, Profile, add_file, missing};
use instar_ipfs::FetchOptions;

use crate::deltas::{Got, Old, Wish, obtain};
use crate::metrics::Came;
use crate::node::Shared;

/// The largest release that a node fetches.
const MAX_RELEASE_BYTES: u64 = 1 << 30;
/// The target that this program was built for.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The node's executable in a release of its slot.
const NODE_PROGRAM: &str = "instar";

/// A release that lies verified on this node's disk.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    /// The program, for the node's slot.
    pub program: Option<StagedProgram>,
}

/// The node's new program.
#[derive(Debug, Clone)]
pub(crate) struct StagedProgram {
    pub path: PathBuf,
    pub file: ReleaseFile,
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Stages what a proposal proposes. The error says why this node will not run it.
pub(crate) async fn stage(node: &Shared, proposal: &Proposal) -> Result<Staged, String> {
    let root: Cid = proposal.release.as_str().parse().map_err(text)?;
    let limits = Limits {
        max_total_bytes: MAX_RELEASE_BYTES,
        ..Limits::default()
    };
    // How it is built, and its document: a few blocks, and nothing more before it is verified.
    let nodes = FetchOptions {
        limits,
        nodes_only: true,
        ..FetchOptions::default()
    };
    let unfetched = |e| format!("the blocks can't be fetched: {e}");
    let fetched = node.peer.fetch_with(&root, nodes).await;
    fetched.map_err(unfetched)?;
    let document = {
        let blocks = Arc::clone(&node.blocks);
        on_disk(move || resolve(&*blocks, &root, RELEASE_PATH, &limits)).await?
    };
    let small = Limits {
        max_total_bytes: MAX_DOCUMENT_BYTES as u64,
        ..Limits::default()
    };
    let fetched = node.peer.fetch(&document, &small).await;
    fetched.map_err(unfetched)?;
    let (shared, asked) = (node.clone(), proposal.clone());
    let (release, parts) = on_disk(move || {
        let release = verify(&shared, &asked, &root, &limits)?;
        let parts = parts(&shared, &asked, &release, &root, &limits)?;
        Ok::<_, String>((release, parts))
    })
    .await?;
    for part in parts {
        bring(node, &part, &limits).await?;
    }
    let (node, proposal) = (node.clone(), proposal.clone());
    on_disk(move || {
        node.blocks
            .pin(&format!("{}/{}", proposal.slot, proposal.number), &root)
            .map_err(text)?;
        lay_out(&node, &proposal, &release, &root, &limits)
    })
    .await
}

/// Runs what reads and writes files on a thread that may wait for them.
async fn on_disk<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(text)?
        .map_err(text)
}

/// What stands in the root of a release and is needed here.
struct Part {
    name: String,
    cid: Cid,
    /// What stood there in the release that this one replaces, if all of that is held.
    old: Option<Cid>,
}

/// The entries of the root but for those of other targets.
fn parts(
    node: &Shared,
    proposal: &Proposal,
    release: &Release,
    root: &Cid,
    limits: &Limits,
) -> Result<Vec<Part>, String> {
    let slots = query::slots(&node.view().map_err(text)?).map_err(text)?;
    let old: Option<Cid> = slots
        .get(&proposal.slot.to_string())
        .and_then(|slot| slot.release.parse().ok());
    let mut parts = Vec::new();
    let entries = list_directory(&*node.blocks, root, limits).map_err(text)?;
    let targets = release.files.iter().map(|file| file.target.as_str());
    for entry in needed(entries, targets) {
        let old = old
            .and_then(|old| resolve(&*node.blocks, &old, &entry.name, limits).ok())
            .filter(|old| missing(&*node.blocks, old, limits).is_ok_and(|m| m.is_empty()));
        parts.push(Part {
            name: entry.name,
            cid: entry.cid,
            old,
        });
    }
    Ok(parts)
}

/// What belongs to this program's target, or to none: each target's files stand in a folder of its name.
fn needed<'a>(entries: Vec<DirLink>, targets: impl Iterator<Item = &'a str>) -> Vec<DirLink> {
    let foreign: BTreeSet<&str> = targets.filter(|target| *target != TARGET).collect();
    entries
        .into_iter()
        .filter(|entry| !foreign.contains(entry.name.as_str()))
        .collect()
}

/// Fetches one part: by a delta if a peer has one that is smaller than the blocks, else the blocks.
async fn bring(node: &Shared, part: &Part, limits: &Limits) -> Result<(), String> {
    if let Some(old) = part.old.filter(|old| *old != part.cid) {
        let wish = Wish {
            patience: Duration::from_secs(node.config.delta_patience_s),
            ..Wish::new(old, Old::Held, part.cid, &node.home.staged())
        };
        let outcome = obtain(&node.peer, &node.blocks, &wish, limits).await;
        for (peer, why) in &outcome.refused {
            tracing::warn!(%peer, why, part = part.name, "a delta was no good");
        }
        match outcome.got {
            Some(Got {
                peer,
                bytes,
                instead_of,
            }) => {
                tracing::info!(%peer, bytes, instead_of, part = part.name, "came as a delta");
                node.metrics.staged(Came::Delta, bytes);
            }
            None => tracing::debug!(
                why = outcome.why_not,
                part = part.name,
                "comes block by block"
            ),
        }
    }
    let fetched = node.peer.fetch(&part.cid, limits).await;
    let report = fetched.map_err(|e| format!("the blocks can't be fetched: {e}"))?;
    for (peer, why) in &report.refused {
        tracing::warn!(%peer, why, part = part.name, "a peer sent something else");
    }
    node.metrics.staged(Came::Blocks, report.fetched_bytes);
    Ok(())
}

/// Verifies the release's document and every attestation, offline, against what the ledger fixed.
fn verify(
    node: &Shared,
    proposal: &Proposal,
    root: &Cid,
    limits: &Limits,
) -> Result<Release, String> {
    let at = resolve(&*node.blocks, root, RELEASE_PATH, limits).map_err(text)?;
    let bytes =
        instar_chunks::read_file(&*node.blocks, &at, MAX_DOCUMENT_BYTES as u64).map_err(text)?;
    let view = node.view().map_err(text)?;
    let known = query::release_json(&view, proposal.release.as_str()).map_err(text)?;
    if known.as_deref().map(str::as_bytes) != Some(bytes.as_slice()) {
        return Err("release.json is not what the ledger computed".into());
    }
    let round = query::round(&view, &proposal.round)
        .map_err(text)?
        .ok_or("the build round is gone")?;
    let bundles = bundles(node, &round)?;
    let validators = query::validators(&view).map_err(text)?;
    let policy = policy_of(node, &round, &validators)?;
    let verdict = policy::verify(
        &Input {
            release: &bytes,
            bundles: &bundles,
        },
        &policy,
    );
    if let Some(check) = verdict.refused_by() {
        return Err(format!("{}: {}", check.rule, check.detail));
    }
    Release::parse(&bytes).map_err(text)
}

/// The attestations, from the reveals on the ledger.
fn bundles(node: &Shared, round: &Round) -> Result<Vec<Vec<u8>>, String> {
    let mut bundles = Vec::new();
    for revealed in round.builders.iter().filter_map(|b| b.revealed.as_ref()) {
        let entry = node.core().entry(&revealed.entry).map_err(text)?;
        let entry =
            entry.ok_or_else(|| format!("reveal {} is not in the ledger", revealed.entry))?;
        let bundle = entry.body["bundle"]
            .as_str()
            .ok_or("a reveal without a bundle")?
            .as_bytes()
            .to_vec();
        if Digest::of(&bundle) != revealed.bundle {
            return Err(format!(
                "the bundle of reveal {} is another one",
                revealed.entry
            ));
        }
        bundles.push(bundle);
    }
    Ok(bundles)
}

fn policy_of(
    node: &Shared,
    round: &Round,
    validators: &[instar_chain::record::ValidatorRecord],
) -> Result<policy::Policy, String> {
    let others = validators.iter().flat_map(|v| {
        let key = |key, purpose| OtherKey { key, purpose };
        [
            key(v.keys.account, Purpose::Account),
            key(v.keys.consensus, Purpose::Consensus),
            key(v.keys.lane, Purpose::Lane),
        ]
    });
    Ok(policy::Policy {
        builders: round.policy_builders(),
        chain: node.chain,
        format: Default::default(),
        other_keys: others.collect(),
        recipes: round
            .policy
            .recipes
            .iter()
            .map(|r| Recipe::new(r.clone()).map_err(text))
            .collect::<Result<_, _>>()?,
        round: round.id,
        source: round.source.clone(),
        targets: round.targets.clone(),
        threshold: round.policy.builders,
    })
}

fn lay_out(
    node: &Shared,
    proposal: &Proposal,
    release: &Release,
    root: &Cid,
    limits: &Limits,
) -> Result<Staged, String> {
    if let Some(dapp) = proposal.slot.dapp_name() {
        let prepared = instar_runtime::Image::prepare(
            &node.home.images(),
            proposal.release.as_str(),
            &*node.blocks,
        );
        prepared.map_err(|e| format!("the image of {dapp}: {e}"))?;
        return Ok(Staged { program: None });
    }
    let wanted = format!("{TARGET}/{NODE_PROGRAM}");
    let file = release.files.iter().find(|f| f.path.as_str() == wanted);
    let file = file.ok_or_else(|| format!("the release has no {wanted}"))?;
    let path = node
        .home
        .staged()
        .join(format!("{}-{NODE_PROGRAM}", proposal.release.as_str()));
    if !matches(&path, file) {
        let _ = fs::remove_file(&path);
        instar_chunks::export(&*node.blocks, root, Some(&wanted), &path, limits).map_err(text)?;
        fs::set_permissions(&path, Permissions::from_mode(file.mode.bits())).map_err(text)?;
    }
    if !matches(&path, file) {
        return Err(format!(
            "{} on disk is not what release.json says",
            path.display()
        ));
    }
    Ok(Staged {
        program: Some(StagedProgram {
            path,
            file: file.clone(),
        }),
    })
}

/// Whether the bytes on disk have the digest and, cut again, the address that the release names.
fn matches(path: &Path, file: &ReleaseFile) -> bool {
    let Ok(mut open) = File::open(path) else {
        return false;
    };
    add_file(Profile::InstarCdcV1, &mut open, &mut |_, _| Ok(())).is_ok_and(|s| {
        s.cid.to_string() == file.cid.as_str()
            && Digest::from_bytes(s.sha256) == file.sha256
            && s.size == file.size
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_other_targets_are_left_where_they_are() {
        let entry = |name: &str| DirLink {
            name: name.to_owned(),
            cid: instar_chunks::block::cid_of(instar_chunks::block::RAW, name.as_bytes()),
            dag_size: 1,
        };
        let arm = "aarch64-unknown-linux-gnu";
        let entries = [arm, RELEASE_PATH, "sbom.cdx.json", TARGET].map(entry);
        let left = needed(entries.to_vec(), [TARGET, arm, TARGET].into_iter());
        let names: Vec<&str> = left.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, [RELEASE_PATH, "sbom.cdx.json", TARGET]);
    }
}
