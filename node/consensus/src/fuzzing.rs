//! The decoders of what peers send, as a plain function: for a fuzzer, and for the corpus that the tests replay. It says
//! whether the bytes were taken, and panics where a decoder breaks a promise.

use std::fmt::Debug;

use bytes::Bytes;
use malachite_app::streaming::StreamMessage;
use malachite_codec::{Codec, HasEncodedLen};
use malachite_consensus::{LivenessMsg, ProposedValue, SignedConsensusMsg};
use malachite_sync::{Request, Response, Status};
use malachite_types::{PolkaCertificate, ValidatorProof};

use crate::codec::{CodecError, MAX_RESPONSE_BYTES, Wire};
use crate::context::Ctx;
use crate::parts::Part;

/// The first byte says of which kind the others are. What is taken is written again as it came.
pub fn decode(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else {
        return false;
    };
    match kind {
        0 => one::<SignedConsensusMsg<Ctx>>(bytes),
        1 => one::<Part>(bytes),
        2 => one::<StreamMessage<Part>>(bytes),
        3 => one::<LivenessMsg<Ctx>>(bytes),
        4 => one::<PolkaCertificate<Ctx>>(bytes),
        5 => one::<ValidatorProof<Ctx>>(bytes),
        6 => one::<Status<Ctx>>(bytes),
        7 => one::<Request<Ctx>>(bytes),
        8 => response(bytes),
        9 => one::<ProposedValue<Ctx>>(bytes),
        _ => false,
    }
}

fn one<T: Debug + PartialEq>(bytes: &[u8]) -> bool
where
    Wire: Codec<T, Error = CodecError>,
{
    read::<T>(bytes).is_some()
}

fn read<T: Debug + PartialEq>(bytes: &[u8]) -> Option<T>
where
    Wire: Codec<T, Error = CodecError>,
{
    let wire = Wire::default();
    let value = wire.decode(Bytes::copy_from_slice(bytes)).ok()?;
    assert!(bytes.len() <= MAX_RESPONSE_BYTES, "longer than anything");
    let again = wire.encode(&value).expect("what was read can be written");
    assert_eq!(again, bytes, "two spellings of {value:?}");
    Some(value)
}

fn response(bytes: &[u8]) -> bool {
    let Some(response) = read::<Response<Ctx>>(bytes) else {
        return false;
    };
    let length = Wire::default().encoded_len(&response);
    assert_eq!(length.ok(), Some(bytes.len()), "its length is another");
    true
}
