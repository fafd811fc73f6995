//! Keys and key ids, canonical JSON, in-toto statements, DSSE, bundles, and the verification policy.
//!
//! This room depends on nothing else in Instar, reads no clock and draws no randomness.

pub mod digest;
pub mod json;
pub mod key;

pub use digest::{ChainId, Digest};
pub use key::{PublicKey, Purpose, SecretKey, Signature};
