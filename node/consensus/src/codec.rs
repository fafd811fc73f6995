//! The bytes on the wire and in the write-ahead log. Frozen: `tests/vectors/codec.txt` holds every kind.
//!
//! Everything is borsh; what Malachite gives no borsh form is written field by field in the same manner. Input is
//! bounded before it is parsed, and bytes that are left over are refused.

use std::io::{self, Read, Write};
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use instar_attest::{Digest, PublicKey};
use instar_ledger::Oid;
use instar_ledger::validators::MAX_VALIDATORS;
use malachite_app::streaming::StreamMessage;
use malachite_codec::{Codec, HasEncodedLen};
use malachite_consensus::{LivenessMsg, ProposedValue, SignedConsensusMsg};
use malachite_sync::{RawDecidedValue, Request, Response, Status, ValueResponse};
use malachite_types::{
    ExtendedCommitCertificate, ExtendedCommitSignature, NilOrVal, PolkaCertificate, Round,
    ValidatorProof, VoteType,
};

use crate::context::{Address, BlockId, Ctx, Height, Proposal, Vote};
use crate::host::MAX_PAYLOAD_BYTES;
use crate::overheard::{Polkas, Proofs, Tips};
use crate::parts::{Fin, Init, MAX_CHUNK_BYTES, Part};
use crate::signing::Sig;

/// A vote or a proposal with its signature.
const MAX_MESSAGE_BYTES: usize = 512;
/// A stream message: its id, its place, a chunk.
const MAX_PART_BYTES: usize = MAX_CHUNK_BYTES + 512;
/// A stream id of this kernel.
const STREAM_ID_BYTES: usize = 20;
/// A certificate of rounds or prevotes, with everybody's signature.
const MAX_LIVENESS_BYTES: usize = 512 + MAX_VALIDATORS * 256;
/// A status, a request, a validator's proof.
const MAX_SMALL_BYTES: usize = 256;
/// Values for a peer that is behind: at least one of the largest, with its certificate.
pub(crate) const MAX_RESPONSE_BYTES: usize = MAX_PAYLOAD_BYTES + 512 * 1024;

/// Why bytes were refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// Longer than this kind may be.
    #[error("{what}: {length} bytes, at most {max} are allowed")]
    TooLong {
        what: &'static str,
        length: usize,
        max: usize,
    },
    /// Not of this kind.
    #[error("{what}: {source}")]
    Malformed {
        what: &'static str,
        source: io::Error,
    },
}

fn decode<T: BorshDeserialize>(
    what: &'static str,
    max: usize,
    bytes: &Bytes,
) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong {
            what,
            length: bytes.len(),
            max,
        });
    }
    borsh::from_slice(bytes).map_err(|source| CodecError::Malformed { what, source })
}

fn encode<T: BorshSerialize>(what: &'static str, value: &T) -> Result<Bytes, CodecError> {
    let bytes = borsh::to_vec(value).map_err(|source| CodecError::Malformed { what, source })?;
    Ok(bytes.into())
}

fn refuse<T>(why: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// The one codec, for the network, for sync and for the write-ahead log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    /// The engine shows nobody how far its peers are, so what it decodes is noted here.
    pub tips: Arc<Tips>,
    /// Likewise why a block is proposed again.
    pub polkas: Arc<Polkas>,
    /// And whose keys its peers hold, which it misses while it starts.
    pub proofs: Arc<Proofs>,
}

macro_rules! by_borsh {
    ($($what:literal: $kind:ty, $max:expr;)*) => {$(
        impl Codec<$kind> for Wire {
            type Error = CodecError;

            fn decode(&self, bytes: Bytes) -> Result<$kind, CodecError> {
                decode($what, $max, &bytes)
            }

            fn encode(&self, value: &$kind) -> Result<Bytes, CodecError> {
                encode($what, value)
            }
        }
    )*};
}

by_borsh! {
    "a signed message": SignedConsensusMsg<Ctx>, MAX_MESSAGE_BYTES;
    "a proposal part": Part, MAX_PART_BYTES;
    "a certificate of prevotes": PolkaCertificate<Ctx>, MAX_LIVENESS_BYTES;
    "a proposed value": ProposedValue<Ctx>, MAX_MESSAGE_BYTES;
    "a sync request": Request<Ctx>, MAX_SMALL_BYTES;
}

impl Codec<StreamMessage<Part>> for Wire {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Result<StreamMessage<Part>, CodecError> {
        let message: StreamMessage<Part> = decode("a stream message", MAX_PART_BYTES, &bytes)?;
        let length = message.stream_id.to_bytes().len();
        if length != STREAM_ID_BYTES {
            return Err(CodecError::TooLong {
                what: "a stream id",
                length,
                max: STREAM_ID_BYTES,
            });
        }
        Ok(message)
    }

    fn encode(&self, message: &StreamMessage<Part>) -> Result<Bytes, CodecError> {
        encode("a stream message", message)
    }
}

impl Codec<LivenessMsg<Ctx>> for Wire {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Result<LivenessMsg<Ctx>, CodecError> {
        let message = decode("a liveness message", MAX_LIVENESS_BYTES, &bytes)?;
        if let LivenessMsg::PolkaCertificate(certificate) = &message {
            self.polkas.note(certificate);
        }
        Ok(message)
    }

    fn encode(&self, message: &LivenessMsg<Ctx>) -> Result<Bytes, CodecError> {
        encode("a liveness message", message)
    }
}

impl Codec<Status<Ctx>> for Wire {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Result<Status<Ctx>, CodecError> {
        let status: Status<Ctx> = decode("a status", MAX_SMALL_BYTES, &bytes)?;
        self.tips.note(status.peer_id, status.tip_height.0);
        Ok(status)
    }

    fn encode(&self, status: &Status<Ctx>) -> Result<Bytes, CodecError> {
        encode("a status", status)
    }
}

impl Codec<ValidatorProof<Ctx>> for Wire {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Result<ValidatorProof<Ctx>, CodecError> {
        let (public_key, peer_id, signature) =
            decode("a validator's proof", MAX_SMALL_BYTES, &bytes)?;
        let proof = ValidatorProof::new(public_key, peer_id, signature);
        self.proofs.note(&proof);
        Ok(proof)
    }

    fn encode(&self, proof: &ValidatorProof<Ctx>) -> Result<Bytes, CodecError> {
        encode(
            "a validator's proof",
            &(&proof.public_key, &proof.peer_id, &proof.signature),
        )
    }
}

/// One decided value: `height ‖ round ‖ block ‖ [address ‖ signature]… ‖ value bytes`.
type FlatValue = (Height, Round, BlockId, Vec<(Address, Sig)>, Vec<u8>);

fn flatten(value: &RawDecidedValue<Ctx>) -> FlatValue {
    let certificate = &value.certificate;
    let signatures = certificate
        .commit_signatures
        .iter()
        .map(|s| (s.address, s.signature));
    let value_bytes = value.value_bytes.to_vec();
    (
        certificate.height,
        certificate.round,
        certificate.value_id,
        signatures.collect(),
        value_bytes,
    )
}

fn raise((height, round, value_id, signatures, value_bytes): FlatValue) -> RawDecidedValue<Ctx> {
    let signatures = signatures.into_iter();
    let commit_signatures = signatures
        .map(|(a, s)| ExtendedCommitSignature::new(a, s, None))
        .collect();
    let certificate = ExtendedCommitCertificate {
        height,
        round,
        value_id,
        commit_signatures,
    };
    RawDecidedValue::new(value_bytes.into(), certificate)
}

impl Codec<Response<Ctx>> for Wire {
    type Error = CodecError;

    fn decode(&self, bytes: Bytes) -> Result<Response<Ctx>, CodecError> {
        let (start, values): (Height, Vec<FlatValue>) =
            decode("a sync response", MAX_RESPONSE_BYTES, &bytes)?;
        let values = values.into_iter().map(raise).collect();
        Ok(Response::ValueResponse(ValueResponse::new(start, values)))
    }

    fn encode(&self, response: &Response<Ctx>) -> Result<Bytes, CodecError> {
        let Response::ValueResponse(response) = response;
        let values: Vec<FlatValue> = response.values.iter().map(flatten).collect();
        encode("a sync response", &(response.start_height, values))
    }
}

impl HasEncodedLen<Response<Ctx>> for Wire {
    fn encoded_len(&self, response: &Response<Ctx>) -> Result<usize, CodecError> {
        let Response::ValueResponse(response) = response;
        let length = |value: &RawDecidedValue<Ctx>| {
            let round = if value.certificate.round.is_nil() {
                1
            } else {
                5
            };
            let signatures = value.certificate.commit_signatures.len() * 96;
            8 + round + 32 + 4 + signatures + 4 + value.value_bytes.len()
        };
        Ok(8 + 4 + response.values.iter().map(length).sum::<usize>())
    }
}

macro_rules! raw_borsh {
    ($($kind:ty: $bytes:literal, $to:expr, $from:expr;)*) => {$(
        impl BorshSerialize for $kind {
            fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
                let to: fn(&$kind) -> &[u8; $bytes] = $to;
                writer.write_all(to(self))
            }
        }

        impl BorshDeserialize for $kind {
            fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
                let mut bytes = [0; $bytes];
                reader.read_exact(&mut bytes)?;
                let from: fn([u8; $bytes]) -> $kind = $from;
                Ok(from(bytes))
            }
        }
    )*};
}

raw_borsh! {
    Address: 32, |a| a.0.as_bytes(), |b| Address(PublicKey::from_bytes(b));
    BlockId: 32, |v| v.0.as_bytes(), |b| BlockId(Oid::from_bytes(b));
    Sig: 64, |s| &s.0, Sig;
}

impl BorshSerialize for Height {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        self.0.serialize(writer)
    }
}

impl BorshDeserialize for Height {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        u64::deserialize_reader(reader).map(Self)
    }
}

impl BorshSerialize for Vote {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        self.kind.serialize(writer)?;
        self.height.serialize(writer)?;
        self.round.serialize(writer)?;
        self.value.serialize(writer)?;
        self.validator.serialize(writer)
    }
}

impl BorshDeserialize for Vote {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        Ok(Self {
            kind: VoteType::deserialize_reader(reader)?,
            height: Height::deserialize_reader(reader)?,
            round: Round::deserialize_reader(reader)?,
            value: NilOrVal::deserialize_reader(reader)?,
            validator: Address::deserialize_reader(reader)?,
        })
    }
}

impl BorshSerialize for Proposal {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        self.height.serialize(writer)?;
        self.round.serialize(writer)?;
        self.value.serialize(writer)?;
        self.pol_round.serialize(writer)?;
        self.proposer.serialize(writer)
    }
}

impl BorshDeserialize for Proposal {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        Ok(Self {
            height: Height::deserialize_reader(reader)?,
            round: Round::deserialize_reader(reader)?,
            value: BlockId::deserialize_reader(reader)?,
            pol_round: Round::deserialize_reader(reader)?,
            proposer: Address::deserialize_reader(reader)?,
        })
    }
}

impl BorshSerialize for Part {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        match self {
            Self::Init(init) => {
                0u8.serialize(writer)?;
                (init.height, init.round, init.pol_round).serialize(writer)?;
                Address(init.proposer).serialize(writer)
            }
            Self::Data(data) => {
                1u8.serialize(writer)?;
                data[..].serialize(writer)
            }
            Self::Fin(fin) => {
                2u8.serialize(writer)?;
                BlockId(fin.block).serialize(writer)?;
                fin.payload.as_bytes().serialize(writer)?;
                fin.sig.serialize(writer)
            }
        }
    }
}

impl BorshDeserialize for Part {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        match u8::deserialize_reader(reader)? {
            0 => {
                let (height, round, pol_round) = BorshDeserialize::deserialize_reader(reader)?;
                if pol_round < -1 || pol_round > i64::from(u32::MAX) {
                    return refuse("a round that there can't be");
                }
                let proposer = Address::deserialize_reader(reader)?.0;
                Ok(Self::Init(Init {
                    height,
                    round,
                    pol_round,
                    proposer,
                }))
            }
            1 => {
                let data = Vec::<u8>::deserialize_reader(reader)?;
                if data.len() > MAX_CHUNK_BYTES {
                    return refuse("a chunk that is too long");
                }
                Ok(Self::Data(data.into()))
            }
            2 => Ok(Self::Fin(Fin {
                block: BlockId::deserialize_reader(reader)?.0,
                payload: Digest::from_bytes(BorshDeserialize::deserialize_reader(reader)?),
                sig: Sig::deserialize_reader(reader)?,
            })),
            _ => refuse("not a kind of part"),
        }
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
