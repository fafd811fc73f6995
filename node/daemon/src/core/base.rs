//! What a node begins with that came by a snapshot, or that let go of older blocks: a certified header, and how its
//! validators came to be.
//!
//! Such a node has no block before that one. What certifies the first blocks after it, and what light checkers ask about
//! the time before, stands in this file.

use std::fs;
use std::path::Path;

use instar_attest::json;
use instar_ledger::light::{Change, SignedHeader};
use instar_ledger::{Genesis, Oid, ValidatorSet};
use serde::{Deserialize, Serialize};

use super::{CoreError, ledger_error};
use crate::home::{Home, write_whole};

/// The format of `base.json`.
const FORMAT: &str = "instar-base-v1";
/// The largest file: hundreds of changes of the largest set.
const MAX_BASE_BYTES: usize = 128 << 20;

/// A block that the light check began at instead of genesis, because a person trusts its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Its header.
    pub header: SignedHeader,
    /// The set that the header names.
    pub validators: ValidatorSet,
}

/// `base.json`. Everything in it was proven before it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The changes of the validator set below the header, oldest first.
    pub changes: Vec<Change>,
    /// Where the check began, unless at genesis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    format: String,
    /// The header of the block that this node began with.
    pub header: SignedHeader,
}

impl Base {
    /// A base; the caller has proven that the header follows from the rest.
    pub fn new(checkpoint: Option<Checkpoint>, changes: Vec<Change>, header: SignedHeader) -> Self {
        Self {
            changes,
            checkpoint,
            format: FORMAT.into(),
            header,
        }
    }

    /// The height that the node began with.
    pub fn height(&self) -> u64 {
        self.header.header.height
    }

    /// The block that the node began with.
    pub fn block(&self) -> Oid {
        self.header.certificate.block
    }

    /// The height from which on the validators are known.
    pub fn known_from(&self) -> u64 {
        self.checkpoint
            .as_ref()
            .map_or(0, |c| c.header.header.height)
    }

    /// The set that the header of a height below the base names; none below a checkpoint.
    pub fn validators_after(
        &self,
        height: u64,
        genesis: &Genesis,
    ) -> Result<Option<ValidatorSet>, CoreError> {
        if height < self.known_from() {
            return Ok(None);
        }
        let newest = self.changes.iter().rfind(|c| c.at.header.height <= height);
        Ok(Some(match (newest, &self.checkpoint) {
            (Some(change), _) => change.validators.clone(),
            (None, Some(checkpoint)) => checkpoint.validators.clone(),
            (None, None) => genesis.validator_set().map_err(ledger_error)?,
        }))
    }

    /// A header from before that is at hand.
    pub fn header_of(&self, height: u64) -> Option<&SignedHeader> {
        let changes = self.changes.iter().map(|c| &c.at);
        changes
            .chain(self.checkpoint.iter().map(|c| &c.header))
            .chain([&self.header])
            .find(|h| h.header.height == height)
    }

    /// Reads a file, if it is there.
    pub fn read(path: &Path) -> Result<Option<Self>, CoreError> {
        let wrong = |why: String| CoreError::Ledger(format!("{}: {why}", path.display()));
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(wrong(e.to_string())),
        };
        let base: Self =
            json::from_slice(&bytes, MAX_BASE_BYTES).map_err(|e| wrong(e.to_string()))?;
        if base.format != FORMAT {
            return Err(wrong(format!("its format is {:?}", base.format)));
        }
        Ok(Some(base))
    }

    /// Writes the file, all of it or nothing.
    pub fn write(&self, path: &Path) -> Result<(), CoreError> {
        let bytes = json::to_vec(self).map_err(ledger_error)?;
        if bytes.len() > MAX_BASE_BYTES {
            return Err(CoreError::Ledger(format!(
                "the changes of the validators take {} bytes, and base.json has at most {MAX_BASE_BYTES}",
                bytes.len()
            )));
        }
        write_whole(path, &bytes).map_err(ledger_error)
    }

    /// The base of a home, which must be that of its ledger.
    pub(super) fn of(
        home: &Home,
        ledger: &instar_ledger::Store,
    ) -> Result<Option<Self>, CoreError> {
        let base = Self::read(&home.base())?;
        let (says, has) = (base.as_ref().map(Self::height), ledger.base());
        // The file is written first when older history goes, and says no less than it did.
        if has > says {
            let from = |height: Option<u64>| match height {
                Some(height) => format!("with block {height}"),
                None => "with genesis".to_owned(),
            };
            return Err(CoreError::Ledger(format!(
                "it begins {}, but by base.json this node began {}; join again in a new home",
                from(has),
                from(says)
            )));
        }
        Ok(base)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use instar_attest::{ChainId, Digest, SecretKey};
    use instar_ledger::{Certificate, Header, Keys, Validator};

    use super::*;

    fn key(seed: u8) -> instar_attest::PublicKey {
        SecretKey::from_seed(&[seed; 32]).public()
    }

    fn set(seed: u8) -> ValidatorSet {
        let validator = Validator {
            power: 1,
            key: key(seed),
        };
        ValidatorSet::new(vec![validator]).unwrap()
    }

    fn header(height: u64, validators: &ValidatorSet) -> SignedHeader {
        let block = Oid::from_bytes([height as u8; 32]);
        SignedHeader {
            certificate: Certificate {
                block,
                height,
                round: 0,
                signatures: vec![],
            },
            entries: 0,
            header: Header {
                chain: ChainId::from_bytes([1; 32]),
                dapps: BTreeMap::new(),
                forks: vec![],
                height,
                kernel: 1,
                lanes: vec![],
                left_out: vec![],
                parent: block,
                proposer: key(1),
                protocol: 1,
                receipts: Digest::of(b"receipts"),
                state_root: Digest::of(b"state"),
                time_ms: height,
                validators: validators.digest(),
            },
            previous: None,
            receipts: block,
        }
    }

    fn change(height: u64, seed: u8) -> Change {
        Change {
            at: header(height, &set(seed)),
            validators: set(seed),
        }
    }

    fn genesis() -> Genesis {
        let keys = Keys {
            account: key(1),
            builder: key(1),
            consensus: key(1),
            lane: key(1),
        };
        Genesis {
            accounts: BTreeMap::new(),
            chain_name: "test".into(),
            dapps: vec![],
            fork: None,
            kernel: 1,
            operators: vec![],
            policy: serde_json::json!({}),
            protocol: 1,
            releases: vec![],
            time_ms: 0,
            validators: vec![instar_ledger::GenesisValidator {
                keys,
                name: "v".into(),
                operator: "o".into(),
                power: 1,
            }],
        }
    }

    #[test]
    fn the_set_of_a_height_is_the_newest_change_at_or_below_it() {
        let changes = vec![change(10, 2), change(20, 3)];
        let base = Base::new(None, changes, header(30, &set(3)));
        let after = |height| base.validators_after(height, &genesis()).unwrap().unwrap();
        assert_eq!(after(0), set(1));
        assert_eq!(after(9), set(1));
        assert_eq!(after(10), set(2));
        assert_eq!(after(19), set(2));
        assert_eq!(after(29), set(3));
        assert_eq!((base.height(), base.known_from()), (30, 0));
        assert!(base.header_of(20).is_some() && base.header_of(30).is_some());
        assert!(base.header_of(21).is_none());
    }

    #[test]
    fn below_a_checkpoint_nothing_is_known() {
        let checkpoint = Checkpoint {
            header: header(15, &set(2)),
            validators: set(2),
        };
        let base = Base::new(Some(checkpoint), vec![change(20, 3)], header(30, &set(3)));
        let after = |height| base.validators_after(height, &genesis()).unwrap();
        assert_eq!(after(14), None);
        assert_eq!(after(15), Some(set(2)));
        assert_eq!(after(20), Some(set(3)));
        assert_eq!(base.known_from(), 15);
    }

    #[test]
    fn the_file_may_say_more_than_the_ledger_needs() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let (ledger, _) = instar_ledger::Store::create(&home.ledger(), &genesis()).unwrap();
        assert_eq!(Base::of(&home, &ledger).unwrap(), None);
        // A node was killed when it had written what stays of older blocks, and the blocks were still there.
        let base = Base::new(None, vec![change(10, 2)], header(30, &set(2)));
        base.write(&home.base()).unwrap();
        assert_eq!(Base::of(&home, &ledger).unwrap(), Some(base));
    }

    #[test]
    fn the_file_is_read_back_and_another_format_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.json");
        assert_eq!(Base::read(&path).unwrap(), None);
        let base = Base::new(None, vec![change(10, 2)], header(30, &set(2)));
        base.write(&path).unwrap();
        assert_eq!(Base::read(&path).unwrap(), Some(base));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(FORMAT, "instar-base-v9")).unwrap();
        assert!(Base::read(&path).is_err());
        fs::write(&path, "{}").unwrap();
        assert!(Base::read(&path).is_err());
    }
}
