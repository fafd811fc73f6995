//! Names of validators, operators and devices.

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Whether a name can stand in an allowed-signers file and on a screen: 1 to 64 of `a-z A-Z 0-9 . - _`.
pub fn is_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(fine)
}
