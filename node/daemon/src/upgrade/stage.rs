//! Staging: a release is fetched from peers block by block, verified against the policy that its build round fixed, and
//! laid out on disk, checked once more from the bytes that lie there.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cid::Cid;
use instar_attest::policy::{self, Input, OtherKey, PolicyBuilder};
use instar_attest::release::{Recipe, Release, ReleaseFile};
use instar_attest::{Digest, Purpose};
use instar_chain::build::Round;
use instar_chain::query;
use instar_chain::upgrade::Proposal;
use instar_chunks::{Limits, Profile, add_file};

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
    node.peer
        .fetch(&root, &limits)
        .await
        .map_err(|e| format!("the blocks can't be fetched: {e}"))?;
    let node = node.clone();
    let proposal = proposal.clone();
    let staged = tokio::task::spawn_blocking(move || {
        let release = verify(&node, &proposal, &root, &limits)?;
        node.blocks
            .pin(&format!("{}/{}", proposal.slot, proposal.number), &root)
            .map_err(text)?;
        lay_out(&node, &proposal, &release, &root, &limits)
    });
    staged.await.map_err(text)?
}

/// Verifies the release's document and every attestation, offline, against what the ledger fixed.
fn verify(
    node: &Shared,
    proposal: &Proposal,
    root: &Cid,
    limits: &Limits,
) -> Result<Release, String> {
    let at = instar_chunks::export::resolve(&*node.blocks, root, "release.json", limits)
        .map_err(text)?;
    let bytes = instar_chunks::read_file(
        &*node.blocks,
        &at,
        instar_attest::release::MAX_RELEASE_BYTES as u64,
    )
    .map_err(text)?;
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
        builders: round
            .builders
            .iter()
            .map(|b| PolicyBuilder {
                key: b.key,
                name: b.name.clone(),
                operator: b.operator.clone(),
            })
            .collect(),
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
