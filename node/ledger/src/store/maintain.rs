//! Background work: few packs instead of many, made small by stock git.
//!
//! A store begins it by itself, in a thread, after every [`MAX_PACKS`] packs; whoever keeps a store idle can call it. It
//! needs no open [`Store`](super::Store) and blocks none: it writes a new pack, waits until nobody can still be
//! reading the old ones, and then removes those.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::flush::read_packed_refs;
use super::objects::git_id;
use super::open::open_repository;
use super::packs::{Contents, Pack, Packs, lock};
use super::{StoreError, TIP_REF};
use crate::grammar::{Loose, files_of};
use crate::oid::Oid;

/// More packs than this are rolled up.
pub const MAX_PACKS: usize = 24;
/// How long a pack whose objects stand in a newer one stays for those who read it: a clone in flight opens its packs
/// within this time.
pub const PACK_GRACE: Duration = Duration::from_secs(120);
/// How long old tips can be fetched, so that a clone in flight doesn't break.
pub const TIP_KEPT: Duration = Duration::from_secs(3600);

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaintainReport {
    /// Packs whose objects stand only there.
    pub packs: usize,
    /// Packs that were rolled into a new one.
    pub rolled_up: usize,
    /// Packs that were removed, after their grace.
    pub removed: usize,
    /// Old tips that were left out of the new pack.
    pub tips_dropped: usize,
}

/// Rolls small packs up when there are more than [`MAX_PACKS`]. Safe beside readers and beside the writing process;
/// a second call at the same time does nothing.
pub fn maintain(path: &Path) -> Result<MaintainReport, StoreError> {
    maintain_with(path, MAX_PACKS, PACK_GRACE, TIP_KEPT)
}

/// As [`maintain`], with other bounds.
pub fn maintain_with(
    path: &Path,
    max_packs: usize,
    grace: Duration,
    tip_kept: Duration,
) -> Result<MaintainReport, StoreError> {
    let mut report = MaintainReport::default();
    let lock = lock(path)?;
    if lock.try_lock().is_err() {
        return Ok(report);
    }
    let (mut packs, removed) = Packs::of(path, grace)?;
    report.removed = removed;
    report.packs = packs.all.len();
    if packs.all.len() <= max_packs {
        return Ok(report);
    }
    packs
        .all
        .sort_by(|a, b| (a.objects.len(), &a.name).cmp(&(b.objects.len(), &b.name)));
    let some: Vec<&Pack> = packs.all[..to_roll_up(&packs.all)].iter().collect();
    let (contents, dropped) = contents_of(path, &packs, &some, tip_kept)?;
    report.tips_dropped = dropped;
    report.rolled_up = packs.replace(&some, &contents)?;
    report.packs = report.packs + 1 - some.len();
    Ok(report)
}

/// Writes those packs anew, as one, that have something of what is `dead`, and without that. Says how many those were.
pub(super) fn rewrite_without(
    path: &Path,
    packs: &Packs,
    dead: impl Fn(&Oid) -> bool,
) -> Result<usize, StoreError> {
    let some = packs.with(&dead);
    let (mut contents, _) = contents_of(path, packs, &some, TIP_KEPT)?;
    contents.objects.retain(|(id, _)| !dead(id));
    packs.replace(&some, &contents)
}

/// How many of the packs, smallest first, are rolled up: sizes then grow geometrically, so that an object is packed
/// again only about log2 of all times.
fn to_roll_up(packs: &[Pack]) -> usize {
    let mut sum = 0;
    let mut count = 2;
    for (i, pack) in packs.iter().enumerate() {
        if pack.objects.len() < 2 * sum {
            count = i + 1;
        }
        sum += pack.objects.len();
    }
    count.min(packs.len())
}

/// What a new pack in the place of some is to hold, without old tips, of which it says how many there were.
fn contents_of(
    path: &Path,
    all: &Packs,
    packs: &[&Pack],
    tip_kept: Duration,
) -> Result<(Contents, usize), StoreError> {
    let repo = open_repository(path)?;
    let odb = repo.odb()?;
    let tip = read_packed_refs(path)?.get(TIP_REF).copied();
    let mut contents = Contents::of(packs);
    let mut dropped: BTreeSet<Oid> = BTreeSet::new();
    let mut tips = 0;
    for pack in packs {
        let old = all.age(pack) >= tip_kept;
        for id in &pack.objects {
            // Most bytes are in blobs, which have nothing to say.
            let kind = odb.read_header(git_id(id))?.1;
            if kind == git2::ObjectType::Blob {
                continue;
            }
            let object = odb.read(git_id(id))?;
            match kind {
                git2::ObjectType::Tree => {
                    for (name, blob) in files_of(object.data()).unwrap_or_default() {
                        contents.name(&blob, name);
                    }
                }
                git2::ObjectType::Commit if old && Some(*id) != tip => {
                    if let Some(tree) = tip_tree_of(object.data()) {
                        dropped.extend([*id, tree]);
                        tips += 1;
                    }
                }
                _ => {}
            }
        }
    }
    contents.objects.retain(|(id, _)| !dropped.contains(id));
    Ok((contents, tips))
}

fn tip_tree_of(commit: &[u8]) -> Option<Oid> {
    let loose = Loose::read("tip", commit).ok()?;
    let is_tip = loose.message.starts_with("tip ")
        && commit
            .windows(26)
            .any(|w| w == b"author instar <tip@tip.ins");
    is_tip.then_some(loose.tree)
}
