//! The output folder: the release's files under the paths that the ledger will know, each with its digest and CID.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use instar_attest::Digest;
use instar_attest::release::{
    Cid, FileMode, FileReveal, ReleasePath, SBOM_PATH, SbomReveal, Target, check_files, check_sbom,
};
use instar_chunks::Profile;

use crate::error::{At, BuildError, project};
use crate::hermetic::{Ran, made_at};
use crate::project::{Kind, MAX_PROJECT_BYTES, Project, read_file};
use crate::record::BuiltTarget;
use crate::source::write_new;

/// The folder of an output folder that holds the release's files.
pub const RELEASE_FOLDER: &str = "release";

/// The folder beside it that holds debug information, which nobody compares or attests.
pub const DEBUG_FOLDER: &str = "debug";

/// Where one build's files are, by release path.
pub(crate) type Made = BTreeMap<String, PathBuf>;

/// Finds what a build made for the targets below its target folder.
pub(crate) fn find_made(
    project: &Project,
    targets: &[Target],
    made: &Path,
) -> Result<Made, BuildError> {
    let mut found = Made::new();
    for target in targets {
        let program = made.join(made_at(target, &project.bin));
        // A link would be followed outside the sandbox that the build was kept in.
        if !fs::symlink_metadata(&program).is_ok_and(|meta| meta.is_file()) {
            return Err(BuildError::NoProgram(format!(
                "{} for {target}",
                project.bin
            )));
        }
        found.insert(format!("{target}/{}", program_path(project)), program);
    }
    Ok(found)
}

pub(crate) fn program_path(project: &Project) -> String {
    match project.kind {
        Kind::Dapp => format!("rootfs/bin/{}", project.name),
        Kind::Program => project.name.to_string(),
    }
}

/// Copies the built programs, each target's manifest and the SBOM into the output folder.
pub(crate) fn assemble(
    project: &Project,
    source: &Path,
    made: &Made,
    sbom: &[u8],
    out: &Path,
) -> Result<(Vec<BuiltTarget>, SbomReveal), BuildError> {
    let release = out.join(RELEASE_FOLDER);
    let manifest = match project.kind {
        Kind::Program => None,
        Kind::Dapp => {
            let found = read_file(source, &project.manifest, MAX_PROJECT_BYTES)?;
            Some(found.ok_or_else(|| {
                crate::error::project(
                    &project.manifest,
                    "a dapp has a manifest, and it isn't there",
                )
            })?)
        }
    };
    let mut targets: BTreeMap<Target, Vec<FileReveal>> = BTreeMap::new();
    for (path, built) in made {
        let (target, _) = path
            .split_once('/')
            .ok_or_else(|| self::project(path, "it is not under a target"))?;
        let target = Target::new(target)?;
        let at = release.join(path);
        make_parent(&at)?;
        fs::copy(built, &at).at("can't copy to", &at)?;
        let files = targets.entry(target.clone()).or_default();
        files.push(reveal(
            &at,
            ReleasePath::new(path.clone())?,
            FileMode::Executable,
        )?);
        if let Some(manifest) = &manifest {
            let path = ReleasePath::of_target(&target, "dapp.json")?;
            let at = release.join(path.as_str());
            write_new(&at, manifest, FileMode::Plain.bits())?;
            files.push(reveal(&at, path, FileMode::Plain)?);
        }
    }
    let at = release.join(SBOM_PATH);
    write_new(&at, sbom, FileMode::Plain.bits())?;
    let file = reveal(&at, ReleasePath::new(SBOM_PATH)?, FileMode::Plain)?;
    let sbom = SbomReveal {
        cid: file.cid,
        dag_size: file.dag_size,
        path: file.path,
        sha256: file.sha256,
        size: file.size,
    };
    check_sbom(&sbom)?;
    let mut built = Vec::new();
    for (target, mut files) in targets {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        check_files(&target, &files)?;
        built.push(BuiltTarget { target, files });
    }
    Ok((built, sbom))
}

/// Copies the first build's debug information beside the release: `debug/<target>/<name>.debug`.
pub(crate) fn keep_debug_info(
    project: &Project,
    targets: &[Target],
    ran: &Ran,
    out: &Path,
) -> Result<(), BuildError> {
    let Some(made) = &ran.made else {
        return Ok(());
    };
    for target in targets {
        let from = made.join(format!("{}.debug", made_at(target, &project.bin)));
        if !fs::symlink_metadata(&from).is_ok_and(|meta| meta.is_file()) {
            return Err(BuildError::NoProgram(format!(
                "debug information of {} for {target}",
                project.bin
            )));
        }
        let at = out.join(DEBUG_FOLDER).join(target.as_str());
        fs::create_dir_all(&at).at("can't make", &at)?;
        let at = at.join(format!("{}.debug", project.name));
        fs::copy(&from, &at).at("can't copy to", &at)?;
    }
    Ok(())
}

fn make_parent(at: &Path) -> Result<(), BuildError> {
    let parent = at.parent().expect("release paths are joined to a folder");
    fs::create_dir_all(parent).at("can't make", parent)
}

/// What a builder reveals about the file at `at`; its mode bits are set to exactly what is revealed.
pub(crate) fn reveal(
    at: &Path,
    path: ReleasePath,
    mode: FileMode,
) -> Result<FileReveal, BuildError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(at, fs::Permissions::from_mode(mode.bits()))
        .at("can't set the mode of", at)?;
    let mut file = fs::File::open(at).at("can't open", at)?;
    // The blocks are made again when the release is pinned: keeping them here would write everything twice.
    let summary = instar_chunks::add_file(Profile::InstarCdcV1, &mut file, &mut |_, _| Ok(()))
        .map_err(|why| BuildError::Chunks {
            path: at.to_owned(),
            why: why.to_string(),
        })?;
    Ok(FileReveal {
        cid: Cid::new(summary.cid.to_string())?,
        dag_size: summary.dag_size,
        mode,
        path,
        sha256: Digest::from_bytes(summary.sha256),
        size: summary.size,
    })
}
