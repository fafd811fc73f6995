//! Literal machine code, with relative addresses turned into absolute ones: calls of one function look the same then, and
//! compress. Both ways keep the number of bytes.

/// Opcodes after which a ModRM byte is looked for: moves, `lea`, comparisons, SSE moves.
/// Neither 0 nor 255 may be among them: an address ends in one of those, and may end in the other when it is turned.
const BEFORE_MODRM: [u8; 16] = [
    0x8B, 0x89, 0x8D, 0x63, 0xC7, 0x83, 0x80, 0x10, 0x11, 0x28, 0x29, 0x6F, 0x7F, 0x3B, 0x39, 0xB6,
];

/// Bytes of a relative address and of what comes before it.
const OPCODE_AND_FIELD: usize = 5;

/// What stands at a place.
enum Here {
    /// Nothing of interest.
    Other,
    /// Something that may be followed by an address, but by none that is turned.
    Opcode,
    /// A call, a jump, or a ModRM byte for RIP with a displacement. Only small ones are turned: the way back tells them by
    /// their highest byte, which stays where and what it is.
    Address,
}

fn look(bytes: &[u8], at: usize) -> Here {
    let opcode = bytes[at];
    if opcode & 0xFE == 0xE8
        || (opcode & 0xC7 == 5 && at > 0 && BEFORE_MODRM.contains(&bytes[at - 1]))
    {
        match bytes[at + 4] {
            0 | 0xFF => Here::Address,
            _ => Here::Opcode,
        }
    } else {
        Here::Other
    }
}

/// Turns every address in `bytes` by `turn`, which gets the four bytes and the place after them.
fn each(bytes: &mut [u8], place: u64, turn: impl Fn(&mut [u8], u32)) {
    let mut at = 0;
    while at + OPCODE_AND_FIELD <= bytes.len() {
        at += match look(bytes, at) {
            Here::Other => 1,
            // The byte that was asked must look the same on the way back: no address before it is turned.
            Here::Opcode => OPCODE_AND_FIELD - 1,
            Here::Address => {
                let end = (place as u32).wrapping_add((at + OPCODE_AND_FIELD) as u32);
                turn(&mut bytes[at + 1..at + OPCODE_AND_FIELD], end);
                OPCODE_AND_FIELD
            }
        };
    }
}

/// Keeps 25 bits with their sign, so that the highest byte stays 0 or 255.
#[inline]
fn narrow(value: u32) -> u32 {
    ((value << 7) as i32 >> 7) as u32
}

/// Relative to absolute, for bytes that stand at `place` of the new file.
pub fn absolute(bytes: &mut [u8], place: u64) {
    each(bytes, place, |field, end| {
        let value = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
        let [low, mid, upper, high] = narrow(value.wrapping_add(end)).to_le_bytes();
        // What changes least comes first, but the byte that tells stays last.
        field.copy_from_slice(&[upper, mid, low, high]);
    });
}

/// Absolute to relative: the inverse of [`absolute`].
pub fn relative(bytes: &mut [u8], place: u64) {
    each(bytes, place, |field, end| {
        let value = u32::from_le_bytes([field[2], field[1], field[0], field[3]]);
        field.copy_from_slice(&narrow(value.wrapping_sub(end)).to_le_bytes());
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn there_and_back(bytes in proptest::collection::vec(prop_oneof![Just(0xE8u8), Just(0x05), Just(0x8B), Just(0), Just(0xFF), any::<u8>()], 0..200), place in 0u64..1 << 31) {
            let mut turned = bytes.clone();
            absolute(&mut turned, place);
            relative(&mut turned, place);
            prop_assert_eq!(turned, bytes);
        }
    }

    #[test]
    fn two_calls_of_one_function_look_alike() {
        let mut bytes = vec![0xE8, 0x10, 0, 0, 0, 0xE8, 0x0B, 0, 0, 0];
        absolute(&mut bytes, 0x1000);
        assert_eq!(bytes[..5], bytes[5..]);
        assert_eq!(bytes[1..5], [0, 0x10, 0x15, 0]);
    }
}
