//! A whole state as one stream of bytes: what a fork takes from its mother. The stream proves itself: the root of a state
//! depends on nothing but its keys and values, so whoever knows the root from a certified header knows the rest.
//!
//! `instar-state-dump-v1` and a newline; then each key in ascending order as its length and its value's length, 32-bit
//! big-endian numbers, and the two; at the end a length of 0.

use std::io::{self, Read, Write};

use instar_chain::view::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

use crate::StoreError;
use crate::fork::Fork;
use crate::keys::check_key;

/// What a dump begins with.
pub const DUMP_MAGIC: &[u8] = b"instar-state-dump-v1\n";
/// The largest dump that is read: whoever begins a fork holds all of it in memory.
pub const MAX_DUMP_BYTES: u64 = 1 << 30;

/// Why a dump can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The stream.
    #[error("the dump can't be read or written: {0}")]
    Io(#[from] io::Error),
    /// It does not begin like one.
    #[error("this is no dump of a state")]
    NotADump,
    /// More than [`MAX_DUMP_BYTES`].
    #[error("a dump of more than {MAX_DUMP_BYTES} bytes")]
    TooLarge,
    /// A key or value longer than any can be.
    #[error("a key of {key} bytes with a value of {value}")]
    Length {
        /// The key's length.
        key: u32,
        /// The value's.
        value: u32,
    },
    /// It has only one order.
    #[error("the key {0:?} does not come after the one before it")]
    Order(String),
    /// A key that is none, or the state that is dumped.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes a state, as [`crate::view::View::export`] gives it; the number of keys.
pub fn write_dump<E: Into<StoreError>>(
    pairs: impl IntoIterator<Item = Result<(String, Vec<u8>), E>>,
    out: &mut dyn Write,
) -> Result<u64, DumpError> {
    out.write_all(DUMP_MAGIC)?;
    let mut keys = 0;
    for pair in pairs {
        let (key, value) = pair.map_err(Into::into)?;
        for bytes in [key.as_bytes(), value.as_slice()] {
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            out.write_all(&length.to_be_bytes())?;
        }
        out.write_all(key.as_bytes())?;
        out.write_all(&value)?;
        keys += 1;
    }
    out.write_all(&0u32.to_be_bytes())?;
    Ok(keys)
}

/// Reads a dump into a state in memory. Nothing is believed but its root, which the caller compares.
pub fn read_dump(from: impl Read) -> Result<Fork, DumpError> {
    let mut from = Bounded {
        from,
        left: MAX_DUMP_BYTES,
    };
    if from.bytes(DUMP_MAGIC.len())? != DUMP_MAGIC {
        return Err(DumpError::NotADump);
    }
    let mut before = String::new();
    let mut pairs = Vec::new();
    loop {
        let key = from.number()?;
        if key == 0 {
            break;
        }
        let value = from.number()?;
        if key as usize > MAX_KEY_BYTES || value as usize > MAX_VALUE_BYTES {
            return Err(DumpError::Length { key, value });
        }
        let key = String::from_utf8_lossy(&from.bytes(key as usize)?).into_owned();
        check_key(&key)?;
        if key <= before {
            return Err(DumpError::Order(key));
        }
        before.clone_from(&key);
        pairs.push(Ok::<_, StoreError>((key, from.bytes(value as usize)?)));
    }
    Ok(Fork::from_snapshot(pairs)?)
}

struct Bounded<R> {
    from: R,
    left: u64,
}

impl<R: Read> Bounded<R> {
    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, DumpError> {
        self.left = self
            .left
            .checked_sub(len as u64)
            .ok_or(DumpError::TooLarge)?;
        let mut bytes = vec![0; len];
        self.from.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, DumpError> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_chain::view::StateView as _;

    fn dump() -> Vec<u8> {
        let pairs = [("a/1", "one"), ("b", ""), ("b/2", "two")];
        let mut out = Vec::new();
        let keys = write_dump(
            pairs.map(|(k, v)| Ok::<_, StoreError>((k.to_owned(), v.as_bytes().to_vec()))),
            &mut out,
        );
        assert_eq!(keys.unwrap(), 3);
        out
    }

    #[test]
    fn what_is_written_is_read_and_has_its_root() {
        let fork = read_dump(dump().as_slice()).unwrap();
        assert_eq!(fork.get("b").unwrap(), Some(vec![]));
        let pairs = fork.changes().iter().map(|(k, v)| {
            let value = v.clone().unwrap();
            Ok::<_, StoreError>((k.clone(), value))
        });
        assert_eq!(crate::root_of_snapshot(pairs).unwrap(), fork.root());
    }

    #[test]
    fn a_dump_cut_anywhere_is_refused() {
        let whole = dump();
        for end in 0..whole.len() {
            assert!(read_dump(&whole[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_value_that_was_altered_has_another_root() {
        let whole = dump();
        let mut altered = whole.clone();
        let at = whole.windows(3).position(|w| w == b"one").unwrap();
        altered[at] = b'0';
        let roots = [whole, altered].map(|bytes| read_dump(bytes.as_slice()).unwrap().root());
        assert_ne!(roots[0], roots[1]);
    }

    #[test]
    fn keys_out_of_order_and_claims_of_gigabytes_are_refused() {
        let twice = [("b", "1"), ("a", "2")];
        let mut out = Vec::new();
        write_dump(
            twice.map(|(k, v)| Ok::<_, StoreError>((k.to_owned(), v.as_bytes().to_vec()))),
            &mut out,
        )
        .unwrap();
        assert!(matches!(
            read_dump(out.as_slice()),
            Err(DumpError::Order(_))
        ));
        let mut claim = DUMP_MAGIC.to_vec();
        claim.extend([0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, b'a']);
        assert!(matches!(
            read_dump(claim.as_slice()),
            Err(DumpError::Length { .. })
        ));
    }
}
