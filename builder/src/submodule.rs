//! Submodules: which ones a tree names, and where their objects lie.
//!
//! The superproject's tree pins each by a commit id, so nothing about where it comes from has to be trusted.

use std::path::Path;

use git2::{Oid, Repository};

/// The largest `.gitmodules` that is read.
const MAX_GITMODULES_BYTES: usize = 1 << 20;

/// One section of `.gitmodules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    name: String,
    path: String,
}

/// The submodules that the `.gitmodules` of a tree names.
pub(crate) fn listed(repo: &Repository, tree: Oid) -> Result<Vec<Module>, git2::Error> {
    let tree = repo.find_tree(tree)?;
    let Some(entry) = tree.get_name(".gitmodules") else {
        return Ok(Vec::new());
    };
    let (size, _) = repo.odb()?.read_header(entry.id())?;
    if size > MAX_GITMODULES_BYTES {
        return Ok(Vec::new());
    }
    let Ok(blob) = repo.find_blob(entry.id()) else {
        return Ok(Vec::new());
    };
    Ok(parse(&String::from_utf8_lossy(blob.content())))
}

/// Names and paths, and nothing else: git's own reader would follow includes out of the source.
fn parse(text: &str) -> Vec<Module> {
    let mut found: Vec<Module> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix("[submodule \"") {
            let name = section.trim_end_matches("\"]").to_owned();
            let path = String::new();
            found.push(Module { name, path });
        } else if line.starts_with('[') {
            // A section of something else ends the one before; what it says must not be taken for it.
            found.push(Module {
                name: String::new(),
                path: String::new(),
            });
        } else if let (Some((key, value)), Some(last)) = (line.split_once('='), found.last_mut())
            && key.trim() == "path"
        {
            last.path = value.trim().to_owned();
        }
    }
    // A name becomes a path below the repository's own folder.
    found.retain(|m| {
        !m.name.is_empty()
            && m.name
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."))
    });
    found
}

/// The repository of the submodule at `path`: checked out there, or kept among the superproject's modules.
pub(crate) fn open(repo: &Repository, modules: &[Module], path: &str) -> Option<Repository> {
    let name = modules
        .iter()
        .find(|m| m.path == path)
        .map(|m| m.name.as_str());
    let kept = name.map(|name| repo.path().join("modules").join(name));
    let out = repo.workdir().map(|root| root.join(Path::new(path)));
    kept.into_iter()
        .chain(out)
        // The folder of a submodule that was never brought lies in the superproject, and must not be taken for it.
        .filter_map(|at| Repository::open(at).ok())
        .find(|found| found.path() != repo.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_read_and_nothing_else() {
        let text = "[submodule \"a/b\"]\n\tpath = libs/b\n\turl = ../b\n[include]\n\tpath = /etc/x\n\
                    [submodule \"../evil\"]\npath = evil\n";
        let found = parse(text);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].path.as_str()),
            ("a/b", "libs/b")
        );
        let text = "[submodule \"x\"]\npath=x\n";
        assert_eq!(parse(text)[0].path, "x");
    }
}
