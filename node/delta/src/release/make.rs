//! Chooses for each file of a new release what is smallest, and puts it into one object.

use std::fs;
use std::path::Path;

use super::tree::{Found, read};
use super::{Entry, List, MAGIC, ReleaseError, root};
use crate::error::DeltaError;
use crate::make::make;

/// A delta that is smaller than the file by this factor is taken without trying how small the file gets by itself: no
/// executable shrinks so much, and trying would double the time.
const SURELY_SMALLER: u64 = 8;

/// How a file is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All its chunks are there: it is a file of the old release.
    Same,
    /// By what differs from a file of the old release.
    Delta,
    /// Compressed by itself.
    Whole,
}

impl Choice {
    /// The word that people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Delta => "delta",
            Self::Whole => "whole",
        }
    }

    /// How that entry is carried.
    pub fn of(entry: &Entry) -> Self {
        match (&entry.from, entry.delta) {
            (Some(_), 0) => Self::Same,
            (Some(_), _) => Self::Delta,
            (None, _) => Self::Whole,
        }
    }
}

/// An object that was made.
#[derive(Debug)]
pub struct Made {
    /// Its bytes.
    pub object: Vec<u8>,
    /// What it says at its start.
    pub list: List,
}

/// Makes the object that leads from the release at `old` to the one at `new`. Each is a folder, or a single file.
pub fn make_release(old: &Path, new: &Path) -> Result<Made, ReleaseError> {
    let (old_files, new_files) = (read(old)?, read(new)?);
    let mut bodies = Vec::new();
    let mut files = Vec::new();
    for file in &new_files {
        let (entry, body) = choose(&old_files, file)?;
        bodies.extend(body);
        files.push(entry);
    }
    let old_entries: Vec<Entry> = old_files.into_iter().map(|f| f.entry).collect();
    let list = List {
        profile: instar_chunks::Profile::InstarCdcV1.name().to_owned(),
        old: root(&old_entries)?.to_string(),
        new: root(&files)?.to_string(),
        files,
    };
    list.check()?;
    let text = serde_json::to_vec(&list).map_err(|e| ReleaseError::Malformed(e.to_string()))?;
    let mut object = MAGIC.to_vec();
    object.extend((text.len() as u64).to_le_bytes());
    object.extend(text);
    object.extend(bodies);
    Ok(Made { object, list })
}

/// The old file that a new one most likely comes from: of the same path, else of the same name.
fn ancestor<'a>(old: &'a [Found], new: &Entry) -> Option<&'a Found> {
    let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
    old.iter()
        .find(|o| o.entry.path == new.path)
        .or_else(|| old.iter().find(|o| name(&o.entry.path) == name(&new.path)))
}

fn choose(old: &[Found], new: &Found) -> Result<(Entry, Vec<u8>), ReleaseError> {
    let mut entry = new.entry.clone();
    let same = old.iter().find(|o| o.entry.sha256 == entry.sha256);
    if let Some(same) = same {
        entry.from = Some(same.entry.path.clone());
        return Ok((entry, Vec::new()));
    }
    let fault = |source| ReleaseError::File {
        path: new.entry.path.clone(),
        source,
    };
    let load = |f: &Found| {
        fs::read(&f.place)
            .map_err(DeltaError::io("reading a release"))
            .map_err(fault)
    };
    let bytes = load(new)?;
    let mut best = None;
    if let Some(ancestor) = ancestor(old, &entry) {
        let delta = make(&load(ancestor)?, &bytes).map_err(fault)?;
        best = Some((delta, Some(ancestor.entry.path.clone())));
    }
    let sure = best
        .as_ref()
        .is_some_and(|(delta, _)| delta.len() as u64 * SURELY_SMALLER <= entry.size);
    if !sure {
        // Of two that are as small the one that needs no old file is better.
        let whole = make(&[], &bytes).map_err(fault)?;
        if best
            .as_ref()
            .is_none_or(|(delta, _)| whole.len() <= delta.len())
        {
            best = Some((whole, None));
        }
    }
    let (body, from) = best.expect("without an ancestor the file was compressed by itself");
    entry.from = from;
    entry.delta = body.len() as u64;
    Ok((entry, body))
}
