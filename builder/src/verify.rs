//! Rebuild somebody's release from the source that it names, and compare.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use instar_attest::release::{Release, ReleaseFile};

use crate::assemble::RELEASE_FOLDER;
use crate::build::{BuildOutcome, BuildRequest, Built, DifferentBuild, Progress, build};
use crate::compare::{FileDifference, compare};
use crate::error::BuildError;
use crate::explain::{Cause, Clues};
use crate::record::BuildRecord;

/// Builds the release's source commit and compares what comes out with the release.
///
/// `folder` holds the release's files, so that a difference can be explained; where a file of the release is not there,
/// or isn't the one that `release.json` names, its digest alone is compared. The answer is that of [`build`]: `Equal`
/// means that both own builds and the release agree on every file of the targets that could be built here.
pub fn verify_rebuild(
    release: &Release,
    folder: &Path,
    request: &BuildRequest,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<BuildOutcome, BuildError> {
    let request = BuildRequest {
        revision: release.source.commit.clone(),
        slot: release.slot.clone(),
        number: release.number,
        name: release.name.clone(),
        ..request.clone()
    };
    let outcome = build(&request, progress)?;
    let (BuildOutcome::Equal(built) | BuildOutcome::Once(built)) = &outcome else {
        return Ok(outcome);
    };
    let differences = differences(release, folder, built)?;
    if differences.is_empty() {
        return Ok(outcome);
    }
    let log = |number: u32| request.out.join(format!("build-{number}.log"));
    Ok(BuildOutcome::Different(DifferentBuild {
        files: differences,
        kept: [folder.to_owned(), request.out.join(RELEASE_FOLDER)],
        logs: [log(1), log(2)],
    }))
}

fn differences(
    release: &Release,
    folder: &Path,
    built: &Built,
) -> Result<Vec<FileDifference>, BuildError> {
    let record: &BuildRecord = &built.record;
    let own_folder = built.out.join(RELEASE_FOLDER);
    let (mut theirs, mut ours) = (BTreeMap::<String, PathBuf>::new(), BTreeMap::new());
    let mut unseen = Vec::new();
    for target in &record.targets {
        // A target that the release doesn't have can't contradict it.
        let released = release.files_of(&target.target);
        if released.is_empty() {
            continue;
        }
        for file in &target.files {
            if !released.contains(file) {
                ours.insert(file.path.to_string(), own_folder.join(file.path.as_str()));
            }
        }
        for file in released.iter().filter(|file| !target.files.contains(file)) {
            let at = folder.join(file.path.as_str());
            if reveal_of(release, file.path.as_str()).is_some_and(|named| is_named(named, &at)) {
                theirs.insert(file.path.to_string(), at);
            } else {
                unseen.push((file.path.to_string(), file.size));
            }
        }
    }
    let mut found = Vec::new();
    for (path, size) in unseen {
        let own_size = ours
            .remove(&path)
            .and_then(|at: PathBuf| at.metadata().ok())
            .map(|m| m.len());
        found.push(FileDifference {
            path,
            sizes: [Some(size), own_size],
            first_offset: None,
            section: None,
            cause: Cause::Unknown,
            evidence: None,
            mend: "get the release's own file to see where it differs".into(),
        });
    }
    found.extend(compare(&theirs, &ours, &Clues::default())?);
    if record.sbom != release.sbom {
        found.push(FileDifference {
            path: record.sbom.path.to_string(),
            sizes: [Some(release.sbom.size), Some(record.sbom.size)],
            first_offset: None,
            section: None,
            cause: Cause::Unknown,
            evidence: None,
            mend: "the lock file or the form of the SBOM is another one".into(),
        });
    }
    Ok(found)
}

fn reveal_of<'a>(release: &'a Release, path: &str) -> Option<&'a ReleaseFile> {
    release.files.iter().find(|file| file.path.as_str() == path)
}

/// Whether the file at `at` is the one that release.json names.
fn is_named(named: &ReleaseFile, at: &Path) -> bool {
    crate::toolchain::sha256_file(at).is_ok_and(|digest| digest == named.sha256)
}
