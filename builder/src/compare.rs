//! Two outputs side by side: which files differ, where first, and what probably made them so.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};
use serde::{Deserialize, Serialize};

use crate::error::{At, BuildError};
use crate::explain::{Cause, Clues, explain, mask_build_id};

/// The largest built file that is compared in memory.
pub const MAX_OUTPUT_BYTES: u64 = 2 << 30;

/// One file that is not the same in both builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDifference {
    /// The path in the release.
    pub path: String,
    /// Its sizes in bytes; nothing where a build did not make it.
    pub sizes: [Option<u64>; 2],
    /// Where they first differ, build ids aside; the shorter one's length if it is the beginning of the other.
    pub first_offset: Option<u64>,
    /// The section of an ELF file in which that is.
    pub section: Option<String>,
    /// What probably made them differ.
    pub cause: Cause,
    /// What shows it: the differing text of the first and of the second build.
    pub evidence: Option<[String; 2]>,
    /// What usually mends it.
    pub mend: String,
}

impl fmt::Display for FileDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} differs", self.path)?;
        if let Some(offset) = self.first_offset {
            write!(f, " from byte {offset}")?;
        }
        if let Some(section) = &self.section {
            write!(f, " ({section})")?;
        }
        writeln!(f, ", likely because of {}", self.cause)?;
        if let Some([first, second]) = &self.evidence {
            writeln!(f, "  first:  {first}")?;
            writeln!(f, "  second: {second}")?;
        }
        write!(f, "  mend: {}", self.mend)
    }
}

/// Compares two sets of files, by release path; an empty answer means that they are equal.
pub(crate) fn compare(
    first: &BTreeMap<String, PathBuf>,
    second: &BTreeMap<String, PathBuf>,
    clues: &Clues,
) -> Result<Vec<FileDifference>, BuildError> {
    let mut paths: Vec<&String> = first.keys().chain(second.keys()).collect();
    paths.sort();
    paths.dedup();
    let mut differences = Vec::new();
    for path in paths {
        let (mut a, mut b) = match (first.get(path), second.get(path)) {
            (Some(a), Some(b)) => (read(a)?, read(b)?),
            (a, b) => {
                let size =
                    |at: Option<&PathBuf>| at.and_then(|p| p.metadata().ok()).map(|m| m.len());
                differences.push(FileDifference {
                    path: path.clone(),
                    sizes: [size(a), size(b)],
                    first_offset: None,
                    section: None,
                    cause: Cause::OnlyOnce,
                    evidence: None,
                    mend: Cause::OnlyOnce.mend().into(),
                });
                continue;
            }
        };
        let Some(anywhere) = first_difference(&a, &b) else {
            continue;
        };
        // The build id stands near the beginning and is a digest of all the rest, so it would hide where and why.
        mask_build_id(&mut a);
        mask_build_id(&mut b);
        let (offset, (cause, evidence)) = match first_difference(&a, &b) {
            Some(offset) => (offset, explain(&a, &b, clues)),
            None => (anywhere, (Cause::BuildId, None)),
        };
        differences.push(FileDifference {
            path: path.clone(),
            sizes: [Some(a.len() as u64), Some(b.len() as u64)],
            first_offset: Some(offset as u64),
            section: section_at(&a, offset as u64),
            cause,
            evidence,
            mend: cause.mend().into(),
        });
    }
    Ok(differences)
}

fn read(at: &Path) -> Result<Vec<u8>, BuildError> {
    let size = fs::metadata(at).at("can't look at", at)?.len();
    if size > MAX_OUTPUT_BYTES {
        return Err(BuildError::TooLarge {
            what: at.display().to_string(),
            limit: MAX_OUTPUT_BYTES,
        });
    }
    fs::read(at).at("can't read", at)
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let shorter = a.len().min(b.len());
    let common = a.iter().zip(b).position(|(x, y)| x != y);
    common.or_else(|| (a.len() != b.len()).then_some(shorter))
}

/// The name of the section that holds this offset; built files come from the sandbox, so a malformed one only means
/// that there is no answer.
fn section_at(file: &[u8], offset: u64) -> Option<String> {
    let elf = object::File::parse(file).ok()?;
    let holds = |s: &object::Section<'_, '_>| {
        s.file_range()
            .is_some_and(|(start, size)| offset >= start && offset - start < size)
    };
    let name = elf
        .sections()
        .find(holds)
        .and_then(|s| s.name().ok().map(str::to_owned));
    Some(name.unwrap_or_else(|| "headers".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference() {
        assert_eq!(first_difference(b"abc", b"abc"), None);
        assert_eq!(first_difference(b"abc", b"abd"), Some(2));
        assert_eq!(first_difference(b"abc", b"ab"), Some(2));
        assert_eq!(first_difference(b"", b""), None);
    }

    #[test]
    fn sections_of_a_real_program() {
        let own = fs::read("/proc/self/exe").unwrap();
        assert_eq!(section_at(&own, 4).as_deref(), Some("headers"));
        let elf = object::File::parse(&*own).unwrap();
        let (start, size) = elf.section_by_name(".text").unwrap().file_range().unwrap();
        assert_eq!(section_at(&own, start + size / 2).as_deref(), Some(".text"));
        assert_eq!(section_at(b"no program", 3), None);
    }
}
