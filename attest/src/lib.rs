//! Who built this, from what, and is that enough? Keys, in-toto statements, DSSE, Sigstore bundles, and policies over them.
//!
//! This crate depends on nothing else of Instar and can be used alone. A builder signs what it built; a verifier checks a
//! release's files and the bundles that came with it against a policy, and gets an answer that says why:
//!
//! ```
//! use instar_attest::provenance::sign;
//! use instar_attest::received::Named;
//! use instar_attest::release_check::{Document, ReleaseInput, verify_release};
//! use instar_attest::release_policy::ReleasePolicy;
//! use instar_attest::{Digest, SecretKey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (program, sbom) = (Digest::of(b"the program"), Digest::of(b"{}"));
//! let key = SecretKey::from_seed(&[7; 32]); // `keyfile::os_seed` draws one
//!
//! // What a builder says: SLSA provenance v1. `provenance::Provenance` writes it; any builder's is read.
//! let statement = serde_json::json!({
//!     "_type": "https://in-toto.io/Statement/v1",
//!     "predicateType": "https://slsa.dev/provenance/v1",
//!     "predicate": {
//!         "buildDefinition": {
//!             "buildType": "https://example.org/make/v1",
//!             "externalParameters": {"repository": "https://git.example.org/tool.git"},
//!             "resolvedDependencies": [{"digest": {"gitCommit": "ab".repeat(20)}}],
//!         },
//!         "runDetails": {"builder": {"id": "https://example.org/ci"}},
//!     },
//!     "subject": [
//!         {"name": "linux/tool", "digest": {"sha256": program}},
//!         {"name": "sbom.cdx.json", "digest": {"sha256": sbom}},
//!     ],
//! });
//! let bundle = sign(&key, serde_json::to_vec(&statement)?)?;
//!
//! // What a person asks for: one builder out of one. An unknown field would be an error, and so would a threshold of 0.
//! let policy = serde_json::json!({
//!     "format": "instar-release-policy-v1",
//!     "recipes": ["https://example.org/make/v1"],
//!     "builders": {"threshold": 1, "of": [{"name": "ci", "operator": "us", "key": key.public()}]},
//!     "source": {"repository": "https://git.example.org/tool.git"},
//! });
//! let policy = ReleasePolicy::parse(policy.to_string().as_bytes())?;
//!
//! let file = |name: &str, sha256| Named { name: name.into(), sha256 };
//! let files = [file("linux/tool", program), file("sbom.cdx.json", sbom)];
//! let bundles = [Document { name: "a bundle", bytes: &bundle }];
//! let input = ReleaseInput { files: &files, bundles: &bundles, reviews: &[], trusted_root: None };
//! let answer = verify_release(&input, &policy);
//! assert!(answer.ok);
//!
//! // The same bundle for other bytes.
//! let evil = [file("linux/tool", Digest::of(b"evil")), files[1].clone()];
//! let answer = verify_release(&ReleaseInput { files: &evil, ..input }, &policy);
//! assert!(!answer.ok);
//! assert!(answer.checks.iter().any(|c| c.rule == "subject-differs"));
//! # Ok(())
//! # }
//! ```
//!
//! # In reading order
//!
//! | modules | what |
//! | --- | --- |
//! | [`digest`], [`json`], [`key`], [`names`] | the nouns: every value has one spelling in bytes, and one strict Ed25519 verifier |
//! | [`release`], [`reveal`] | what a release is, and what a builder says of its files |
//! | [`statement`], [`dsse`], [`bundle`] | what a builder signs in a build round; frozen, with vectors |
//! | [`check`], [`policy`] | what a build round asks of that |
//! | [`provenance`], [`received`], [`verify_key`] | provenance for anybody; bundles and keys of others |
//! | [`release_policy`], [`review`], [`release_check`] | a person's policy, and the answer |
//! | [`layout`] | the same policy for stock in-toto |
//! | `keyless` (feature) | bundles with Fulcio's certificates, read; made with the feature `keyless-sign` |
//! | [`keyfile`], [`seal`] | secret keys at rest |
//!
//! `docs/formats/attest.md` has every byte, enough for another implementation.
//!
//! # What it does not do
//!
//! It reads no clock and draws no randomness, and does no I/O: digests and bytes come in, answers go out. The exceptions are
//! [`keyfile`], which keeps secret keys in files, and `keyless::sign`, which talks to Sigstore's services. It knows neither
//! ledgers nor how content is cut.

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
