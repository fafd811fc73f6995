//! A CAR file as a source: indexed once, then read where a block lies.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cid::Cid;
use instar_chunks::Limits;
use instar_chunks::block::canonical;
use instar_chunks::car::{CarError, CarReader};

use super::{Source, SourceError};

/// An archive on disk, of version 1 or 2.
pub struct CarSource {
    name: String,
    file: File,
    /// Where each block lies: offset and length.
    index: HashMap<Cid, (u64, usize)>,
}

impl CarSource {
    /// Reads the whole archive once and checks every block in it.
    pub fn open(path: &Path) -> Result<Self, CarError> {
        let file = File::open(path)?;
        let mut car = CarReader::new(BufReader::with_capacity(1 << 20, file.try_clone()?))?;
        let mut index = HashMap::new();
        while let Some((cid, bytes)) = car.next_block()? {
            if index.len() >= Limits::MAX_BLOCKS {
                return Err(CarError::Malformed {
                    at: car.position(),
                    why: "it has more blocks than any DAG may have",
                });
            }
            let at = car.position() - bytes.len() as u64;
            // Every block was accepted, so that its address has a canonical form.
            if let Ok(cid) = canonical(&cid) {
                index.insert(cid, (at, bytes.len()));
            }
        }
        Ok(Self {
            name: format!("archive {}", path.display()),
            file,
            index,
        })
    }
}

impl Source for CarSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn parallel(&self) -> usize {
        1
    }

    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, SourceError> {
        let Some((at, length)) = self.index.get(cid) else {
            return Ok(None);
        };
        let mut bytes = vec![0; *length];
        match self.file.read_exact_at(&mut bytes, *at) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) => Err(SourceError(error.to_string())),
        }
    }
}
