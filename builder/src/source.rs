//! The source: a commit is resolved and its tree written out, exactly as git stores it.
//!
//! The tree is read object by object. `git archive` and `git checkout` are not used: attributes, filters and line-end
//! rules of the repository or of the machine would then change what is built.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git2::{ObjectFormat, ObjectType, Odb, Oid, Repository};
use instar_attest::release::{Source, SourceFormat};

use crate::error::{At, BuildError};
use crate::remote::without_credentials;
use crate::submodule;

/// How many files and folders a source may have. The Linux kernel has 90,000.
pub const MAX_TREE_ENTRIES: usize = 200_000;
/// How large all files of a source may be together, vendored crates included.
pub const MAX_TREE_BYTES: u64 = 4 << 30;
/// How deeply folders may nest; bounds the recursion.
pub const MAX_TREE_DEPTH: usize = 64;
/// The longest path in a source, in bytes: what still fits below a private work folder.
pub const MAX_TREE_PATH: usize = 1024;

/// A commit of a repository, resolved once. What is built never depends on names that can move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Commit, tree and object format.
    pub source: Source,
    /// The committer's time, in seconds since 1970; never before.
    pub time_s: u64,
    /// The ref that was asked for, if it was one.
    pub reference: Option<String>,
    /// Where the repository says that it comes from, without credentials.
    pub repository: Option<String>,
    /// Whether the tree is a work tree that is not the commit's.
    pub dirty: bool,
}

/// Resolves `revision` to a commit of `repository`, which may be a checkout or bare, in SHA-1 or SHA-256 format.
pub fn resolve(repository: &Path, revision: &str) -> Result<Commit, BuildError> {
    let wrap = |source| BuildError::Repository {
        repository: repository.to_owned(),
        revision: revision.to_owned(),
        source,
    };
    let repo = Repository::open(repository).map_err(wrap)?;
    let commit = repo
        .revparse_single(revision)
        .and_then(|found| found.peel_to_commit())
        .map_err(wrap)?;
    Ok(of_commit(&repo, &commit, revision))
}

/// The work tree of a checkout on top of its head: what is tracked, and what is new and not ignored. Where that is the
/// head's own tree, the commit is as good as any other.
///
/// Like `git stash create`, this leaves objects in the repository that no ref leads to.
pub fn resolve_dirty(repository: &Path) -> Result<Commit, BuildError> {
    let wrap = |source| BuildError::Repository {
        repository: repository.to_owned(),
        revision: "the work tree".to_owned(),
        source,
    };
    let repo = Repository::open(repository).map_err(wrap)?;
    let head = repo.revparse_single("HEAD").map_err(wrap)?;
    let head = head.peel_to_commit().map_err(wrap)?;
    let mut index = repo.index().map_err(wrap)?;
    // Changed in memory alone: the checkout's own index stays as it is.
    index
        .add_all(["*"], git2::IndexAddOption::DEFAULT, None)
        .and_then(|()| index.update_all(["*"], None))
        .map_err(wrap)?;
    let tree = index.write_tree().map_err(wrap)?;
    let mut commit = of_commit(&repo, &head, "HEAD");
    commit.dirty = tree != head.tree_id();
    commit.source.tree = tree.to_string();
    Ok(commit)
}

fn of_commit(repo: &Repository, commit: &git2::Commit<'_>, revision: &str) -> Commit {
    let format = match repo.object_format() {
        ObjectFormat::Sha1 => SourceFormat::Sha1,
        ObjectFormat::Sha256 => SourceFormat::Sha256,
    };
    let reference = repo
        .resolve_reference_from_short_name(revision)
        .and_then(|found| found.resolve());
    let reference = reference
        .ok()
        .and_then(|found| found.name().map(str::to_owned).ok())
        .filter(|name| name.starts_with("refs/"));
    let origin = repo.find_remote("origin");
    let origin = origin
        .ok()
        .and_then(|remote| remote.url().map(without_credentials).ok());
    Commit {
        source: Source {
            commit: commit.id().to_string(),
            format,
            tree: commit.tree_id().to_string(),
        },
        time_s: u64::try_from(commit.time().seconds()).unwrap_or(0),
        reference,
        repository: origin,
        dirty: false,
    }
}

/// Writes the commit's tree into the new folder `into`; every file's modification time is the commit's.
pub fn extract(repository: &Path, commit: &Commit, into: &Path) -> Result<(), BuildError> {
    let wrap = |source| BuildError::Repository {
        repository: repository.to_owned(),
        revision: commit.source.commit.clone(),
        source,
    };
    let repo = Repository::open(repository).map_err(wrap)?;
    let tree = Oid::from_str_ext(&commit.source.tree, repo.object_format()).map_err(wrap)?;
    let odb = repo.odb().map_err(wrap)?;
    fs::create_dir(into).at("can't make", into)?;
    let modules = submodule::listed(&repo, tree).map_err(wrap)?;
    let mut writer = Writer {
        repo: &repo,
        odb: &odb,
        modules: &modules,
        within: "",
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(commit.time_s),
        used: &mut Used::default(),
    };
    writer.folder(tree, into, "", 0, &wrap)
}

/// What was written so far, submodules included.
#[derive(Default)]
struct Used {
    entries: usize,
    bytes: u64,
}

struct Writer<'a> {
    repo: &'a Repository,
    odb: &'a Odb<'a>,
    /// The submodules that this repository's `.gitmodules` names, by path.
    modules: &'a [submodule::Module],
    /// The path at which this repository's tree stands in the whole source, with a `/` after it.
    within: &'a str,
    time: SystemTime,
    used: &'a mut Used,
}

impl Writer<'_> {
    fn folder(
        &mut self,
        tree: Oid,
        into: &Path,
        prefix: &str,
        depth: usize,
        wrap: &dyn Fn(git2::Error) -> BuildError,
    ) -> Result<(), BuildError> {
        let tree = self.repo.find_tree(tree).map_err(wrap)?;
        for entry in &tree {
            let name = std::str::from_utf8(entry.name_bytes()).map_err(|_| {
                let path = format!("{prefix}{}", String::from_utf8_lossy(entry.name_bytes()));
                refused(&path, "its name is not UTF-8")
            })?;
            let path = format!("{prefix}{name}");
            check_name(name, &path)?;
            self.used.entries += 1;
            if depth >= MAX_TREE_DEPTH || path.len() > MAX_TREE_PATH {
                return Err(refused(&path, "it lies too deep"));
            }
            if self.used.entries > MAX_TREE_ENTRIES {
                return Err(BuildError::TooLarge {
                    what: "the number of files in the source".into(),
                    limit: MAX_TREE_ENTRIES as u64,
                });
            }
            let at = into.join(name);
            match entry.filemode_raw() {
                0o040000 => {
                    fs::create_dir(&at).at("can't make", &at)?;
                    self.folder(entry.id(), &at, &format!("{path}/"), depth + 1, wrap)?;
                }
                0o100644 | 0o100664 => self.file(entry.id(), &at, 0o644, wrap)?,
                0o100755 => self.file(entry.id(), &at, 0o755, wrap)?,
                0o120000 => self.link(entry.id(), &at, &path, depth, wrap)?,
                0o160000 => self.submodule(entry.id(), &at, &path, depth)?,
                _ => return Err(refused(&path, "it is no file, folder or symbolic link")),
            }
        }
        set_time(into, self.time)
    }

    /// A submodule is pinned by the commit in the tree; its objects lie where `git submodule update` put them.
    fn submodule(
        &mut self,
        commit: Oid,
        at: &Path,
        path: &str,
        depth: usize,
    ) -> Result<(), BuildError> {
        let inside = path.strip_prefix(self.within).unwrap_or(path);
        let repo = submodule::open(self.repo, self.modules, inside).ok_or_else(|| {
            refused(
                path,
                "a submodule whose repository is not here; run `git submodule update --init --recursive`",
            )
        })?;
        let wrap = |source| BuildError::Repository {
            repository: repo.path().to_owned(),
            revision: commit.to_string(),
            source,
        };
        let tree = repo.find_commit(commit).map_err(wrap)?.tree_id();
        let modules = submodule::listed(&repo, tree).map_err(wrap)?;
        let odb = repo.odb().map_err(wrap)?;
        fs::create_dir(at).at("can't make", at)?;
        let within = format!("{path}/");
        let mut writer = Writer {
            repo: &repo,
            odb: &odb,
            modules: &modules,
            within: &within,
            time: self.time,
            used: &mut *self.used,
        };
        writer.folder(tree, at, &within, depth + 1, &wrap)
    }

    fn blob(
        &mut self,
        id: Oid,
        wrap: &dyn Fn(git2::Error) -> BuildError,
    ) -> Result<git2::OdbObject<'_>, BuildError> {
        // The header is read first, so that a huge object is refused before it is in memory.
        let (size, kind) = self.odb.read_header(id).map_err(wrap)?;
        if kind != ObjectType::Blob {
            return Err(refused(
                &id.to_string(),
                "it is not the blob that its mode promises",
            ));
        }
        self.used.bytes += size as u64;
        if self.used.bytes > MAX_TREE_BYTES {
            return Err(BuildError::TooLarge {
                what: "the size of the source in bytes".into(),
                limit: MAX_TREE_BYTES,
            });
        }
        self.odb.read(id).map_err(wrap)
    }

    fn file(
        &mut self,
        id: Oid,
        at: &Path,
        mode: u32,
        wrap: &dyn Fn(git2::Error) -> BuildError,
    ) -> Result<(), BuildError> {
        let time = self.time;
        let blob = self.blob(id, wrap)?;
        write_new(at, blob.data(), mode)?;
        set_time(at, time)
    }

    fn link(
        &mut self,
        id: Oid,
        at: &Path,
        path: &str,
        depth: usize,
        wrap: &dyn Fn(git2::Error) -> BuildError,
    ) -> Result<(), BuildError> {
        let blob = self.blob(id, wrap)?;
        let to = std::str::from_utf8(blob.data())
            .map_err(|_| refused(path, "a symbolic link whose target is not UTF-8"))?;
        if !stays_inside(to, depth) {
            return Err(refused(
                path,
                "a symbolic link that leads out of the source",
            ));
        }
        symlink(to, at).at("can't link", at)
    }
}

/// Writes a new file with exactly this mode, whatever the umask of the caller.
pub(crate) fn write_new(at: &Path, data: &[u8], mode: u32) -> Result<(), BuildError> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(at)
        .at("can't make", at)?;
    file.write_all(data).at("can't write", at)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .at("can't set the mode of", at)
}

fn set_time(at: &Path, time: SystemTime) -> Result<(), BuildError> {
    fs::File::open(at)
        .and_then(|f| f.set_modified(time))
        .at("can't set the time of", at)
}

fn check_name(name: &str, path: &str) -> Result<(), BuildError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(refused(path, "its name leads out of its folder"));
    }
    if name.eq_ignore_ascii_case(".git") {
        return Err(refused(path, "a name that git keeps for itself"));
    }
    Ok(())
}

/// Whether a link `depth` folders below the root stays in the tree, followed by its text alone.
fn stays_inside(to: &str, depth: usize) -> bool {
    let mut level = depth;
    if to.is_empty() || to.starts_with('/') {
        return false;
    }
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." if level == 0 => return false,
            ".." => level -= 1,
            _ => level += 1,
        }
    }
    true
}

fn refused(path: &str, why: &'static str) -> BuildError {
    BuildError::Tree {
        path: path.chars().take(200).collect(),
        why,
    }
}

/// All files and links below `root`, relative and sorted by bytes; folders are not listed.
pub(crate) fn list_files(root: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let at = root.join(&folder);
        for entry in fs::read_dir(&at).at("can't list", &at)? {
            let entry = entry.at("can't list", &at)?;
            let path = folder.join(entry.file_name());
            if entry.file_type().at("can't look at", &path)?.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
            if found.len() + open.len() > MAX_TREE_ENTRIES {
                return Err(BuildError::TooLarge {
                    what: format!("the number of files below {}", root.display()),
                    limit: MAX_TREE_ENTRIES as u64,
                });
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        assert!(stays_inside("a/b", 0));
        assert!(stays_inside("../a", 1));
        assert!(stays_inside("b/../../a", 1));
        assert!(!stays_inside("../a", 0));
        assert!(!stays_inside("a/../../b", 0));
        assert!(!stays_inside("/etc/passwd", 3));
        assert!(!stays_inside("", 0));
    }

    #[test]
    fn names_stay_in_their_folder() {
        for bad in ["", ".", "..", "a/b", ".git", ".GIT", "a\0"] {
            assert!(check_name(bad, bad).is_err(), "{bad:?}");
        }
        assert!(check_name(".cargo", ".cargo").is_ok());
    }
}
