//! Keys of the state, their hashes, and how versions of a value are laid out.

use instar_chain::view::is_key;
use jmt::{KeyHash, ValueHash};
use sha2::{Digest as _, Sha256};

use crate::StoreError;

/// Refuses what can't be a key, see [`is_key`].
pub fn check_key(key: &str) -> Result<(), StoreError> {
    if is_key(key) {
        return Ok(());
    }
    Err(StoreError::Key(key.chars().take(80).collect()))
}

/// Where a key stands in the tree: SHA-256 of its bytes.
pub fn key_hash(key: &str) -> KeyHash {
    KeyHash(Sha256::digest(key.as_bytes()).into())
}

/// What the tree says of a value: SHA-256 of its bytes.
pub fn value_hash(value: &[u8]) -> ValueHash {
    ValueHash::with::<Sha256>(value)
}

/// The row of a key's value at a version: the key, a zero byte, and the version's complement in big-endian order.
/// Rows of a key therefore stand together, newest first, and keys keep their order, since none holds a zero byte.
pub fn value_row(key: &str, version: u64) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 9);
    row.extend_from_slice(key.as_bytes());
    row.push(0);
    row.extend_from_slice(&(!version).to_be_bytes());
    row
}

/// The key and version of a row, if it is one.
pub(crate) fn split_row(row: &[u8]) -> Option<(&str, u64)> {
    let (key, version) = row.split_at_checked(row.len().checked_sub(9)?)?;
    let (zero, version) = version.split_first()?;
    let key = std::str::from_utf8(key).ok()?;
    let version = u64::from_be_bytes(version.try_into().ok()?);
    (*zero == 0).then_some((key, !version))
}

/// The first possible row behind all versions of a key.
pub(crate) fn after_key(key: &str) -> Vec<u8> {
    let mut row = key.as_bytes().to_vec();
    row.push(1);
    row
}

/// The end of the rows whose keys begin with `prefix`; `None` means the end of the table.
pub(crate) fn after_prefix(prefix: &str) -> Option<Vec<u8>> {
    let mut end = prefix.as_bytes().to_vec();
    // Prefixes are ASCII, so the last byte can always be counted up.
    *end.last_mut()? += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sort_by_key_then_newest_first() {
        let mut rows = [
            value_row("a", 1),
            value_row("a", 700),
            value_row("a!", 0),
            value_row("a/b", 3),
            value_row("b", 2),
        ];
        rows.sort();
        let order: Vec<_> = rows.iter().map(|r| split_row(r).unwrap()).collect();
        assert_eq!(
            order,
            [("a", 700), ("a", 1), ("a!", 0), ("a/b", 3), ("b", 2)]
        );
        assert!(after_key("a") > value_row("a", 0) && after_key("a") < value_row("a!", u64::MAX));
    }

    #[test]
    fn a_key_never_holds_the_byte_that_ends_it() {
        assert!(check_key("a\0b").is_err() && check_key("").is_err());
        assert!(check_key("n/nonce/ab").is_ok());
    }
}
