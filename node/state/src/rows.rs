//! How the rows of the smaller tables are written.

use instar_attest::Digest;
use instar_ledger::Oid;
use redb::ReadableTable;

use crate::StoreError;
use crate::store::{Computed, Head};

/// A row that only damage can explain.
pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

pub(crate) fn stale_row(version: u64, row: &[u8]) -> Vec<u8> {
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend_from_slice(row);
    bytes
}

pub(crate) fn read_floor(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<u64, StoreError> {
    match meta.get("floor")? {
        None => Ok(0),
        Some(row) => row
            .value()
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| StoreError::Damaged("the floor is no number".to_owned())),
    }
}

pub(crate) fn encode_head(head: &Head) -> Vec<u8> {
    let mut row = head.height.to_be_bytes().to_vec();
    row.extend_from_slice(head.block.as_bytes());
    row.extend_from_slice(head.root.as_bytes());
    row.extend_from_slice(&head.certificate);
    row
}

pub(crate) fn decode_head(row: &[u8]) -> Result<Head, StoreError> {
    let damaged = || StoreError::Damaged("the head is too short".to_owned());
    let (height, rest) = row.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (block, rest) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
    let (root, certificate) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
    Ok(Head {
        height: u64::from_be_bytes(*height),
        block: Oid::from_bytes(*block),
        root: Digest::from_bytes(*root),
        certificate: certificate.to_vec(),
    })
}

pub(crate) fn decode_height(row: &[u8]) -> Result<(Oid, Digest), StoreError> {
    let (block, root) = row
        .split_first_chunk::<32>()
        .and_then(|(block, rest)| Some((block, <&[u8; 32]>::try_from(rest).ok()?)))
        .ok_or_else(|| StoreError::Damaged("a height's row is not 64 bytes".to_owned()))?;
    Ok((Oid::from_bytes(*block), Digest::from_bytes(*root)))
}

pub(crate) fn decode_computed(row: &[u8]) -> Result<Computed, StoreError> {
    let damaged =
        || StoreError::Damaged("a record of what was computed is not 72 bytes".to_owned());
    let (height, rest) = row.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (root, rest) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
    let receipts = <&[u8; 32]>::try_from(rest).map_err(|_| damaged())?;
    Ok(Computed {
        height: u64::from_be_bytes(*height),
        root: Digest::from_bytes(*root),
        receipts: Digest::from_bytes(*receipts),
    })
}
