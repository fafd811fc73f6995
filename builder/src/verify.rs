//! Rebuild somebody's release from the source that it names, and compare.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use instar_attest::release::{ProgramName, Release, SbomReveal, Slot, Source};

use crate::assemble::RELEASE_FOLDER;
use crate::build::{BuildOutcome, BuildRequest, Built, DifferentBuild, Progress, build};
use crate::compare::{FileDifference, compare};
use crate::error::BuildError;
use crate::explain::{Cause, Clues};
use crate::record::{BuildRecord, BuiltTarget};
use crate::toolchain::sha256_file;

/// What somebody says that a source makes: a release, or the record of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The source.
    pub source: Source,
    /// What the release replaces.
    pub slot: Slot,
    /// The release number.
    pub number: u64,
    /// The program's name.
    pub name: ProgramName,
    /// The files of each target.
    pub targets: Vec<BuiltTarget>,
    /// The software bill of materials.
    pub sbom: SbomReveal,
}

impl From<&Release> for Claimed {
    fn from(release: &Release) -> Self {
        let targets = release.targets().into_iter().map(|target| BuiltTarget {
            target: target.clone(),
            files: release.files_of(target),
        });
        Self {
            source: release.source.clone(),
            slot: release.slot.clone(),
            number: release.number,
            name: release.name.clone(),
            targets: targets.collect(),
            sbom: release.sbom.clone(),
        }
    }
}

impl From<&BuildRecord> for Claimed {
    fn from(record: &BuildRecord) -> Self {
        Self {
            source: record.source.clone(),
            slot: record.slot.clone(),
            number: record.number,
            name: record.name.clone(),
            targets: record.targets.clone(),
            sbom: record.sbom.clone(),
        }
    }
}

/// Builds the named source commit and compares what comes out with what is claimed.
///
/// `folder` holds the claimed files, so that a difference can be explained; where one is not there, or isn't the one that
/// is claimed, its digest alone is compared. The answer is that of [`build`]: `Equal` means that both own builds and the
/// claim agree on every file of the targets that could be built here.
pub fn verify_rebuild(
    claimed: &Claimed,
    folder: &Path,
    request: &BuildRequest,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<BuildOutcome, BuildError> {
    let request = BuildRequest {
        revision: claimed.source.commit.clone(),
        slot: Some(claimed.slot.clone()),
        number: claimed.number,
        name: Some(claimed.name.clone()),
        allow_dirty: false,
        ..request.clone()
    };
    let outcome = build(&request, progress)?;
    let (BuildOutcome::Equal(built) | BuildOutcome::Once(built)) = &outcome else {
        return Ok(outcome);
    };
    let differences = differences(claimed, folder, built)?;
    if differences.is_empty() {
        return Ok(outcome);
    }
    let log = |number: u32| request.out.join(format!("build-{number}.log"));
    Ok(BuildOutcome::Different(DifferentBuild {
        files: differences,
        diffoscope: None,
        kept: [folder.to_owned(), request.out.join(RELEASE_FOLDER)],
        logs: [log(1), log(2)],
    }))
}

fn differences(
    claimed: &Claimed,
    folder: &Path,
    built: &Built,
) -> Result<Vec<FileDifference>, BuildError> {
    let record: &BuildRecord = &built.record;
    let own_folder = built.out.join(RELEASE_FOLDER);
    let (mut theirs, mut ours) = (BTreeMap::<String, PathBuf>::new(), BTreeMap::new());
    let mut unseen = Vec::new();
    for target in &record.targets {
        // A target that the release doesn't have can't contradict it.
        let Some(released) = claimed.targets.iter().find(|t| t.target == target.target) else {
            continue;
        };
        let released = &released.files;
        for file in &target.files {
            if !released.contains(file) {
                ours.insert(file.path.to_string(), own_folder.join(file.path.as_str()));
            }
        }
        for file in released.iter().filter(|file| !target.files.contains(file)) {
            let at = folder.join(file.path.as_str());
            if sha256_file(&at).is_ok_and(|digest| digest == file.sha256) {
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
    if record.sbom != claimed.sbom {
        found.push(FileDifference {
            path: record.sbom.path.to_string(),
            sizes: [Some(claimed.sbom.size), Some(record.sbom.size)],
            first_offset: None,
            section: None,
            cause: Cause::Unknown,
            evidence: None,
            mend: "the lock file or the form of the SBOM is another one".into(),
        });
    }
    Ok(found)
}
