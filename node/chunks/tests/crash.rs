//! A power cut at any moment, and files cut anywhere: the store opens, and loses at most what was not acknowledged.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use instar_chunks::block::{RAW, cid_of};
use instar_chunks::{BlockError, BlockStore, Blocks, Cid};
use redb::StorageBackend;

/// SplitMix64: the same numbers each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end.max(1)
    }
}

fn block(number: u64) -> (Cid, Vec<u8>) {
    let mut numbers = Numbers(number);
    let bytes: Vec<u8> = (0..3000).map(|_| numbers.below(256) as u8).collect();
    (cid_of(RAW, &bytes), bytes)
}

#[derive(Clone, Debug)]
enum Event {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

/// An index that remembers what was done to it, and how long the segments were then.
#[derive(Debug, Default)]
struct Log {
    bytes: Vec<u8>,
    events: Vec<(Event, BTreeMap<PathBuf, u64>)>,
}

#[derive(Clone, Debug)]
struct Remembering {
    log: Arc<Mutex<Log>>,
    segments: PathBuf,
}

impl Remembering {
    fn note(&self, event: Event) {
        let lengths = fs::read_dir(&self.segments)
            .into_iter()
            .flatten()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path(), entry.metadata().unwrap().len())
            })
            .collect();
        let mut log = self.log.lock().unwrap();
        apply(&mut log.bytes, &event);
        log.events.push((event, lengths));
    }
}

fn apply(bytes: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write(at, data) => {
            let at = *at as usize;
            if bytes.len() < at + data.len() {
                bytes.resize(at + data.len(), 0);
            }
            bytes[at..at + data.len()].copy_from_slice(data);
        }
        Event::Length(length) => bytes.resize(*length as usize, 0),
        Event::Sync => {}
    }
}

impl StorageBackend for Remembering {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.log.lock().unwrap().bytes.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let log = self.log.lock().unwrap();
        let from = offset as usize;
        let bytes = log.bytes.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.note(Event::Length(length));
        Ok(())
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.note(Event::Sync);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.note(Event::Write(offset, data.to_vec()));
        Ok(())
    }
}

/// What was acknowledged when so many events had happened.
struct Acknowledged {
    events: usize,
    blocks: u64,
    pin: Option<Cid>,
}

#[test]
fn a_power_cut_at_any_moment() {
    const CUTS: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let index = Remembering {
        log: Arc::default(),
        segments: dir.path().join("live.segments"),
    };
    let store = BlockStore::open_on(index.clone(), &index.segments).unwrap();
    let events = || index.log.lock().unwrap().events.len();
    let mut said = vec![Acknowledged {
        events: events(),
        blocks: 0,
        pin: None,
    }];
    let (mut blocks, mut pin) = (0, None);
    for round in 0..12 {
        let next: Vec<_> = (blocks..blocks + 7).map(block).collect();
        if round % 3 == 2 {
            // Durable only with the pin.
            for (cid, bytes) in &next {
                store.put_later(cid, bytes).unwrap();
            }
            store.pin("last", &next[6].0).unwrap();
            pin = Some(next[6].0);
        } else {
            store.put_many(&next).unwrap();
        }
        blocks += 7;
        said.push(Acknowledged {
            events: events(),
            blocks,
            pin,
        });
    }
    drop(store);
    let log = index.log.lock().unwrap();
    let began = said[0].events as u64;
    for cut in 0..CUTS {
        let mut numbers = Numbers(cut);
        let end = (began + numbers.below(log.events.len() as u64 - began)) as usize;
        let home = dir.path().join(format!("cut-{cut}"));
        fs::create_dir(&home).unwrap();
        let path = home.join("s.redb");
        fs::write(&path, after_cut(&log, end, &mut numbers)).unwrap();
        let segments = path.with_extension("segments");
        fs::create_dir(&segments).unwrap();
        for (segment, length) in &log.events[end.saturating_sub(1)].1 {
            let bytes = fs::read(segment).unwrap();
            let to = segments.join(segment.file_name().unwrap());
            fs::write(to, &bytes[..*length as usize]).unwrap();
        }
        let last = said.iter().rfind(|s| s.events <= end).unwrap();
        let store = BlockStore::open(&path).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        for number in 0..last.blocks {
            let (cid, bytes) = block(number);
            assert!(
                store.get(&cid).unwrap() == Some(bytes),
                "cut {cut}, block {number}"
            );
        }
        assert!(
            store.verify(&mut |_| ()).unwrap().corrupt.is_empty(),
            "cut {cut}"
        );
        if let Some(pin) = last.pin {
            assert!(!store.pins().unwrap().is_empty(), "cut {cut}: {pin}");
        }
        // And it goes on.
        let (cid, bytes) = block(1_000_000 + cut);
        store.put(&cid, &bytes).unwrap();
        assert!(store.get(&cid).unwrap() == Some(bytes), "cut {cut}");
        drop(store);
        fs::remove_dir_all(home).unwrap();
    }
}

/// The index as the disk may have it after `end` events: all that was synced, and of the rest any part, the last write
/// perhaps torn.
fn after_cut(log: &Log, end: usize, numbers: &mut Numbers) -> Vec<u8> {
    let done = &log.events[..end];
    let synced = done
        .iter()
        .rposition(|(event, _)| matches!(event, Event::Sync))
        .map_or(0, |at| at + 1);
    let mut bytes = Vec::new();
    for (number, (event, _)) in done.iter().enumerate() {
        match event {
            Event::Write(at, data) if number >= synced => match numbers.below(3) {
                0 => {}
                1 => apply(&mut bytes, event),
                _ => {
                    // Disks write sectors whole.
                    let kept = numbers.below(data.len() as u64 + 1) as usize / 512 * 512;
                    apply(&mut bytes, &Event::Write(*at, data[..kept].to_vec()));
                }
            },
            _ => apply(&mut bytes, event),
        }
    }
    bytes
}

/// A store of 20 blocks, and where its only segment is.
fn twenty(dir: &Path) -> (PathBuf, PathBuf) {
    let path = dir.join("s.redb");
    let store = BlockStore::open(&path).unwrap();
    let blocks: Vec<_> = (0..20).map(block).collect();
    store.put_many(&blocks).unwrap();
    drop(store);
    let segment = path.with_extension("segments").join("00000001.seg");
    (path, segment)
}

#[test]
fn what_a_crash_left_behind_the_end_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (path, segment) = twenty(dir.path());
    let whole = fs::read(&segment).unwrap();
    for left in [1, 45, 46, 47, 3000, 100_000] {
        let mut bytes = whole.clone();
        // The beginning of a record, or zeros that were never written.
        bytes.extend((0..left).map(|i| {
            if left % 2 == 0 {
                0
            } else {
                whole[i % whole.len()]
            }
        }));
        fs::write(&segment, bytes).unwrap();
        let store = BlockStore::open(&path).unwrap();
        assert!(store.verify(&mut |_| ()).unwrap().corrupt.is_empty());
        assert!(fs::read(&segment).unwrap() == whole, "{left}");
    }
    fs::write(segment.with_file_name("00000009.seg"), b"never named").unwrap();
    let store = BlockStore::open(&path).unwrap();
    assert_eq!(store.len().unwrap(), 20);
    assert!(!segment.with_file_name("00000009.seg").exists());
}

#[test]
fn a_segment_cut_anywhere_costs_only_what_was_behind_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (path, segment) = twenty(dir.path());
    let whole = fs::read(&segment).unwrap();
    let record = whole.len() / 20;
    for end in (0..whole.len()).step_by(977) {
        fs::write(&segment, &whole[..end]).unwrap();
        let store = BlockStore::open(&path).unwrap();
        let mut lost = 0;
        for number in 0..20 {
            let (cid, bytes) = block(number);
            match store.get(&cid) {
                Ok(held) => assert!(held == Some(bytes)),
                Err(BlockError::Corrupt { cid: named }) => {
                    assert_eq!(named, cid);
                    lost += 1;
                }
                Err(other) => panic!("cut at {end}: {other}"),
            }
        }
        assert_eq!(lost, 20 - end / record, "cut at {end}");
        assert_eq!(store.verify(&mut |_| ()).unwrap().corrupt.len(), lost);
        // What is put again is there again, wherever the segment was cut.
        let (cid, bytes) = block(19);
        store.put(&cid, &bytes).unwrap();
        assert!(store.get(&cid).unwrap() == Some(bytes));
        drop(store);
        // As it was, for the next cut.
        fs::remove_file(&path).unwrap();
        fs::remove_dir_all(path.with_extension("segments")).unwrap();
        twenty(dir.path());
    }
}
