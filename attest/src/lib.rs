//! Keys and key ids, canonical JSON, in-toto statements, DSSE, bundles, and the verification policy.
//!
//! This room depends on nothing else in Instar, reads no clock and draws no randomness; the one exception is
//! [`keyfile`], which reads and writes secret keys in files. It knows neither ledgers nor how content is cut.

pub mod digest;
pub mod json;
pub mod key;

pub mod names;
pub mod release;
pub mod reveal;

pub mod bundle;
pub mod dsse;
pub mod statement;

pub mod check;
pub mod policy;

pub mod keyfile;

pub use digest::{ChainId, Digest};
pub use key::{PublicKey, Purpose, SecretKey, Signature};
