//! Git object ids in SHA-256 object format, and the hashing of objects without a repository.

use std::fmt;
use std::str::FromStr;

use instar_attest::digest::{HexError, hex_bytes};
use instar_attest::{ChainId, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A git object id (SHA-256), written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid([u8; 32]);

impl Oid {
    /// Takes the bytes as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The lower-case hex form.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first eight hex digits, for people.
    pub fn short(&self) -> String {
        self.to_hex()[..8].to_owned()
    }

    /// The id that git gives to an object: SHA-256 of `<kind> <length>`, a zero byte, and the content.
    pub fn of_object(kind: &str, content: &[u8]) -> Self {
        let mut bytes = format!("{kind} {}\0", content.len()).into_bytes();
        bytes.extend_from_slice(content);
        Self(*Digest::of(&bytes).as_bytes())
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Oid({})", self.to_hex())
    }
}

impl FromStr for Oid {
    type Err = HexError;
    fn from_str(text: &str) -> Result<Self, HexError> {
        hex_bytes(text).map(Self)
    }
}

impl Serialize for Oid {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Oid {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A chain's id is the object id of its genesis commit.
impl From<ChainId> for Oid {
    fn from(chain: ChainId) -> Self {
        Self(*chain.as_bytes())
    }
}

/// The object id of a genesis commit names its chain.
impl From<Oid> for ChainId {
    fn from(oid: Oid) -> Self {
        Self::from_bytes(oid.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_blob_has_gits_well_known_id() {
        assert_eq!(
            Oid::of_object("blob", b"").to_hex(),
            "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813"
        );
    }
}
