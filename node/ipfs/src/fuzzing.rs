//! The decoders of what strangers send, as plain functions: for a fuzzer, and for the corpus that the tests replay. Each
//! says whether it took the bytes, and panics where a decoder breaks a promise.

use cid::Cid;
use futures::executor::block_on;
use futures::io::Cursor;
use prost::Message as _;

use crate::bitswap::parse_prefix;
use crate::wire::{bitswap, delta, gossip, read_body, read_length};

/// Bytes of a whole stream: the frames in it, one after the other.
pub fn frames(bytes: &[u8]) -> bool {
    let mut stream = Cursor::new(bytes);
    let mut read = 0;
    loop {
        match block_on(read_length(&mut stream, bitswap::MAX_FRAME_BYTES)) {
            Ok(Some(length)) => match block_on(read_body(&mut stream, length)) {
                Ok(body) => read += body.len(),
                Err(_) => return false,
            },
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    assert!(read <= bytes.len(), "more came out than went in");
    true
}

/// One bitswap message, and the addresses and prefixes in it.
pub fn bitswap(bytes: &[u8]) -> bool {
    let Ok(message) = bitswap::Message::read(bytes) else {
        return false;
    };
    let again = bitswap::Message::read(&message.encode_to_vec());
    assert_eq!(again.as_ref(), Ok(&message), "written, it reads otherwise");
    for entry in message.wantlist.iter().flat_map(|list| &list.entries) {
        if let Ok(cid) = Cid::try_from(entry.block.as_slice()) {
            // Addresses that mean the same are kept under one form.
            let _ = instar_chunks::block::canonical(&cid);
        }
    }
    for block in &message.payload {
        let _ = parse_prefix(&block.prefix);
    }
    true
}

/// One gossip frame.
pub fn gossip(bytes: &[u8]) -> bool {
    let Ok(frame) = gossip::Frame::read(bytes) else {
        return false;
    };
    let again = gossip::Frame::read(&frame.encode_to_vec());
    assert_eq!(again.as_ref(), Ok(&frame), "written, it reads otherwise");
    true
}

/// The two heads of the delta protocol.
pub fn delta(bytes: &[u8]) -> bool {
    let question = delta::Question::decode(bytes);
    if let Ok(question) = &question {
        let again = delta::Question::decode(question.encode_to_vec().as_slice());
        assert_eq!(again.as_ref(), Ok(question), "written, it reads otherwise");
    }
    let answer = delta::Answer::decode(bytes);
    question.is_ok() || answer.is_ok()
}
