//! Golden bytes of everything that the kernel writes: `tests/vectors/codec.txt`, one `name hex` a line.
//!
//! A vector that changes is another kernel. `INSTAR_WRITE_VECTORS=1` writes the file, for a new kernel only.

use std::fmt::Debug;

use super::*;
use instar_attest::{ChainId, SecretKey};
use malachite_app::streaming::StreamContent;
use malachite_consensus::Input;
use malachite_engine::wal::{decode_entry, encode_entry};
use malachite_sync::ValueRequest;
use malachite_types::{
    PolkaSignature, RoundCertificate, RoundCertificateType, RoundSignature, SignedMessage, Timeout,
    TimeoutKind, Validity, ValueOrigin,
};

use crate::marks::{Marks, Step, What};
use crate::parts::stream_id;
use crate::signing::{proposal_bytes, vote_bytes};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/codec.txt");

fn chain() -> ChainId {
    ChainId::from_bytes([0xc4; 32])
}

fn key() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

fn address() -> Address {
    Address(key().public())
}

fn block() -> BlockId {
    BlockId(Oid::from_bytes([0xb1; 32]))
}

fn vote(kind: VoteType, value: NilOrVal<BlockId>) -> SignedMessage<Ctx, Vote> {
    let height = Height(7);
    let vote = Vote {
        kind,
        height,
        round: Round::new(2),
        value,
        validator: address(),
    };
    let sig = key().sign(&vote_bytes(&chain(), &vote).unwrap()).into();
    SignedMessage::new(vote, sig)
}

fn proposal(pol_round: Round) -> SignedMessage<Ctx, Proposal> {
    let (height, round) = (Height(7), Round::new(2));
    let proposal = Proposal {
        height,
        round,
        value: block(),
        pol_round,
        proposer: address(),
    };
    let sig = key()
        .sign(&proposal_bytes(&chain(), &proposal).unwrap())
        .into();
    SignedMessage::new(proposal, sig)
}

fn init() -> Part {
    Part::Init(Init {
        height: 7,
        round: 2,
        pol_round: -1,
        proposer: address().0,
    })
}

fn fin() -> Part {
    let payload = Digest::of(b"payload");
    let sig = key().sign(&instar_ledger::vote::parts_bytes(
        &chain(),
        7,
        2,
        &block().0,
        &payload,
    ));
    Part::Fin(Fin {
        block: block().0,
        payload,
        sig: sig.into(),
    })
}

/// Collects vectors, or compares with the ones that are there.
struct Golden {
    expected: Vec<(String, String)>,
    made: Vec<(String, String)>,
}

impl Golden {
    fn open() -> Self {
        let text = std::fs::read_to_string(VECTORS).unwrap_or_default();
        let expected = text.lines().filter_map(|l| l.split_once(' '));
        let expected = expected
            .map(|(n, h)| (n.to_owned(), h.to_owned()))
            .collect();
        Self {
            expected,
            made: Vec::new(),
        }
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.made.push((name.to_owned(), hex::encode(bytes)));
    }

    /// The value has these bytes, these bytes are that value, and no other bytes near them are anything.
    fn value<T: Debug + PartialEq>(&mut self, name: &str, value: &T)
    where
        Wire: Codec<T>,
    {
        let wire = Wire::default();
        let bytes = wire.encode(value).unwrap();
        assert_eq!(&wire.decode(bytes.clone()).unwrap(), value, "{name}");
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(
            Codec::<T>::decode(&wire, longer.into()).is_err(),
            "{name}: a byte left over"
        );
        for length in 0..bytes.len() {
            let cut = bytes.slice(..length);
            assert!(
                Codec::<T>::decode(&wire, cut).is_err(),
                "{name}: cut at {length}"
            );
        }
        let endless = Bytes::from(vec![0xff; MAX_RESPONSE_BYTES + 1]);
        assert!(
            Codec::<T>::decode(&wire, endless).is_err(),
            "{name}: too long"
        );
        self.bytes(name, &bytes);
    }

    fn wal(&mut self, name: &str, input: Input<Ctx>) {
        let mut bytes = Vec::new();
        encode_entry(input.clone(), &Wire::default(), &mut bytes).unwrap();
        let again = decode_entry(&Wire::default(), &bytes[..]).unwrap();
        assert_eq!(format!("{again:?}"), format!("{input:?}"));
        self.bytes(name, &bytes);
    }

    fn close(self) {
        if std::env::var_os("INSTAR_WRITE_VECTORS").is_some() {
            let lines = self
                .made
                .iter()
                .map(|(name, hex)| format!("{name} {hex}\n"));
            std::fs::write(VECTORS, lines.collect::<String>()).unwrap();
            return;
        }
        for (made, expected) in self.made.iter().zip(&self.expected) {
            assert_eq!(made, expected, "the frozen bytes changed");
        }
        assert_eq!(self.made.len(), self.expected.len());
    }
}

#[test]
fn the_kernels_bytes_are_frozen() {
    let mut golden = Golden::open();
    let nil = NilOrVal::Nil;
    let value = NilOrVal::Val(block());
    let prevote = vote(VoteType::Prevote, value);
    let precommit = vote(VoteType::Precommit, value);

    golden.bytes(
        "signed/prevote",
        &vote_bytes(&chain(), &prevote.message).unwrap(),
    );
    golden.bytes(
        "signed/precommit",
        &vote_bytes(&chain(), &precommit.message).unwrap(),
    );
    let nothing = vote(VoteType::Precommit, nil);
    golden.bytes(
        "signed/precommit-nil",
        &vote_bytes(&chain(), &nothing.message).unwrap(),
    );
    let fresh = proposal(Round::Nil);
    golden.bytes(
        "signed/proposal",
        &proposal_bytes(&chain(), &fresh.message).unwrap(),
    );
    let again = proposal(Round::new(1));
    golden.bytes(
        "signed/proposal-again",
        &proposal_bytes(&chain(), &again.message).unwrap(),
    );

    golden.value(
        "message/prevote",
        &SignedConsensusMsg::Vote(prevote.clone()),
    );
    golden.value(
        "message/precommit-nil",
        &SignedConsensusMsg::Vote(nothing.clone()),
    );
    golden.value(
        "message/proposal",
        &SignedConsensusMsg::Proposal(fresh.clone()),
    );
    golden.value(
        "message/proposal-again",
        &SignedConsensusMsg::Proposal(again),
    );

    let data = Part::Data(Bytes::from_static(b"payload"));
    golden.value("part/init", &init());
    golden.value("part/data", &data);
    golden.value("part/fin", &fin());
    let message = |i, content| StreamMessage::new(stream_id(7, 2, 9), i, content);
    golden.value("stream/data", &message(1, StreamContent::Data(data)));
    golden.value("stream/end", &message(3, StreamContent::<Part>::Fin));

    let polka = PolkaCertificate::new(Height(7), Round::new(2), block(), vec![prevote.clone()]);
    assert_eq!(
        polka.polka_signatures,
        [PolkaSignature::new(address(), prevote.signature)]
    );
    golden.value("liveness/vote", &LivenessMsg::Vote(prevote.clone()));
    golden.value(
        "liveness/polka",
        &LivenessMsg::PolkaCertificate(polka.clone()),
    );
    let signature = RoundSignature::new(VoteType::Precommit, nil, address(), nothing.signature);
    golden.value(
        "liveness/round",
        &LivenessMsg::SkipRoundCertificate(RoundCertificate {
            height: Height(7),
            round: Round::new(2),
            cert_type: RoundCertificateType::Precommit,
            round_signatures: vec![signature],
        }),
    );
    golden.value("certificate/polka", &polka);

    let peer = malachite_app::types::PeerId::from_bytes(
        &malachite_app::types::Keypair::ed25519_from_bytes([2; 32])
            .unwrap()
            .public()
            .to_peer_id()
            .to_bytes(),
    )
    .unwrap();
    let bytes =
        instar_ledger::vote::validator_proof_bytes(&chain(), &address().0, &peer.to_bytes());
    golden.bytes("signed/validator-proof", &bytes);
    let proof = ValidatorProof::<Ctx>::new(
        address().0.as_bytes().to_vec(),
        peer.to_bytes(),
        key().sign(&bytes).into(),
    );
    golden.value("proof", &proof);
    let status = Status {
        peer_id: peer,
        tip_height: Height(9),
        history_min_height: Height(1),
    };
    golden.value::<Status<Ctx>>("sync/status", &status);
    let range = ValueRequest::new(Height(3)..=Height(5));
    golden.value::<Request<Ctx>>("sync/request", &Request::ValueRequest(range));
    let certificate = ExtendedCommitCertificate {
        height: Height(7),
        round: Round::new(2),
        value_id: block(),
        commit_signatures: vec![ExtendedCommitSignature::new(
            address(),
            precommit.signature,
            None,
        )],
    };
    let decided = RawDecidedValue::new(Bytes::from_static(b"value"), certificate);
    let response = Response::ValueResponse(ValueResponse::new(Height(7), vec![decided]));
    golden.value::<Response<Ctx>>("sync/response", &response);
    let wire = Wire::default();
    let length = wire.encoded_len(&response).unwrap();
    assert_eq!(
        length,
        Codec::<Response<Ctx>>::encode(&wire, &response)
            .unwrap()
            .len()
    );

    let proposed = ProposedValue {
        height: Height(7),
        round: Round::new(2),
        valid_round: Round::Nil,
        proposer: address(),
        value: block(),
        validity: Validity::Valid,
    };
    golden.value("value", &proposed);
    golden.wal("wal/vote", Input::Vote(precommit));
    golden.wal("wal/proposal", Input::Proposal(fresh));
    golden.wal(
        "wal/value",
        Input::ProposedValue(proposed, ValueOrigin::Consensus),
    );
    golden.wal("wal/polka", Input::PolkaCertificate(polka));
    let timeout = |kind| Input::TimeoutElapsed(Timeout::new(Round::new(2), kind));
    golden.wal("wal/timeout-propose", timeout(TimeoutKind::Propose));
    golden.wal("wal/timeout-prevote", timeout(TimeoutKind::Prevote));
    golden.wal("wal/timeout-precommit", timeout(TimeoutKind::Precommit));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("consensus.wal");
    let mut log = malachite_wal::Log::open(&path).unwrap();
    log.reset(7).unwrap();
    let mut entry = Vec::new();
    encode_entry(timeout(TimeoutKind::Propose), &Wire::default(), &mut entry).unwrap();
    log.append(&entry).unwrap();
    log.flush().unwrap();
    drop(log);
    golden.bytes("file/wal", &std::fs::read(path).unwrap());

    let mut marks = Marks::create(dir.path(), key().public(), 0).unwrap();
    let what = What {
        block: Some(block().0),
        pol_round: -1,
    };
    marks.advance(7, 2, Step::Prevote, what).unwrap();
    drop(marks);
    golden.bytes(
        "file/mark",
        &std::fs::read(dir.path().join(crate::marks::FILE_NAME)).unwrap(),
    );

    let mut log = crate::log::ProposalLog::open(dir.path()).unwrap();
    log.keep(7, 2, true, block().0, &Bytes::from_static(b"payload"))
        .unwrap();
    drop(log);
    golden.bytes(
        "file/proposals",
        &std::fs::read(dir.path().join("proposals.log")).unwrap(),
    );
    golden.close();
}

#[test]
fn a_status_is_noted() {
    let wire = Wire::default();
    let peer = malachite_app::types::PeerId::from_bytes(&[0, 2, 1, 2]).unwrap();
    let status: Status<Ctx> = Status {
        peer_id: peer,
        tip_height: Height(12),
        history_min_height: Height(1),
    };
    let bytes = wire.encode(&status).unwrap();
    let _: Status<Ctx> = wire.decode(bytes).unwrap();
    assert_eq!(wire.tips.highest(), 12);
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    // A certificate that says it has four thousand million signatures.
    let mut bytes = borsh::to_vec(&(Height(7), Round::new(2), block())).unwrap();
    bytes.extend([0xff; 4]);
    assert!(Codec::<PolkaCertificate<Ctx>>::decode(&Wire::default(), bytes.into()).is_err());
    let mut part = vec![1];
    part.extend(u32::MAX.to_le_bytes());
    assert!(Codec::<Part>::decode(&Wire::default(), part.into()).is_err());
}
