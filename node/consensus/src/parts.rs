//! Proposal parts: how a payload travels beside the proposal of its block id.
//!
//! A stream is `Init`, any number of `Data`, `Fin`. `Fin` is signed by the proposer of the round and binds height,
//! round, block id and the payload's SHA-256, so whoever relays parts can neither add nor change any.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use instar_attest::{ChainId, Digest, PublicKey, Signature};
use instar_ledger::{Oid, vote};
use malachite_app::streaming::{StreamContent, StreamId, StreamMessage};

use crate::context::Ctx;
use crate::host::MAX_PAYLOAD_BYTES;
use crate::signing::Sig;

/// The largest `Data` part, in bytes: small enough to be relayed while the next one is still being sent.
pub(crate) const MAX_CHUNK_BYTES: usize = 128 * 1024;
/// `Init`, the chunks of the largest payload, `Fin`.
pub(crate) const MAX_PARTS: u64 = 2 + (MAX_PAYLOAD_BYTES / MAX_CHUNK_BYTES) as u64;
/// Streams that are still incomplete. A validator sends one a round; the oldest is dropped for a new one.
const MAX_OPEN_STREAMS: usize = 16;
/// Bytes in incomplete streams, over all peers.
const MAX_OPEN_BYTES: usize = 4 * MAX_PAYLOAD_BYTES;

/// One part of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Which proposal this is.
    Init(Init),
    /// A piece of the payload.
    Data(Bytes),
    /// The end, signed.
    Fin(Fin),
}

/// The head of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Init {
    pub height: u64,
    pub round: u32,
    /// The round whose prevotes justify a re-proposal, or -1. A hint only: the signed proposal says it.
    pub pol_round: i64,
    pub proposer: PublicKey,
}

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fin {
    pub block: Oid,
    pub payload: Digest,
    pub sig: Sig,
}

impl malachite_types::ProposalPart<Ctx> for Part {
    fn is_first(&self) -> bool {
        matches!(self, Self::Init(_))
    }

    fn is_last(&self) -> bool {
        matches!(self, Self::Fin(_))
    }
}

/// A whole proposal whose `Fin` holds. Whether its proposer had the turn is not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assembled {
    pub init: Init,
    pub block: Oid,
    pub payload: Bytes,
}

/// A stream id is 20 bytes: height, round, and a number that tells this stream from a repetition.
pub(crate) fn stream_id(height: u64, round: u32, nonce: u64) -> StreamId {
    let mut id = height.to_be_bytes().to_vec();
    id.extend(round.to_be_bytes());
    id.extend(nonce.to_be_bytes());
    StreamId::new(id.into())
}

/// Cuts a payload into the messages of one stream.
pub(crate) fn cut(
    id: &StreamId,
    init: Init,
    fin: Fin,
    payload: &Bytes,
) -> Vec<StreamMessage<Part>> {
    let chunks = (0..payload.len())
        .step_by(MAX_CHUNK_BYTES)
        .map(|start| Part::Data(payload.slice(start..payload.len().min(start + MAX_CHUNK_BYTES))));
    let parts = std::iter::once(Part::Init(init))
        .chain(chunks)
        .chain([Part::Fin(fin)]);
    parts
        .enumerate()
        .map(|(i, part)| StreamMessage::new(id.clone(), i as u64, StreamContent::Data(part)))
        .collect()
}

/// Why a stream was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PartError {
    #[error("part {0} is beyond the last that a proposal may have")]
    Sequence(u64),
    #[error("the payload is over {MAX_PAYLOAD_BYTES} bytes")]
    TooLong,
    #[error("a part stands where it does not belong")]
    Shape,
    #[error("the signature of the end of the parts does not hold")]
    Signature,
    #[error("the payload does not have the digest that was signed")]
    Payload,
}

#[derive(Debug, Default)]
struct Stream {
    parts: BTreeMap<u64, Part>,
    bytes: usize,
}

/// Puts the parts of streams together, in bounded memory.
#[derive(Debug)]
pub(crate) struct Assembler<Peer> {
    chain: ChainId,
    streams: BTreeMap<(Peer, StreamId), Stream>,
    /// From the oldest to the newest.
    order: VecDeque<(Peer, StreamId)>,
    bytes: usize,
}

impl<Peer: Copy + Ord> Assembler<Peer> {
    pub(crate) fn new(chain: ChainId) -> Self {
        Self {
            chain,
            streams: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Takes a part. `publisher` made the stream, whoever relayed this part of it.
    pub(crate) fn add(
        &mut self,
        publisher: Peer,
        message: StreamMessage<Part>,
    ) -> Result<Option<Assembled>, PartError> {
        // The end is known from `Fin`; the engine's own end-of-stream marker adds nothing.
        let StreamContent::Data(part) = message.content else {
            return Ok(None);
        };
        let key = (publisher, message.stream_id);
        if message.sequence >= MAX_PARTS {
            self.drop_stream(&key);
            return Err(PartError::Sequence(message.sequence));
        }
        if !self.streams.contains_key(&key) {
            while self.order.len() >= MAX_OPEN_STREAMS || self.bytes > MAX_OPEN_BYTES {
                let Some(oldest) = self.order.front().cloned() else {
                    break;
                };
                self.drop_stream(&oldest);
            }
            self.order.push_back(key.clone());
        }
        let stream = self.streams.entry(key.clone()).or_default();
        if stream.parts.contains_key(&message.sequence) {
            // A repetition, or a lie that the signature will show.
            return Ok(None);
        }
        if let Part::Data(data) = &part {
            stream.bytes += data.len();
            self.bytes += data.len();
        }
        stream.parts.insert(message.sequence, part);
        if stream.bytes > MAX_PAYLOAD_BYTES {
            self.drop_stream(&key);
            return Err(PartError::TooLong);
        }
        let complete = stream
            .parts
            .iter()
            .enumerate()
            .all(|(i, (seq, _))| i as u64 == *seq)
            && matches!(stream.parts.last_key_value(), Some((_, Part::Fin(_))));
        if !complete {
            return Ok(None);
        }
        let stream = self.drop_stream(&key).unwrap_or_default();
        self.finish(stream).map(Some)
    }

    fn drop_stream(&mut self, key: &(Peer, StreamId)) -> Option<Stream> {
        let stream = self.streams.remove(key)?;
        self.order.retain(|k| k != key);
        self.bytes -= stream.bytes;
        Some(stream)
    }

    fn finish(&self, stream: Stream) -> Result<Assembled, PartError> {
        let mut payload = Vec::with_capacity(stream.bytes);
        let mut parts = stream.parts.into_values();
        let Some(Part::Init(init)) = parts.next() else {
            return Err(PartError::Shape);
        };
        let Some(Part::Fin(fin)) = parts.next_back() else {
            return Err(PartError::Shape);
        };
        for part in parts {
            let Part::Data(data) = part else {
                return Err(PartError::Shape);
            };
            payload.extend_from_slice(&data);
        }
        if Digest::of(&payload) != fin.payload {
            return Err(PartError::Payload);
        }
        let bytes = vote::parts_bytes(
            &self.chain,
            init.height,
            init.round,
            &fin.block,
            &fin.payload,
        );
        init.proposer
            .verify(&bytes, &Signature::from(fin.sig))
            .map_err(|_| PartError::Signature)?;
        Ok(Assembled {
            init,
            block: fin.block,
            payload: payload.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_attest::SecretKey;

    fn stream(key: &SecretKey, nonce: u64, payload: &Bytes) -> Vec<StreamMessage<Part>> {
        let chain = ChainId::from_bytes([9; 32]);
        let block = Oid::from_bytes([3; 32]);
        let digest = Digest::of(payload);
        let init = Init {
            height: 5,
            round: 1,
            pol_round: -1,
            proposer: key.public(),
        };
        let sig = key
            .sign(&vote::parts_bytes(&chain, 5, 1, &block, &digest))
            .into();
        cut(
            &stream_id(5, 1, nonce),
            init,
            Fin {
                block,
                payload: digest,
                sig,
            },
            payload,
        )
    }

    fn assembler() -> Assembler<u8> {
        Assembler::new(ChainId::from_bytes([9; 32]))
    }

    #[test]
    fn parts_arrive_in_any_order() {
        let key = SecretKey::from_seed(&[1; 32]);
        let payload = Bytes::from(vec![7; 2 * MAX_CHUNK_BYTES + 5]);
        let mut parts = stream(&key, 0, &payload);
        assert_eq!(parts.len(), 5);
        parts.reverse();
        let mut assembler = assembler();
        let last = parts.pop().unwrap();
        for part in parts {
            assert_eq!(assembler.add(1, part.clone()), Ok(None));
            assert_eq!(assembler.add(1, part), Ok(None));
        }
        let whole = assembler.add(1, last).unwrap().unwrap();
        assert_eq!(whole.payload, payload);
        assert_eq!(assembler.bytes, 0);
        assert!(assembler.order.is_empty());
    }

    #[test]
    fn a_changed_chunk_is_refused() {
        let key = SecretKey::from_seed(&[1; 32]);
        let mut parts = stream(&key, 0, &Bytes::from_static(b"pay me"));
        parts[1].content = StreamContent::Data(Part::Data(Bytes::from_static(b"pay you")));
        let mut assembler = assembler();
        let results: Vec<_> = parts.into_iter().map(|p| assembler.add(1, p)).collect();
        assert_eq!(results.last(), Some(&Err(PartError::Payload)));
    }

    #[test]
    fn an_end_signed_by_somebody_else_is_refused() {
        let key = SecretKey::from_seed(&[1; 32]);
        let mut parts = stream(&key, 0, &Bytes::from_static(b"pay me"));
        let other = SecretKey::from_seed(&[2; 32]).public();
        let StreamContent::Data(Part::Init(init)) = &mut parts[0].content else {
            panic!()
        };
        init.proposer = other;
        let mut assembler = assembler();
        let results: Vec<_> = parts.into_iter().map(|p| assembler.add(1, p)).collect();
        assert_eq!(results.last(), Some(&Err(PartError::Signature)));
    }

    #[test]
    fn memory_is_bounded() {
        let key = SecretKey::from_seed(&[1; 32]);
        let mut assembler = assembler();
        for nonce in 0..100 {
            for part in stream(&key, nonce, &Bytes::from(vec![1; MAX_CHUNK_BYTES])).drain(..2) {
                assembler.add(1, part).unwrap();
            }
        }
        assert_eq!(assembler.order.len(), MAX_OPEN_STREAMS);
        assert_eq!(assembler.bytes, MAX_OPEN_STREAMS * MAX_CHUNK_BYTES);
        let id = stream_id(1, 0, 0);
        let far = StreamMessage::new(id, MAX_PARTS, StreamContent::Data(Part::Data(Bytes::new())));
        assert_eq!(assembler.add(1, far), Err(PartError::Sequence(MAX_PARTS)));
        let id = stream_id(1, 0, 1);
        let chunk = Part::Data(Bytes::from(vec![0; MAX_CHUNK_BYTES * 2]));
        let results: Vec<_> = (0..MAX_PARTS)
            .map(|i| {
                let content = StreamContent::Data(chunk.clone());
                assembler.add(2, StreamMessage::new(id.clone(), i, content))
            })
            .collect();
        assert!(results.contains(&Err(PartError::TooLong)));
    }
}
