//! The UnixFS message inside a dag-pb node: a small protobuf, read strictly.
//!
//! Follows <https://specs.ipfs.tech/unixfs/>. Mode and modification time are read over: they stand
//! in a release or an image manifest here, never in the DAG.

/// UnixFS `Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Raw,
    Directory,
    File,
    Symlink,
    Shard,
}

/// A UnixFS message. A field that the protobuf leaves out is `None`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub kind: Kind,
    pub data: &'a [u8],
    pub file_size: Option<u64>,
    pub block_sizes: Vec<u64>,
    pub hash_type: Option<u64>,
    pub fanout: Option<u64>,
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Reads a message. A field that stands twice is refused: readers disagree about which one counts.
pub(crate) fn parse(bytes: &[u8]) -> Result<Message<'_>, &'static str> {
    let mut at = Cursor(bytes);
    let (mut kind, mut data, mut file_size, mut hash_type, mut fanout) =
        (None, None, None, None, None);
    let mut block_sizes = Vec::new();
    while !at.0.is_empty() {
        let tag = at.varint()?;
        match (tag >> 3, tag & 7) {
            (1, VARINT) => once(&mut kind, at.varint()?)?,
            (2, BYTES) => once(&mut data, at.bytes()?)?,
            (3, VARINT) => once(&mut file_size, at.varint()?)?,
            (4, VARINT) => block_sizes.push(at.varint()?),
            (4, BYTES) => {
                let mut packed = Cursor(at.bytes()?);
                while !packed.0.is_empty() {
                    block_sizes.push(packed.varint()?);
                }
            }
            (5, VARINT) => once(&mut hash_type, at.varint()?)?,
            (6, VARINT) => once(&mut fanout, at.varint()?)?,
            // 7 is the mode, 8 the modification time; more may come.
            (7.., VARINT) => drop(at.varint()?),
            (7.., BYTES) => drop(at.bytes()?),
            (7.., FIXED64) => drop(at.take(8)?),
            (7.., FIXED32) => drop(at.take(4)?),
            _ => return Err("its UnixFS message has a field of a wrong type"),
        }
    }
    let kind = match kind.ok_or("its UnixFS message has no type")? {
        0 => Kind::Raw,
        1 => Kind::Directory,
        2 => Kind::File,
        4 => Kind::Symlink,
        5 => Kind::Shard,
        _ => return Err("its UnixFS type is none that is read here"),
    };
    Ok(Message {
        kind,
        data: data.unwrap_or_default(),
        file_size,
        block_sizes,
        hash_type,
        fanout,
    })
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("its UnixFS message has a field twice"),
    }
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("its UnixFS message is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes(&mut self) -> Result<&'a [u8], &'static str> {
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| "its UnixFS message is cut off")?;
        self.take(length)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("its UnixFS message has a number over 64 bits")
    }
}

/// The message of a symbolic link: type and target, as stock importers write it.
pub(crate) fn symlink(target: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x08, 0x04, 0x12];
    let mut length = target.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(target);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_stock_importers_write() {
        let file = parse(&[0x08, 0x02, 0x12, 0x01, b'x', 0x18, 0x01]).unwrap();
        assert_eq!((file.kind, file.data), (Kind::File, b"x".as_slice()));
        assert_eq!(file.file_size, Some(1));
        // Mode and time are read over.
        let dated = [0x08, 0x01, 0x38, 0xed, 0x03, 0x42, 0x02, 0x08, 0x05];
        assert_eq!(parse(&dated).unwrap().kind, Kind::Directory);
        // Packed or not, sizes are the same.
        let packed = parse(&[0x08, 0x02, 0x22, 0x03, 0x80, 0x01, 0x02]).unwrap();
        let plain = parse(&[0x08, 0x02, 0x20, 0x80, 0x01, 0x20, 0x02]).unwrap();
        assert_eq!(packed, plain);
        assert_eq!(parse(&symlink(b"a/b")).unwrap().data, b"a/b");
        assert_eq!(parse(&symlink(&[b'x'; 300])).unwrap().data.len(), 300);
    }

    #[test]
    fn messages_that_mean_nothing() {
        for bad in [
            &[][..],
            &[0x18, 0x01],
            &[0x08, 0x09],
            &[0x08, 0x03],
            &[0x08, 0x01, 0x08, 0x01],
            &[0x08],
            &[0x08, 0x02, 0x12, 0x05, b'x'],
            &[0x0a, 0x00],
            &[
                0x08, 0x02, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
            ],
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
