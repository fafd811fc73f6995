//! Keys and key ids, canonical JSON, in-toto statements, DSSE, bundles, and the verification policy.
//!
//! This room depends on nothing else in Instar, reads no clock and draws no randomness; the one exception is
//! [`keyfile`], which reads and writes secret keys in files. It knows neither ledgers nor how content is cut.
//!
//! In reading order: the nouns (`digest`, `json`, `key`, `names`), what a release is (`release`, `reveal`), what a builder
//! signs about it (`statement`, `dsse`, `bundle`), what a build round asks (`check`, `policy`); then, for releases off the
//! ledger and bundles of others, `provenance`, `received`, `release_policy` and `release_check`.

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

pub mod provenance;
pub mod received;
pub mod release_check;
pub mod release_policy;
pub mod review;
pub mod verify_key;

#[cfg(feature = "keyless")]
pub mod keyless;
pub mod layout;

pub mod keyfile;
pub mod seal;

pub use digest::{ChainId, Digest};
pub use key::{PublicKey, Purpose, SecretKey, Signature};
pub use verify_key::VerifyKey;
