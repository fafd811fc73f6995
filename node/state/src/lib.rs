//! The authenticated state on disk: a Jellyfish Merkle tree over redb
