//! Proofs in ICS-23 form: that a key has a value in the state of a root, or that it has none.
//!
//! The proof is the protobuf encoding of an ICS-23 `CommitmentProof` (an existence or a non-existence proof) under the
//! Jellyfish Merkle tree's specification, so that any ICS-23 library checks it. `docs/formats/state.md` has the
//! specification in words.

use ics23::commitment_proof::Proof;
use ics23::{
    CommitmentProof, HostFunctionsManager, ProofSpec, verify_membership, verify_non_membership,
};
use instar_attest::Digest;
use instar_chain::view::{MAX_VALUE_BYTES, is_key};
use jmt::storage::{HasPreimage, LeafNode, Node, NodeKey, TreeReader};
use jmt::{JellyfishMerkleTree, KeyHash, OwnedValue};
use prost::Message as _;
use sha2::Sha256;

use crate::StoreError;
use crate::error::chain_of;
use crate::keys::check_key;
use crate::view::View;

/// The largest proof: a non-existence proof holds two neighbours with their values, and two paths.
pub const MAX_PROOF_BYTES: usize = 2 * MAX_VALUE_BYTES + 64 * 1024;

/// What a proof shows about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The value; none if the key is not in the state.
    pub value: Option<Vec<u8>>,
    /// The encoded proof.
    pub proof: Vec<u8>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The key is none.
    #[error("{0:?} is not a state key")]
    Key(String),
    /// More than [`MAX_PROOF_BYTES`].
    #[error("a proof of {0} bytes, at most {MAX_PROOF_BYTES} are allowed")]
    TooLarge(usize),
    /// Not the one encoding of an existence or a non-existence proof.
    #[error("the proof is not the encoding of one ICS-23 existence or non-existence proof")]
    Encoding,
    /// It shows the other thing.
    #[error("the proof shows that the key {shows}, not that it {claimed}")]
    OtherKind {
        /// What it shows.
        shows: &'static str,
        /// What it is said to show.
        claimed: &'static str,
    },
    /// It is about another key or value, or it does not lead to this root.
    #[error("the proof does not lead from {key} and this value to the root {root}")]
    DoesNotHold {
        /// The key.
        key: String,
        /// The root.
        root: Digest,
    },
    /// ICS-23 has no proofs of empty values.
    #[error("the value of {0} is empty, of which ICS-23 knows no proof")]
    EmptyValue(String),
}

/// The tree's specification, as every ICS-23 library wants it.
pub fn spec() -> ProofSpec {
    ProofSpec {
        // A path has a step for each bit of a key's hash at most; the crate's own bound of 64 steps could be passed by
        // somebody who grinds keys.
        max_depth: 256,
        ..jmt::ics23_spec()
    }
}

const IS_THERE: &str = "has a value";
const IS_NOT_THERE: &str = "has none";

/// Checks that in the state with this root `key` has exactly this value, or none.
pub fn check(
    root: &Digest,
    key: &str,
    value: Option<&[u8]>,
    proof: &[u8],
) -> Result<(), ProofError> {
    if !is_key(key) {
        return Err(ProofError::Key(key.chars().take(80).collect()));
    }
    if proof.len() > MAX_PROOF_BYTES {
        return Err(ProofError::TooLarge(proof.len()));
    }
    let decoded = CommitmentProof::decode(proof).map_err(|_| ProofError::Encoding)?;
    // Unknown fields and other spellings would be dropped in silence.
    if decoded.encode_to_vec() != proof {
        return Err(ProofError::Encoding);
    }
    let other = |shows, claimed| Err(ProofError::OtherKind { shows, claimed });
    let (root_bytes, spec) = (root.as_bytes().to_vec(), spec());
    let holds = match (&decoded.proof, value) {
        (Some(Proof::Exist(_)), Some(value)) => verify_membership::<HostFunctionsManager>(
            &decoded,
            &spec,
            &root_bytes,
            key.as_bytes(),
            value,
        ),
        // Libraries don't look at the key that an absence names; with it a proof has one spelling.
        (Some(Proof::Nonexist(absent)), None) => {
            absent.key == key.as_bytes()
                && verify_non_membership::<HostFunctionsManager>(
                    &decoded,
                    &spec,
                    &root_bytes,
                    key.as_bytes(),
                )
        }
        (Some(Proof::Exist(_)), None) => return other(IS_THERE, IS_NOT_THERE),
        (Some(Proof::Nonexist(_)), Some(_)) => return other(IS_NOT_THERE, IS_THERE),
        _ => return Err(ProofError::Encoding),
    };
    if holds {
        return Ok(());
    }
    Err(ProofError::DoesNotHold {
        key: key.to_owned(),
        root: *root,
    })
}

impl View {
    /// Proves what the state says of `key`: its value, or that it has none.
    pub fn prove(&self, key: &str) -> Result<Proven, StoreError> {
        check_key(key)?;
        let reader = Reader(self);
        let (value, proof) = JellyfishMerkleTree::<_, Sha256>::new(&reader)
            .get_with_ics23_proof(key.as_bytes().to_vec(), self.height())
            .map_err(|e| match e.downcast::<StoreError>() {
                Ok(error) => error,
                Err(e) => StoreError::Damaged(chain_of(e.as_ref())),
            })?;
        if value.as_ref().is_some_and(Vec::is_empty) {
            return Err(ProofError::EmptyValue(key.to_owned()).into());
        }
        let proof = proof.encode_to_vec();
        // The tree is read unchecked here; a proof that holds shows that nothing on its way was damaged.
        check(&self.root(), key, value.as_deref(), &proof)?;
        Ok(Proven { value, proof })
    }
}

/// What jmt needs to prove: nodes, values, and the keys behind hashes.
struct Reader<'a>(&'a View);

impl TreeReader for Reader<'_> {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        self.0.raw_node(key).map_err(anyhow::Error::new)
    }

    fn get_value_option(&self, _: u64, hash: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        let Some(key) = self.0.key_of(&hash)? else {
            return Ok(None);
        };
        // At this view's height, which is the only one that is asked for.
        self.0.stored(&key).map_err(anyhow::Error::new)
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        anyhow::bail!("only a restore asks for the rightmost leaf")
    }
}

impl HasPreimage for Reader<'_> {
    fn preimage(&self, hash: KeyHash) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.0.key_of(&hash)?.map(String::into_bytes))
    }
}
