//! Entries, lanes, blocks, certificates, the git store and sync packs.
//!
//! This room checks bytes, signatures and certificates. It knows no rule of the state machine: whether an entry may do
//! what it asks for, and who may have a lane, is decided elsewhere.

pub mod oid;

pub mod entry;
pub mod lane;

pub mod block;
pub mod fork;
pub mod receipt;

pub mod certificate;
pub mod validators;
pub mod vote;

pub mod genesis;

pub mod freshness;
pub mod light;

pub mod grammar;
pub mod sshsig;

pub mod equivocation;

pub mod born;
pub mod mark;
pub mod pack;
pub mod store;

pub mod http;
pub mod sync;

mod journal;

pub use block::{Block, BlockDraft, Header};
pub use certificate::{Certificate, CertificateError, CommitSignature};
pub use entry::{Entry, EntryError, MAX_ENTRY_BYTES};
pub use fork::{ForkDue, ForkPart, ForkRange, Slice, SliceEntry};
pub use genesis::{
    Genesis, GenesisDapp, GenesisFork, GenesisOperator, GenesisRelease, GenesisValidator, Keys,
};
pub use lane::{DeviceId, Lane, LaneCommit, LaneRange};
pub use mark::{Mark, MarkError, MarkFile};
pub use oid::Oid;
pub use receipt::{Event, Outcome, Receipt, ReceiptLine};
pub use store::{Imported, OpenOptions, Store, StoreError};
pub use validators::{Validator, ValidatorSet, ValidatorSetError};
