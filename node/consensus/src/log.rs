//! Undecided proposals on disk.
//!
//! The engine's write-ahead log may hold a lock on a block id; whoever is locked must be able to send that block's
//! payload again after a crash. One append-only file for the running height, emptied when the height is decided. A
//! record is `"instarP1" ‖ height u64 ‖ round u32 ‖ own u8 ‖ block id ‖ SHA-256 of the payload ‖ length u32 ‖ SHA-256 of
//! this head ‖ payload`, integers big-endian.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use bytes::Bytes;
use instar_attest::Digest;
use instar_ledger::Oid;

use crate::host::MAX_PAYLOAD_BYTES;
use crate::medium::Medium;

const MAGIC: &[u8; 8] = b"instarP1";
const PLAIN_HEAD_BYTES: usize = 8 + 8 + 4 + 1 + 32 + 32 + 4;
const HEAD_BYTES: usize = PLAIN_HEAD_BYTES + 32;
/// One height may fill this much disk; each round adds at most one payload that passed the merge test.
const MAX_LOG_BYTES: u64 = 1024 * 1024 * 1024;
const FILE_NAME: &str = "proposals.log";

#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    length: usize,
    digest: Digest,
}

/// The payloads of the running height that passed the merge test here.
#[derive(Debug)]
pub(crate) struct ProposalLog {
    file: Box<dyn Medium>,
    end: u64,
    height: u64,
    places: BTreeMap<Oid, Place>,
    /// What this node proposed itself, by round: the same again after a crash, never a second one.
    own: BTreeMap<u32, Oid>,
}

impl ProposalLog {
    /// Reads what an earlier process left. A torn record at the end is dropped: nothing was voted on it.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(FILE_NAME))?;
        File::open(dir)?.sync_all()?;
        Self::read(Box::new(file))
    }

    /// As [`ProposalLog::open`], from a medium that is there.
    pub(crate) fn read(file: Box<dyn Medium>) -> io::Result<Self> {
        let mut log = Self {
            file,
            end: 0,
            height: 0,
            places: BTreeMap::new(),
            own: BTreeMap::new(),
        };
        let length = log.file.size()?;
        while let Some(next) = log.read_record(length)? {
            log.end = next;
        }
        Ok(log)
    }

    fn read_record(&mut self, length: u64) -> io::Result<Option<u64>> {
        let offset = self.end + HEAD_BYTES as u64;
        if offset > length {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        self.read_exact(&mut head, self.end)?;
        let (plain, sum) = head.split_at(PLAIN_HEAD_BYTES);
        if Digest::of(plain).as_bytes() != sum || !plain.starts_with(MAGIC) {
            return Ok(None);
        }
        let mut rest = &plain[8..];
        let mut take = |n: usize| {
            let (now, later) = rest.split_at(n);
            rest = later;
            now
        };
        let height = number(take(8));
        let round = number(take(4)) as u32;
        let own = take(1) == [1];
        let block = Oid::from_bytes(array(take(32)));
        let digest = Digest::from_bytes(array(take(32)));
        let size = number(take(4)) as usize;
        if size > MAX_PAYLOAD_BYTES || offset + size as u64 > length {
            return Ok(None);
        }
        let place = Place {
            offset,
            length: size,
            digest,
        };
        if self.payload_at(place)?.is_none() {
            return Ok(None);
        }
        self.note(height, round, own, block, place);
        Ok(Some(offset + size as u64))
    }

    fn note(&mut self, height: u64, round: u32, own: bool, block: Oid, place: Place) {
        if height != self.height {
            self.places.clear();
            self.own.clear();
            self.height = height;
        }
        self.places.insert(block, place);
        if own {
            self.own.insert(round, block);
        }
    }

    /// Keeps a payload, durably. Keeping it twice costs nothing.
    pub(crate) fn keep(
        &mut self,
        height: u64,
        round: u32,
        own: bool,
        block: Oid,
        payload: &Bytes,
    ) -> io::Result<()> {
        if height != self.height {
            self.end = 0;
        }
        let known = height == self.height && self.places.contains_key(&block);
        if known && (!own || self.own.get(&round) == Some(&block)) {
            return Ok(());
        }
        let digest = Digest::of(payload);
        let mut record = MAGIC.to_vec();
        record.extend(height.to_be_bytes());
        record.extend(round.to_be_bytes());
        record.push(u8::from(own));
        record.extend(block.as_bytes());
        record.extend(digest.as_bytes());
        record.extend((payload.len() as u32).to_be_bytes());
        let sum = Digest::of(&record);
        record.extend(sum.as_bytes());
        let offset = self.end + record.len() as u64;
        let end = offset + payload.len() as u64;
        if payload.len() > MAX_PAYLOAD_BYTES || end > MAX_LOG_BYTES {
            return Err(io::Error::other("the log of undecided proposals is full"));
        }
        record.extend_from_slice(payload);
        self.file.write_at(&record, self.end)?;
        self.file.set_size(end)?;
        self.file.sync()?;
        self.note(
            height,
            round,
            own,
            block,
            Place {
                offset,
                length: payload.len(),
                digest,
            },
        );
        self.end = end;
        Ok(())
    }

    /// What this node proposed at this height and round, in this process or an earlier one.
    pub(crate) fn own(&self, height: u64, round: u32) -> Option<Oid> {
        self.own
            .get(&round)
            .copied()
            .filter(|_| height == self.height)
    }

    /// A kept payload.
    pub(crate) fn payload(&self, height: u64, block: &Oid) -> io::Result<Option<Bytes>> {
        match self.places.get(block) {
            Some(place) if height == self.height => self.payload_at(*place),
            _ => Ok(None),
        }
    }

    /// Whether the payload passed the merge test here.
    pub(crate) fn contains(&self, height: u64, block: &Oid) -> bool {
        height == self.height && self.places.contains_key(block)
    }

    fn payload_at(&self, place: Place) -> io::Result<Option<Bytes>> {
        let mut payload = vec![0; place.length];
        self.read_exact(&mut payload, place.offset)?;
        Ok((Digest::of(&payload) == place.digest).then(|| payload.into()))
    }

    fn read_exact(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.file.read_at(buf, offset)? == buf.len() {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn array(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().expect("the caller took 32 bytes")
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| (n << 8) | u64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(n: u8) -> Oid {
        Oid::from_bytes([n; 32])
    }

    #[test]
    fn payloads_outlive_the_process_and_not_their_height() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = ProposalLog::open(dir.path()).unwrap();
        let (a, b) = (Bytes::from_static(b"first"), Bytes::from(vec![9; 300_000]));
        log.keep(4, 0, false, oid(1), &a).unwrap();
        log.keep(4, 1, true, oid(2), &b).unwrap();
        drop(log);
        let mut log = ProposalLog::open(dir.path()).unwrap();
        assert_eq!(log.payload(4, &oid(1)).unwrap(), Some(a.clone()));
        assert_eq!(log.payload(4, &oid(2)).unwrap(), Some(b));
        assert_eq!(log.own(4, 1), Some(oid(2)));
        assert_eq!((log.own(4, 0), log.own(5, 1)), (None, None));
        log.keep(5, 0, false, oid(3), &a).unwrap();
        assert!(!log.contains(4, &oid(1)));
        drop(log);
        let log = ProposalLog::open(dir.path()).unwrap();
        assert!(log.contains(5, &oid(3)));
        assert!(!log.contains(4, &oid(1)));
        assert!(std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().len() < 200);
    }

    #[test]
    fn a_torn_record_is_dropped_and_the_one_before_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = ProposalLog::open(dir.path()).unwrap();
        log.keep(4, 0, false, oid(1), &Bytes::from_static(b"first"))
            .unwrap();
        log.keep(4, 1, false, oid(2), &Bytes::from_static(b"second"))
            .unwrap();
        let end = log.end;
        drop(log);
        let file = OpenOptions::new()
            .write(true)
            .open(dir.path().join(FILE_NAME))
            .unwrap();
        file.set_len(end - 1).unwrap();
        let mut log = ProposalLog::open(dir.path()).unwrap();
        assert!(log.contains(4, &oid(1)));
        assert!(!log.contains(4, &oid(2)));
        log.keep(4, 1, false, oid(2), &Bytes::from_static(b"second"))
            .unwrap();
        assert_eq!(log.end, end);
    }
}
