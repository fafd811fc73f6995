//! Cuts a file into blocks and builds its DAG, as a stream: memory is one chunk and one node a
//! level, whatever the size of the file.

use std::io::{self, Read};

use cid::Cid;
use sha2::{Digest, Sha256};

use crate::block::{RAW, cid_of};
use crate::node::{FileLink, encode_file};
use crate::profile::Profile;

/// What a file became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSummary {
    /// Root of the file's DAG; its only leaf if it has one chunk.
    pub cid: Cid,
    /// Content bytes.
    pub size: u64,
    /// Bytes of all its blocks, counted as often as they are linked (dag-pb `Tsize`).
    pub dag_size: u64,
    /// SHA-256 of the content, which is what attestations name.
    pub sha256: [u8; 32],
}

/// Why a file couldn't be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The content couldn't be read.
    #[error("the content couldn't be read")]
    Read(#[source] io::Error),
    /// The blocks couldn't be kept.
    #[error("a block couldn't be kept")]
    Put(#[source] io::Error),
}

/// Takes each block as it is made, children before parents.
pub type PutBlock<'a> = dyn FnMut(&Cid, &[u8]) -> io::Result<()> + 'a;

/// Bytes read ahead of the cutter: several chunks, so that what is left of the last one is moved
/// seldom.
const WINDOW_CHUNKS: usize = 4;

/// Cuts `content` under `profile`, hands every block to `put`, and says what came out.
pub fn add_file(
    profile: Profile,
    content: &mut dyn Read,
    put: &mut PutBlock<'_>,
) -> Result<FileSummary, AddError> {
    let mut whole = Sha256::new();
    let mut dag = Balanced::new(profile);
    let max = profile.max_chunk_bytes();
    let mut window = vec![0; WINDOW_CHUNKS * max];
    let (mut start, mut end, mut ended) = (0, 0, false);
    loop {
        if !ended && end - start < max {
            window.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            while !ended && end < window.len() {
                match content.read(&mut window[end..]) {
                    Ok(0) => ended = true,
                    Ok(count) => end += count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(AddError::Read(e)),
                }
            }
        }
        if start == end {
            break;
        }
        let chunk = &window[start..start + profile.cut(&window[start..end])];
        start += chunk.len();
        whole.update(chunk);
        let cid = cid_of(RAW, chunk);
        put(&cid, chunk).map_err(AddError::Put)?;
        dag.leaf(cid, chunk.len() as u64, put)
            .map_err(AddError::Put)?;
    }
    let root = dag.finish(put).map_err(AddError::Put)?;
    Ok(FileSummary {
        cid: root.cid,
        size: root.size,
        dag_size: root.dag_size,
        sha256: whole.finalize().into(),
    })
}

/// A balanced DAG in the making: `levels[0]` waits for leaves, each level above for nodes of the
/// level below. A level is written out as a node as soon as it is full.
pub(crate) struct Balanced {
    width: usize,
    levels: Vec<Vec<FileLink>>,
}

impl Balanced {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            width: profile.file_width(),
            levels: Vec::new(),
        }
    }

    /// Adds a leaf whose block is kept already.
    pub(crate) fn leaf(&mut self, cid: Cid, size: u64, put: &mut PutBlock<'_>) -> io::Result<()> {
        let mut link = FileLink {
            cid,
            size,
            dag_size: size,
        };
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(link);
            if self.levels[level].len() < self.width {
                break;
            }
            link = Self::write(&mut self.levels[level], put)?;
        }
        Ok(())
    }

    fn write(links: &mut Vec<FileLink>, put: &mut PutBlock<'_>) -> io::Result<FileLink> {
        let (cid, bytes) = encode_file(links);
        put(&cid, &bytes)?;
        let below: u64 = links.iter().map(|l| l.dag_size).sum();
        let size = links.iter().map(|l| l.size).sum();
        links.clear();
        Ok(FileLink {
            cid,
            size,
            dag_size: below + bytes.len() as u64,
        })
    }

    pub(crate) fn finish(mut self, put: &mut PutBlock<'_>) -> io::Result<FileLink> {
        if self.levels.is_empty() {
            // An empty file is the empty raw leaf.
            let cid = cid_of(RAW, &[]);
            put(&cid, &[])?;
            self.leaf(cid, 0, put)?;
        }
        let mut below: Option<FileLink> = None;
        let top = self.levels.len() - 1;
        for (number, links) in self.levels.iter_mut().enumerate() {
            links.extend(below.take());
            below = match links.as_slice() {
                [] => None,
                // A single link needs no node above it: a file of one chunk is its leaf.
                [only] if number == top => Some(*only),
                _ => Some(Self::write(links, put)?),
            };
        }
        Ok(below.expect("a level is made only to hold a link, and full ones pass theirs upward"))
    }
}

#[cfg(test)]
mod tests {
    use rust_unixfs::file::adder::{FileBranchLink, build_file_from_leaves};

    use super::*;

    /// The library's own layout over the same leaves gives the same root at each change of shape.
    #[test]
    fn the_layout_is_what_stock_importers_make() {
        let leaf = b"leaf".as_slice();
        let link = FileBranchLink {
            cid: cid_of(RAW, leaf),
            blocksize: 4,
            tsize: 4,
        };
        for leaves in [1, 2, 173, 174, 175, 348, 349, 174 * 174, 174 * 174 + 1] {
            let mut dag = Balanced::new(Profile::InstarCdcV1);
            for _ in 0..leaves {
                dag.leaf(cid_of(RAW, leaf), 4, &mut |_, _| Ok(())).unwrap();
            }
            let root = dag.finish(&mut |_, _| Ok(())).unwrap();
            let (cid, dag_size, _) = build_file_from_leaves(
                &vec![link.clone(); leaves],
                cid::Version::V1,
                multihash_codetable::Code::Sha2_256,
            );
            assert_eq!(
                (root.cid, root.dag_size),
                (cid, dag_size),
                "{leaves} leaves"
            );
            assert_eq!(root.size, 4 * leaves as u64);
        }
    }
}
