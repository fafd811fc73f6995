//! A file as the mark and the logs use one: bytes at offsets, and a moment from which they outlive a power cut.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file, or what stands for one where power cuts are simulated.
pub trait Medium: Debug + Send {
    /// Reads from `offset` on, until `buf` is full or the file ends; how much it was.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file to `size` bytes, or fills it up with zeros.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Returns once everything that was written before outlives a power cut.
    fn sync(&self) -> io::Result<()>;
}

impl Medium for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buf.len() {
            match FileExt::read_at(self, &mut buf[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
