//! The layout of the state: which record stands under which key. `n/…` belongs to the native rules, `d/<dapp>/…` to a
//! dapp.

use instar_attest::{ChainId, Digest, PublicKey};
use instar_ledger::{DeviceId, Lane};

/// The newest height and its time.
pub const HEAD: &str = "n/head";
/// What never changes: the chain, its name, protocol and kernel.
pub const CHAIN: &str = "n/chain";
/// The rules for upgrades.
pub const POLICY: &str = "n/policy";
/// The validators, sorted by consensus key.
pub const VALIDATORS: &str = "n/validators";
/// The ids of build rounds that are not closed, oldest first.
pub const OPEN_ROUNDS: &str = "n/open/rounds";
/// The ids of proposals that are not decided, oldest first.
pub const OPEN_PROPOSALS: &str = "n/open/proposals";
/// The ids of motions that are not decided, or wait for their height, oldest first.
pub const OPEN_MOTIONS: &str = "n/open/motions";
/// The forks of which slices are still due, oldest motion first.
pub const OPEN_FORKS: &str = "n/open/forks";
/// Whether operators and names stand under keys of their own: the first change sees to it.
pub const INDEXED: &str = "n/indexed";
/// The id of the proposal whose rollout is the newest.
pub const ROLLOUT: &str = "n/rollout";
/// The common prefix of slots.
pub const SLOTS: &str = "n/slot/";
/// The common prefix of build rounds.
pub const ROUNDS: &str = "n/round/";
/// The common prefix of proposals.
pub const PROPOSALS: &str = "n/proposal/";
/// The common prefix of motions.
pub const MOTIONS: &str = "n/motion/";
/// The common prefix of forks that are or were merged.
pub const FORKS: &str = "n/fork/";
/// The common prefix of operators.
pub const OPERATORS: &str = "n/operator/";
/// The common prefix of registered keys.
pub const KEYS: &str = "n/key/";
/// The common prefix of devices.
pub const DEVICES: &str = "n/device/";
/// The common prefix of lanes.
pub const LANES: &str = "n/lane/";
/// The common prefix of registered dapps.
pub const DAPPS: &str = "n/dapp/";

/// What a registered key is for.
pub fn key(key: &PublicKey) -> String {
    format!("{KEYS}{key}")
}

/// A motion.
pub fn motion(id: &Digest) -> String {
    format!("{MOTIONS}{id}")
}

/// A fork that is or was merged.
pub fn fork(chain: &ChainId) -> String {
    format!("{FORKS}{chain}")
}

/// An operator.
pub fn operator(name: &str) -> String {
    format!("{OPERATORS}{name}")
}

/// Whether a name is or was a validator's or a device's.
pub fn name(name: &str) -> String {
    format!("n/name/{name}")
}

/// An author's next nonce.
pub fn nonce(author: &PublicKey) -> String {
    format!("n/nonce/{author}")
}

/// A registered device.
pub fn device(device: &DeviceId) -> String {
    format!("{DEVICES}{device}")
}

/// Up to where a lane is merged.
pub fn lane(lane: &Lane) -> String {
    format!("{LANES}{lane}")
}

/// A registered dapp.
pub fn dapp(name: &str) -> String {
    format!("{DAPPS}{name}")
}

/// A slot: `node`, or `dapps/<name>`.
pub fn slot(slot: &str) -> String {
    format!("{SLOTS}{slot}")
}

/// One release of a slot's history. The number is padded, so that keys are in the order of releases.
pub fn history(slot: &str, number: u64) -> String {
    format!("{}{number:020}", history_of(slot))
}

/// The common prefix of a slot's history. The colon keeps slots apart whose names begin alike.
pub fn history_of(slot: &str) -> String {
    format!("n/history/{slot}:")
}

/// The text of a release's `release.json`.
pub fn release(cid: &str) -> String {
    format!("n/release/{cid}")
}

/// A build round.
pub fn round(id: &Digest) -> String {
    format!("{ROUNDS}{id}")
}

/// What one builder revealed in an open round.
pub fn reveal(round: &Digest, builder: &PublicKey) -> String {
    format!("n/reveal/{round}/{builder}")
}

/// The round in which a commit's bytes became public.
pub fn source(slot: &str, commit: &str) -> String {
    format!("n/source/{slot}:{commit}")
}

/// A proposal.
pub fn proposal(id: &Digest) -> String {
    format!("{PROPOSALS}{id}")
}

/// The key space of a dapp.
pub fn dapp_space(dapp: &str) -> String {
    format!("d/{dapp}/")
}
