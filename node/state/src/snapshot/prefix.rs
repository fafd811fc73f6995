//! The first bits of a key hash: the place of a subtree.

use std::fmt;
use std::str::FromStr;

use jmt::KeyHash;

/// Bits of a key hash.
pub(super) const HASH_BITS: u16 = 256;

/// The first bits of the hashes of all keys below one place of the tree. Written as zeros and ones.
///
/// In the order of these, a prefix stands directly before everything that it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// What is behind the last bit is zero.
    bits: [u8; 32],
    depth: u16,
}

impl Prefix {
    /// The place of the root.
    pub const ROOT: Self = Self {
        bits: [0; 32],
        depth: 0,
    };

    /// The first `depth` bits of `bits`; none if the rest is not zero, or there are not that many.
    pub fn new(depth: u16, bits: [u8; 32]) -> Option<Self> {
        let prefix = Self { bits, depth };
        let clean = depth <= HASH_BITS && (depth..HASH_BITS).all(|i| !bit(&bits, i));
        clean.then_some(prefix)
    }

    /// How many bits.
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// The bytes that hold the bits; the unused bits of the last one are zero.
    pub fn bytes(&self) -> &[u8] {
        &self.bits[..usize::from(self.depth).div_ceil(8)]
    }

    /// Whether a key hash begins so.
    pub fn holds(&self, hash: &KeyHash) -> bool {
        (0..self.depth).all(|i| bit(&hash.0, i) == bit(&self.bits, i))
    }

    /// Whether `other` lies at or below this place.
    pub fn contains(&self, other: &Self) -> bool {
        self.depth <= other.depth && self.holds(&KeyHash(other.bits))
    }

    /// The bit at a depth below this one's.
    pub(super) fn bit(&self, depth: u16) -> bool {
        bit(&self.bits, depth)
    }

    /// The place one bit further down.
    pub(super) fn child(mut self, right: bool) -> Self {
        if right {
            self.bits[usize::from(self.depth / 8)] |= 0x80 >> (self.depth % 8);
        }
        self.depth += 1;
        self
    }
}

/// Bit 0 is the highest of the first byte.
pub(super) fn bit(bytes: &[u8; 32], i: u16) -> bool {
    bytes[usize::from(i / 8)] & (0x80 >> (i % 8)) != 0
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.depth).try_for_each(|i| f.write_str(if self.bit(i) { "1" } else { "0" }))
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > usize::from(HASH_BITS) {
            return Err(format!("a prefix of {} bits", text.len()));
        }
        text.bytes().try_fold(Self::ROOT, |prefix, b| match b {
            b'0' => Ok(prefix.child(false)),
            b'1' => Ok(prefix.child(true)),
            _ => Err("a prefix is written in zeros and ones".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_is_written_and_read() {
        for text in ["", "0", "1", "01101", &"10".repeat(128)] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert!("2".parse::<Prefix>().is_err() && "0".repeat(257).parse::<Prefix>().is_err());
    }

    #[test]
    fn what_it_contains_comes_right_after_it() {
        let mut all = ["1", "0", "01", "011", "0110", "00", "10"].map(prefix);
        all.sort();
        let order: Vec<String> = all.iter().map(Prefix::to_string).collect();
        assert_eq!(order, ["0", "00", "01", "011", "0110", "1", "10"]);
        assert!(prefix("01").contains(&prefix("011")) && !prefix("01").contains(&prefix("00")));
        assert!(prefix("").contains(&prefix("1")) && !prefix("011").contains(&prefix("01")));
    }

    #[test]
    fn bits_behind_the_last_one_are_refused() {
        let mut bits = [0; 32];
        bits[0] = 0b0100_0000;
        assert_eq!(Prefix::new(2, bits), Some(prefix("01")));
        assert_eq!(Prefix::new(1, bits), None);
        assert_eq!(Prefix::new(257, [0; 32]), None);
    }
}
