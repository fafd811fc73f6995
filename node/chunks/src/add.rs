//! Cuts a file into blocks and builds its DAG, as a stream: memory is one chunk and one node a
//! level, whatever the size of the file.

use std::io::{self, Read};

use cid::Cid;
use fastcdc::v2020::StreamCDC;
use sha2::{Digest, Sha256};

use crate::block::{RAW, cid_of};
use crate::node::{FileLink, encode_file};
use crate::profile::{FILE_WIDTH, Profile};

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

/// Cuts `content` under `profile`, hands every block to `put`, and says what came out.
pub fn add_file(
    profile: Profile,
    content: &mut dyn Read,
    put: &mut PutBlock<'_>,
) -> Result<FileSummary, AddError> {
    let cdc = profile.cdc();
    let mut whole = Sha256::new();
    let mut dag = Balanced::default();
    let chunks = StreamCDC::with_level(
        content,
        cdc.min_bytes,
        cdc.avg_bytes,
        cdc.max_bytes,
        cdc.normalization,
    );
    for chunk in chunks {
        let chunk = chunk.map_err(|e| AddError::Read(e.into()))?;
        whole.update(&chunk.data);
        dag.leaf(&chunk.data, put).map_err(AddError::Put)?;
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
#[derive(Default)]
struct Balanced {
    levels: Vec<Vec<FileLink>>,
}

impl Balanced {
    fn leaf(&mut self, bytes: &[u8], put: &mut PutBlock<'_>) -> io::Result<()> {
        let cid = cid_of(RAW, bytes);
        put(&cid, bytes)?;
        let size = bytes.len() as u64;
        let mut link = FileLink {
            cid,
            size,
            dag_size: size,
        };
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::with_capacity(FILE_WIDTH));
            }
            self.levels[level].push(link);
            if self.levels[level].len() < FILE_WIDTH {
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

    fn finish(mut self, put: &mut PutBlock<'_>) -> io::Result<FileLink> {
        if self.levels.is_empty() {
            // An empty file is the empty raw leaf.
            self.leaf(&[], put)?;
        }
        for level in 0.. {
            let top = level + 1 == self.levels.len();
            if top && self.levels[level].len() == 1 {
                // A single link needs no node above it: a file of one chunk is its leaf.
                return Ok(self.levels[level][0]);
            }
            if self.levels[level].is_empty() {
                continue;
            }
            let link = Self::write(&mut self.levels[level], put)?;
            if top {
                return Ok(link);
            }
            self.levels[level + 1].push(link);
        }
        unreachable!("the top level is never empty: a level is made when a link is put on it")
    }
}
