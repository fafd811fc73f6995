//! The tables of the state file. They are public for tools that look into a file, and for tests that falsify one.

use redb::TableDefinition;

/// What the file says of its own format.
pub const FORMAT: &str = "instar-state-v1";

/// Single facts: `format`, `head`, `floor`.
pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Tree nodes. Key: version (u64 BE), number of nibbles (u8), the nibbles packed two a byte. Value: borsh of
/// [`jmt::storage::Node`], and the first 8 bytes of SHA-256 over key and node. Version first, so that the nodes of one block stand together at the table's end.
pub const NODES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("nodes");

/// Values. Key: [`crate::keys::value_row`]. Value: `01` and the bytes, or `00` alone where the key was deleted.
pub const VALUES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("values");

/// The keys behind key hashes, for proofs that a key is not there: they name its neighbours in the tree. Key: SHA-256 of
/// the state's key. A row stays as long as any row of its key in [`VALUES`].
pub const KEYS: TableDefinition<&[u8], &str> = TableDefinition::new("keys");

/// One row a height: block id (32), state root (32).
pub const HEIGHTS: TableDefinition<u64, &[u8]> = TableDefinition::new("heights");

/// What this node computed itself for a block, before it voted. Key: block id. Value: height (u64 BE), root, receipts
/// digest.
pub const COMPUTED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("computed");

/// Nodes no longer reached since a version. Key: that version (u64 BE), then the key of [`NODES`].
pub const STALE_NODES: TableDefinition<&[u8], ()> = TableDefinition::new("stale-nodes");

/// Values replaced at a version. Key: that version (u64 BE), then the key of [`VALUES`].
pub const STALE_VALUES: TableDefinition<&[u8], ()> = TableDefinition::new("stale-values");

/// First byte of a value that is there.
pub const PRESENT: u8 = 1;
/// The whole row of a value that was deleted.
pub const DELETED: &[u8] = &[0];
