//! Malachite's write-ahead log on a [`Medium`].

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use malachite_consensus::Input;
use malachite_engine::wal::{decode_entry, encode_entry};
use malachite_wal::Storage;
use malachite_wal::log::Log;

use crate::codec::Wire;
use crate::context::{Ctx, Height};
use crate::engine::WAL_NAME;
use crate::medium::Medium;

/// A medium with a place in it, as the log wants its file.
pub(super) struct Placed {
    medium: Box<dyn Medium>,
    place: u64,
}

impl Read for Placed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.medium.read_at(buf, self.place)?;
        self.place += read as u64;
        Ok(read)
    }
}

impl Write for Placed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.medium.write_at(bytes, self.place)?;
        self.place += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Placed {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.medium.size()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.place.checked_add_signed(by),
        };
        self.place = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.place)
    }
}

impl Storage for Placed {
    type OpenOptions = Box<dyn Medium>;

    fn open_with(_: impl AsRef<Path>, medium: Box<dyn Medium>) -> io::Result<Self> {
        Ok(Self { medium, place: 0 })
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.medium.size()
    }

    fn truncate_to(&mut self, size: u64) -> io::Result<()> {
        self.medium.set_size(size)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.medium.sync()
    }
}

/// The log, and the height that the engine told it.
pub(super) struct Wal {
    log: Log<Placed>,
    told: Option<Height>,
}

impl Wal {
    pub fn open(medium: Box<dyn Medium>) -> io::Result<Self> {
        let log = Log::open_with(WAL_NAME, medium)?;
        Ok(Self { log, told: None })
    }

    /// The height that it holds entries of.
    pub fn height(&self) -> u64 {
        self.log.sequence()
    }

    /// What it holds of a height; what it holds of another one is thrown away.
    pub fn begin(
        &mut self,
        height: Height,
        wire: &Wire,
    ) -> io::Result<Vec<io::Result<Input<Ctx>>>> {
        if self.told == Some(height) {
            return Ok(Vec::new());
        }
        self.told = Some(height);
        if self.log.sequence() != height.0 {
            self.log.reset(height.0)?;
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        if self.log.is_empty() {
            return Ok(entries);
        }
        let mut broken = None;
        for (place, bytes) in self.log.iter()?.enumerate() {
            match bytes {
                Ok(bytes) => entries.push(decode_entry(wire, bytes.as_slice())),
                Err(error) => {
                    entries.push(Err(error));
                    broken = Some(place as u64);
                    break;
                }
            }
        }
        if let Some(place) = broken {
            self.log.truncate(place)?;
        }
        Ok(entries)
    }

    pub fn reset(&mut self, height: Height) -> io::Result<()> {
        self.told = Some(height);
        self.log.reset(height.0)
    }

    pub fn append(&mut self, height: Height, entry: Input<Ctx>, wire: &Wire) -> io::Result<()> {
        if self.told != Some(height) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        encode_entry(entry, wire, &mut bytes)?;
        self.log.append(&bytes)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.log.flush()
    }
}
