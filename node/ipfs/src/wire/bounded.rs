//! Protobuf from strangers, counted before it is decoded: two bytes of an empty item become fifty in memory, so that a frame
//! within its bound could still take a hundred megabytes.

use unsigned_varint::decode;

/// Most fields in a message, nested ones counted too. The longest honest messages have a few thousand; these take 5 MB.
pub const MAX_FIELDS: usize = 65_536;

/// Messages inside messages are looked into this deep; none of ours go deeper.
const MAX_DEPTH: usize = 2;

/// Why a message isn't decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it has more than {MAX_FIELDS} fields")]
    TooMany,
    #[error("it is no protobuf")]
    Malformed,
    #[error("it is another message")]
    Other(#[from] prost::DecodeError),
}

/// Decodes a message; `nested` are the fields that are messages with fields of their own.
pub fn read<M: prost::Message + Default>(bytes: &[u8], nested: &[u64]) -> Result<M, Refused> {
    let mut left = MAX_FIELDS;
    count(bytes, nested, MAX_DEPTH, &mut left)?;
    Ok(M::decode(bytes)?)
}

fn count(mut bytes: &[u8], nested: &[u64], depth: usize, left: &mut usize) -> Result<(), Refused> {
    let skip = |bytes: &mut &[u8], length: u64| -> Result<(), Refused> {
        let length = usize::try_from(length).map_err(|_| Refused::Malformed)?;
        *bytes = bytes.get(length..).ok_or(Refused::Malformed)?;
        Ok(())
    };
    while !bytes.is_empty() {
        *left = left.checked_sub(1).ok_or(Refused::TooMany)?;
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => {
                varint(&mut bytes)?;
            }
            1 => skip(&mut bytes, 8)?,
            2 => {
                let length = varint(&mut bytes)?;
                let inside = bytes;
                skip(&mut bytes, length)?;
                if depth > 1 && nested.contains(&(key >> 3)) {
                    count(&inside[..length as usize], &[], depth - 1, left)?;
                }
            }
            5 => skip(&mut bytes, 4)?,
            // Groups were given up long ago.
            _ => return Err(Refused::Malformed),
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Refused> {
    // Written longer than it need be is allowed in protobuf, and not here: no encoder does it.
    let (value, rest) = decode::u64(bytes).map_err(|_| Refused::Malformed)?;
    *bytes = rest;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::wire::bitswap::{Block, Entry, Message, Wantlist};

    fn wants(count: usize) -> Message {
        Message {
            wantlist: Some(Wantlist {
                entries: vec![Entry::default(); count],
                full: false,
            }),
            ..Message::default()
        }
    }

    #[test]
    fn a_bomb_of_empty_items_is_refused_before_it_is_decoded() {
        // Two bytes each: a frame of the largest size would become two million of them.
        for bomb in [
            wants(2_000_000).encode_to_vec(),
            Message {
                payload: vec![Block::default(); 2_000_000],
                ..Message::default()
            }
            .encode_to_vec(),
        ] {
            assert!(bomb.len() < crate::wire::bitswap::MAX_FRAME_BYTES);
            assert_eq!(read::<Message>(&bomb, &[1]), Err(Refused::TooMany));
        }
        let most = wants(60_000);
        assert_eq!(read(&most.encode_to_vec(), &[1]), Ok(most));
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let bytes = wants(3).encode_to_vec();
        for cut in 1..bytes.len() {
            assert!(read::<Message>(&bytes[..cut], &[1]).is_err(), "{cut}");
        }
        assert_eq!(
            read::<Message>(&[0x0b, 0x0c], &[1]),
            Err(Refused::Malformed)
        );
        // Field 1 as a number where a message is expected.
        assert!(matches!(
            read::<Message>(&[0x08, 1], &[1]),
            Err(Refused::Other(_))
        ));
    }
}
