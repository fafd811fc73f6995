//! The store's journal: what is not yet in a git pack, durable with one fsync a change.
//!
//! A block would otherwise cost a dozen small files and as many fsyncs. Instead each change is appended here; every
//! few seconds the store writes one pack and one `packed-refs`, and the journal starts over in the same file, so that
//! its length, and with it the file system's own journal, seldom changes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use instar_attest::Digest;

const MAGIC: &[u8; 16] = b"instar-journal-1";
/// Magic, generation, and the first 8 bytes of their digest.
const HEAD_BYTES: u64 = 32;
/// Length, kind, and the first 16 bytes of a digest that covers generation, kind, length and payload.
const RECORD_HEAD_BYTES: u64 = 4 + 1 + 16;
/// No record is larger: a pack with a full block.
pub(crate) const MAX_RECORD_BYTES: u32 = 80 * 1024 * 1024;
/// A journal that once grew beyond this is cut when it starts over.
const KEEP_BYTES: u64 = 16 * 1024 * 1024;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// A pack of objects.
    Objects = 1,
    /// A pack of objects that begins with an own lane commit.
    OwnCommit = 2,
    /// A lane's new head.
    Lane = 3,
    /// A block that became final.
    Final = 4,
}

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Drawn anew each time the journal starts over. What an earlier generation left in the file must never pass for a
    /// record, not even where somebody put something like one into a pack: so nobody may know it beforehand.
    generation: u64,
    end: u64,
    len: u64,
}

/// The records since the last pack, in order.
pub(crate) type Records = Vec<(RecordKind, Vec<u8>)>;

impl Journal {
    /// Opens or creates the journal and gives the records that have to be replayed.
    ///
    /// A torn record ends the replay: it was never acknowledged. A broken head is an error, since what came after it
    /// was.
    pub fn open(path: &Path) -> io::Result<(Self, Records)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let len = file.metadata()?.len();
        let mut journal = Self {
            file,
            generation: 0,
            end: HEAD_BYTES,
            len,
        };
        if len == 0 {
            journal.reset()?;
            journal.len = HEAD_BYTES;
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
            return Ok((journal, Vec::new()));
        }
        let mut head = [0; HEAD_BYTES as usize];
        journal.file.read_exact_at(&mut head, 0)?;
        let generation = u64::from_be_bytes(head[16..24].try_into().expect("eight bytes"));
        if head != head_bytes(generation) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the head of the journal {} is damaged", path.display()),
            ));
        }
        journal.generation = generation;
        let mut records = Records::new();
        while let Some(record) = journal.read_next()? {
            records.push(record);
        }
        Ok((journal, records))
    }

    fn read_next(&mut self) -> io::Result<Option<(RecordKind, Vec<u8>)>> {
        if self.len < self.end + RECORD_HEAD_BYTES {
            return Ok(None);
        }
        let mut head = [0; RECORD_HEAD_BYTES as usize];
        self.file.read_exact_at(&mut head, self.end)?;
        let size = u32::from_be_bytes(head[..4].try_into().expect("four bytes"));
        let kind = match head[4] {
            1 => RecordKind::Objects,
            2 => RecordKind::OwnCommit,
            3 => RecordKind::Lane,
            4 => RecordKind::Final,
            _ => return Ok(None),
        };
        let next = self.end + RECORD_HEAD_BYTES + u64::from(size);
        if size > MAX_RECORD_BYTES || next > self.len {
            return Ok(None);
        }
        let mut payload = vec![0; size as usize];
        self.file
            .read_exact_at(&mut payload, self.end + RECORD_HEAD_BYTES)?;
        if head[5..] != record_check(self.generation, kind, &payload) {
            return Ok(None);
        }
        self.end = next;
        Ok(Some((kind, payload)))
    }

    /// Appends one record and makes it durable, with all before it.
    pub fn append(&mut self, kind: RecordKind, payload: &[u8]) -> io::Result<()> {
        let end = self.end;
        self.append_lazily(kind, payload)?;
        self.file.sync_data().inspect_err(|_| self.end = end)
    }

    /// Appends one record that the next [`Journal::append`] makes durable.
    pub fn append_lazily(&mut self, kind: RecordKind, payload: &[u8]) -> io::Result<()> {
        let size = u32::try_from(payload.len())
            .ok()
            .filter(|size| *size <= MAX_RECORD_BYTES)
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "the record is too large")
            })?;
        let mut record = Vec::with_capacity(payload.len() + RECORD_HEAD_BYTES as usize);
        record.extend(size.to_be_bytes());
        record.push(kind as u8);
        record.extend(record_check(self.generation, kind, payload));
        record.extend(payload);
        self.file.write_all_at(&record, self.end)?;
        self.end += record.len() as u64;
        self.len = self.len.max(self.end);
        Ok(())
    }

    /// Makes all records durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether nothing has to be replayed.
    pub fn is_empty(&self) -> bool {
        self.end == HEAD_BYTES
    }

    /// Starts over: everything in it is in packs and refs now. Records of the last generation no longer count.
    pub fn reset(&mut self) -> io::Result<()> {
        let mut generation = [0; 8];
        getrandom::fill(&mut generation).map_err(|e| io::Error::other(e.to_string()))?;
        self.generation = u64::from_be_bytes(generation);
        self.end = HEAD_BYTES;
        self.write_head()?;
        if self.len > KEEP_BYTES {
            self.file.set_len(HEAD_BYTES)?;
            self.len = HEAD_BYTES;
        }
        Ok(())
    }

    fn write_head(&self) -> io::Result<()> {
        self.file.write_all_at(&head_bytes(self.generation), 0)?;
        self.file.sync_data()
    }
}

fn head_bytes(generation: u64) -> [u8; HEAD_BYTES as usize] {
    let mut out = [0; HEAD_BYTES as usize];
    out[..16].copy_from_slice(MAGIC);
    out[16..24].copy_from_slice(&generation.to_be_bytes());
    let check = Digest::of(&out[..24]);
    out[24..].copy_from_slice(&check.as_bytes()[..8]);
    out
}

fn record_check(generation: u64, kind: RecordKind, payload: &[u8]) -> [u8; 16] {
    let mut bytes = Vec::with_capacity(payload.len() + 9);
    bytes.extend(generation.to_be_bytes());
    bytes.push(kind as u8);
    bytes.extend(payload);
    let mut out = [0; 16];
    out.copy_from_slice(&Digest::of(&bytes).as_bytes()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_and_stale_records_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, records) = Journal::open(&path).unwrap();
        assert!(records.is_empty());
        journal.append(RecordKind::Objects, b"one").unwrap();
        journal.append(RecordKind::Final, b"two").unwrap();
        let (_, records) = Journal::open(&path).unwrap();
        let both = vec![
            (RecordKind::Objects, b"one".to_vec()),
            (RecordKind::Final, b"two".to_vec()),
        ];
        assert_eq!(records, both);

        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, both[..1]);
        std::fs::write(&path, &whole).unwrap();

        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.reset().unwrap();
        assert!(Journal::open(&path).unwrap().1.is_empty());
        journal.append(RecordKind::Lane, b"six").unwrap();
        let (_, records) = Journal::open(&path).unwrap();
        assert_eq!(records, vec![(RecordKind::Lane, b"six".to_vec())]);

        let mut damaged = std::fs::read(&path).unwrap();
        damaged[17] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert!(Journal::open(&path).is_err());
    }
}
