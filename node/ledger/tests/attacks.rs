//! Each test is named after the attack that it repeats, and sees it refused for the right reason.
#![allow(clippy::unwrap_used)]

mod support;

use instar_attest::key::SignatureError;
use instar_attest::{ChainId, PublicKey, SecretKey, Signature};
use instar_ledger::entry::EntryError;
use instar_ledger::equivocation::{Evidence, EvidenceError};
use instar_ledger::grammar::{
    ENTRIES_FILE, GrammarError, Kind, LanePayload, Object, SignedLaneCommit, entries_jsonl,
    single_file_tree,
};
use instar_ledger::sshsig::SshSig;
use instar_ledger::vote::{self, VoteKind};
use instar_ledger::*;
use serde_json::json;
use support::*;

fn chain() -> ChainId {
    genesis("test").chain_id().unwrap()
}

/// A signed first commit of lane 0 on `chain`, with the key given, and its objects.
fn commit_by(chain: &ChainId, key: &SecretKey, lane: Lane, entries: &[Entry]) -> [Object; 3] {
    let blob = Object::new(Kind::Blob, entries_jsonl(entries).unwrap());
    let tree = single_file_tree(ENTRIES_FILE, &blob);
    let payload = LanePayload {
        chain: *chain,
        entries: entries.len(),
        lane,
        parent: (*chain).into(),
        seq: 1,
        time_s: TIME_MS / 1000,
        tree: tree.id,
    };
    let commit = Object::new(Kind::Commit, payload.sign(key).unwrap().to_bytes());
    [commit, tree, blob]
}

fn honest() -> [Object; 3] {
    let chain = chain();
    commit_by(
        &chain,
        &key("lane", 0),
        lane_of(0),
        &[transfer(&chain, 0, 1)],
    )
}

fn import(objects: &[Object]) -> Result<Imported, StoreError> {
    let mut net = Net::new(1);
    let pack = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
    net.stores[0].import_pack(&pack, 1 << 20)
}

fn text(object: &Object) -> String {
    String::from_utf8(object.bytes.clone()).unwrap()
}

/// Imports `commit` in place of the honest one and gives the reason of the refusal.
fn refusal_of(commit: String) -> String {
    let [original, tree, blob] = honest();
    assert_ne!(commit, text(&original), "the attack changed nothing");
    let commit = Object::new(Kind::Commit, commit.into_bytes());
    import(&[commit, tree, blob]).unwrap_err().to_string()
}

#[test]
fn what_is_honest_passes() {
    let imported = import(&honest()).unwrap();
    assert_eq!(imported.lane_commits[0].entries.len(), 1);
}

/// Wraps the armour at another column: git and ssh-keygen take it, the payload is the same, the id another.
#[test]
fn lane_commit_rewrapped_in_another_armour() {
    let commit = text(&honest()[0]);
    let (head, rest) = commit.split_once("SSH SIGNATURE-----\n ").unwrap();
    let (first, rest) = rest.split_at(40);
    let wrapped = format!("{head}SSH SIGNATURE-----\n {first}\n {rest}");
    let unfolded = commit.replacen("\n ", "\n  ", 1);
    for attack in [wrapped, unfolded] {
        assert_rewrap_passes_in_git(&attack);
        let why = refusal_of(attack);
        assert!(why.contains("the one accepted armour"), "{why}");
    }
}

/// The attack is real: stock git verifies the re-wrapped commit, under another id.
fn assert_rewrap_passes_in_git(commit: &str) {
    let mut net = Net::new(1);
    net.append(0, 1);
    net.stores[0].flush().unwrap();
    let repo = net.stores[0].path();
    let [_, tree, blob] = honest();
    for object in [&blob, &tree, &Object::new(Kind::Commit, commit.into())] {
        let file = net.dir.path().join("object");
        std::fs::write(&file, &object.bytes).unwrap();
        let kind = object.kind.as_str();
        let file = file.to_str().unwrap();
        git(repo, &["hash-object", "-w", "-t", kind, file]).unwrap();
    }
    let signers = net.dir.path().join("signers");
    std::fs::write(&signers, sshsig::allowed_signers(&net.signers())).unwrap();
    let config = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    let id = Object::new(Kind::Commit, commit.into()).id.to_hex();
    let said = git(repo, &["-c", &config, "verify-commit", &id]).unwrap();
    assert!(said.contains("Good \"git\" signature"), "{said}");
}

#[test]
fn lane_commit_with_a_junk_gpgsig_header() {
    let attack = text(&honest()[0]).replacen("gpgsig-sha256 ", "gpgsig junk\ngpgsig-sha256 ", 1);
    assert_rewrap_passes_in_git(&attack);
    let why = refusal_of(attack);
    assert!(why.contains("exact byte grammar"), "{why}");
}

#[test]
fn lane_commit_with_an_extra_header() {
    for header in ["encoding utf-8", "x-instar 1", "mergetag object 00"] {
        let attack =
            text(&honest()[0]).replacen("gpgsig-sha256 ", &format!("{header}\ngpgsig-sha256 "), 1);
        let why = refusal_of(attack);
        assert!(why.contains("exact byte grammar"), "{why}");
    }
}

#[test]
fn lane_commit_with_any_byte_changed() {
    let chain = chain();
    let honest = honest()[0].bytes.clone();
    for at in 0..honest.len() {
        for flip in [1, 0x20] {
            let mut attack = honest.clone();
            attack[at] ^= flip;
            assert!(
                SignedLaneCommit::from_bytes(&attack, &chain).is_err(),
                "byte {at} changed by {flip:#x}"
            );
        }
    }
}

#[test]
fn lane_commit_with_another_author_message_or_trailer() {
    let honest = text(&honest()[0]);
    let cases = [
        (honest.replacen("author ", "author x", 1), "grammar"),
        (honest.replacen(" +0000", " +0100", 1), "author"),
        (
            honest.replacen("#1: 1 entries", "#1: 01 entries", 1),
            "grammar",
        ),
        (
            honest.replacen("#1: 1 entries", "#1: 2 entries", 1),
            "signature",
        ),
        (honest.replacen("Seq: 1", "Seq: 2", 1), "sequence number"),
        (format!("{honest}Seq: 1\n"), "grammar"),
        (format!("{honest}\n"), "grammar"),
        (honest.trim_end().to_owned(), "grammar"),
    ];
    for (attack, word) in cases {
        let why = refusal_of(attack);
        assert!(why.contains(word), "{word}: {why}");
    }
}

#[test]
fn rewrapped_commit_frames_nobody() {
    let chain = chain();
    let honest = honest();
    let commit = SignedLaneCommit::from_bytes(&honest[0].bytes, &chain).unwrap();
    let same = Evidence::of(&chain, &honest[0].bytes, &commit.to_bytes());
    assert!(matches!(same, Err(EvidenceError::SamePayload)));
    // Not even by hand, with the payload of the re-wrapped commit.
    let signed = equivocation::Signed {
        key: commit.sig.key,
        payload: String::from_utf8(commit.payload.to_bytes()).unwrap(),
        sig: commit.sig.sig,
    };
    let mut forged = Evidence {
        a: signed.clone(),
        b: signed,
    };
    assert!(matches!(
        forged.check(&chain),
        Err(EvidenceError::SamePayload)
    ));
    forged.b.payload.push('\n');
    assert!(matches!(
        forged.check(&chain),
        Err(EvidenceError::Payload(_))
    ));
}

#[test]
fn real_equivocation_is_proven_and_only_that() {
    let chain = chain();
    let one = honest();
    let entries = [transfer(&chain, 0, 1), transfer(&chain, 0, 2)];
    let two = commit_by(&chain, &key("lane", 0), lane_of(0), &entries);
    let evidence = Evidence::of(&chain, &one[0].bytes, &two[0].bytes).unwrap();
    let proven = evidence.check(&chain).unwrap();
    assert_eq!((proven.lane, proven.seq), (lane_of(0), 1));
    assert_eq!(proven.keys, [key("lane", 0).public(); 2]);
    let line = instar_attest::json::to_vec(&evidence).unwrap();
    assert!(line.len() < 8 * 1024);

    let swapped = Evidence {
        a: evidence.b.clone(),
        b: evidence.a.clone(),
    };
    assert!(matches!(swapped.check(&chain), Err(EvidenceError::Order)));
    let mut unsigned = evidence.clone();
    unsigned.b.sig = unsigned.a.sig;
    assert!(matches!(
        unsigned.check(&chain),
        Err(EvidenceError::Signature(_))
    ));
    let other = ChainId::from_bytes([9; 32]);
    assert!(matches!(
        evidence.check(&other),
        Err(EvidenceError::Payload(_))
    ));
    let elsewhere = commit_by(&chain, &key("lane", 0), lane_of(1), &entries);
    let apart = Evidence::of(&chain, &one[0].bytes, &elsewhere[0].bytes);
    assert!(matches!(apart, Err(EvidenceError::OtherPlace(..))));
}

/// Allowed: whoever carries an entry, its author said it once. The nonce is state, so the second copy only gets a
/// receipt; here the two copies show the same entry id, by which the state machine knows it.
#[test]
fn entry_copied_to_another_lane() {
    let chain = chain();
    let entry = transfer(&chain, 0, 1);
    let lanes = [0, 1].map(|i| {
        let objects = commit_by(
            &chain,
            &key("lane", i),
            lane_of(i),
            std::slice::from_ref(&entry),
        );
        import(&objects).unwrap().lane_commits.remove(0)
    });
    assert_ne!(lanes[0].lane, lanes[1].lane);
    assert_eq!(lanes[0].entries[0].id(), lanes[1].entries[0].id());
}

#[test]
fn entry_from_a_fork() {
    let fork = genesis("fork").chain_id().unwrap();
    let entry = transfer(&fork, 0, 1);
    let error = Entry::parse(entry.to_line().as_bytes(), &chain()).unwrap_err();
    assert!(matches!(error, EntryError::OtherChain { got, .. } if got == fork));
    // With the chain's id put in, the signature no longer holds.
    let renamed = entry.to_line().replace(&fork.to_hex(), &chain().to_hex());
    let error = Entry::parse(renamed.as_bytes(), &chain()).unwrap_err();
    assert!(matches!(
        error,
        EntryError::Signature(SignatureError::BadSignature)
    ));
}

#[test]
fn lane_commit_from_a_fork() {
    let fork = genesis("fork").chain_id().unwrap();
    let objects = commit_by(&fork, &key("lane", 0), lane_of(0), &[transfer(&fork, 0, 1)]);
    let why = import(&objects).unwrap_err().to_string();
    assert!(why.contains("belongs to chain"), "{why}");
}

#[test]
fn key_used_for_another_purpose() {
    let chain = chain();
    let entry = transfer(&chain, 0, 1);
    let mut net = Net::new(1);
    for purpose in ["builder", "consensus", "account"] {
        let objects = commit_by(
            &chain,
            &key(purpose, 0),
            lane_of(0),
            std::slice::from_ref(&entry),
        );
        let pack = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
        let registered = key("lane", 0).public();
        let error = net.stores[0]
            .import_pack_from(&pack, 1 << 20, |lane, key| {
                *lane == lane_of(0) && *key == registered
            })
            .unwrap_err();
        assert!(matches!(error, StoreError::NotAllowed { .. }), "{error}");
        // Nothing of it was kept, neither on disk nor in memory.
        let missing = net.stores[0].lane_commit(&objects[0].id).unwrap_err();
        assert!(matches!(missing, StoreError::NotFound { .. }));
        // Where it was taken in unasked, reading it with the registered key refuses it.
        net.stores[0].import_pack(&pack, 1 << 20).unwrap();
        let error = net.stores[0]
            .verify_lane_commit(&objects[0].id, &registered)
            .unwrap_err();
        assert!(error.to_string().contains("may not sign"), "{error}");
    }
}

/// One key, two purposes: the bytes that one purpose signs are never bytes of another.
#[test]
fn signature_of_one_purpose_offered_as_another() {
    let chain = chain();
    let key = key("account", 0);
    let block = Oid::from_bytes([7; 32]);
    let entry = transfer(&chain, 0, 1);
    let vote = vote::signed_bytes(&chain, VoteKind::Precommit, 1, 0, Some(&block));
    assert!(key.public().verify(&vote, &entry.sig).is_err());
    let prevote = vote::signed_bytes(&chain, VoteKind::Prevote, 1, 0, Some(&block));
    assert!(key.public().verify(&vote, &key.sign(&prevote)).is_err());
    let proposal = vote::proposal_bytes(&chain, 1, 0, -1, &block);
    assert!(key.public().verify(&vote, &key.sign(&proposal)).is_err());
    let sig = SshSig::sign(&key, &entry.signed_bytes());
    assert!(
        key.public()
            .verify(&entry.signed_bytes(), &sig.sig)
            .is_err()
    );
}

/// The order of the curve's prime subgroup, little endian: S + L verifies wherever S is only reduced.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn with_l_added(sig: &Signature) -> Signature {
    let mut bytes = *sig.as_bytes();
    let mut carry = 0u16;
    for (byte, l) in bytes[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    Signature::from_bytes(bytes)
}

#[test]
fn signature_with_a_non_canonical_s() {
    let chain = chain();
    let mut entry = transfer(&chain, 0, 1);
    entry.sig = with_l_added(&entry.sig);
    let error = Entry::parse(entry.to_line().as_bytes(), &chain).unwrap_err();
    assert!(matches!(error, EntryError::Signature(_)), "{error}");

    let mut certificate = certificate(&chain, 1, 0, Oid::from_bytes([7; 32]));
    certificate.signatures[1].sig = with_l_added(&certificate.signatures[1].sig);
    let set = genesis("test").validator_set().unwrap();
    let error = certificate.verify(&chain, &set).unwrap_err();
    assert!(matches!(error, CertificateError::Signature { .. }));

    let mut commit = SignedLaneCommit::from_bytes(&honest()[0].bytes, &chain).unwrap();
    commit.sig.sig = with_l_added(&commit.sig.sig);
    let error = SignedLaneCommit::from_bytes(&commit.to_bytes(), &chain).unwrap_err();
    assert!(matches!(error, GrammarError::Signature(_)), "{error}");
}

/// A key and an R with a component of small order pass a verifier that multiplies by the cofactor (ZIP-215,
/// Malachite's default), and not OpenSSH. Here a validator of small order would sign anything at all.
#[test]
fn signature_that_only_a_cofactored_verifier_accepts() {
    let chain = chain();
    let mut identity = [0u8; 32];
    identity[0] = 1;
    let mut anything = [0u8; 64];
    anything[0] = 1;
    let weak = PublicKey::from_bytes(identity);
    let signature = CommitSignature {
        sig: Signature::from_bytes(anything),
        validator: weak,
    };
    let set = ValidatorSet::new(vec![Validator {
        key: weak,
        power: 1,
    }])
    .unwrap();
    let certificate = Certificate {
        block: Oid::from_bytes([7; 32]),
        height: 1,
        round: 0,
        signatures: vec![signature],
    };
    let error = certificate.verify(&chain, &set).unwrap_err();
    assert!(
        error.to_string().contains("not a valid Ed25519 key"),
        "{error}"
    );
    // A mixed key: an honest one plus a point of order 8. Cofactored verifiers can't tell it from the honest one.
    let mixed = mixed_order_signature(b"message");
    assert!(mixed.cofactored_accepts);
    assert!(mixed.key.verify(b"message", &mixed.sig).is_err());
}

struct Mixed {
    key: PublicKey,
    sig: Signature,
    cofactored_accepts: bool,
}

/// Signs honestly, then adds a point of order 8 to R: 8·(S·B − h·A − R) is still zero if h is the same, so S is made
/// for the changed R.
fn mixed_order_signature(message: &[u8]) -> Mixed {
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT as B, EIGHT_TORSION};
    use curve25519_dalek::{EdwardsPoint, Scalar};
    use sha2::{Digest as _, Sha512};

    let signing = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
    let key = signing.verifying_key();
    let r = Scalar::from_bytes_mod_order([9; 32]);
    let point = B * r + EIGHT_TORSION[1];
    let r_bytes = point.compress().to_bytes();
    let hash = Sha512::new()
        .chain_update(r_bytes)
        .chain_update(key.as_bytes())
        .chain_update(message);
    let h = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    let s = r + h * signing.to_scalar();
    let difference = B * s - key.to_edwards() * h - point;
    Mixed {
        key: PublicKey::from_bytes(key.to_bytes()),
        sig: Signature::from_bytes([r_bytes, s.to_bytes()].concat().try_into().unwrap()),
        cofactored_accepts: difference.mul_by_cofactor() == EdwardsPoint::default(),
    }
}

#[test]
fn entry_that_is_not_canonical_json() {
    let chain = chain();
    let line = transfer(&chain, 0, 1).to_line();
    let cases = [
        line.replacen(":1,", ": 1,", 1),
        line.replacen("\"nonce\":1", "\"nonce\":1.0", 1),
        line.replacen("\"nonce\":1", "\"nonce\":1e0", 1),
        line.replacen("\"nonce\":1", "\"nonce\":9007199254740992", 1),
        line.replacen("\"nonce\":1", "\"nonce\":1,\"nonce\":1", 1),
        line.replacen("\"op\"", "\"op\":\"mint\",\"op\"", 1),
        line.replacen("transfer", "\\u0074ransfer", 1),
        line.replacen("\"nonce\":1,", "", 1),
        line.replacen("{\"author\"", "{\"admin\":true,\"author\"", 1),
        format!("{line}\n"),
        line[..line.len() - 1].to_owned(),
    ];
    for attack in cases {
        assert_ne!(attack, line);
        let error = Entry::parse(attack.as_bytes(), &chain).unwrap_err();
        assert!(matches!(error, EntryError::Json(_)), "{attack}: {error}");
    }
}

#[test]
fn entry_of_ten_megabytes() {
    let chain = chain();
    let body = json!({"x": "y".repeat(10 << 20)});
    let error = Entry::sign(&chain, &key("account", 0), 1, "coin", body).unwrap_err();
    assert!(error.to_string().contains("at most 65536"), "{error}");
    let bytes = vec![b'['; 10 << 20];
    let before = std::time::Instant::now();
    let error = Entry::parse(&bytes, &chain).unwrap_err();
    assert!(error.to_string().contains("at most 65536"), "{error}");
    assert!(
        before.elapsed().as_millis() < 100,
        "it was looked at before its size"
    );
}

#[test]
fn entry_of_deep_json() {
    let chain = chain();
    let line = transfer(&chain, 0, 1).to_line();
    for depth in [40, 10_000] {
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let attack = line.replacen("\"5\"", &deep, 1);
        assert_ne!(attack, line);
        let error = Entry::parse(attack.as_bytes(), &chain).unwrap_err();
        assert!(matches!(error, EntryError::Json(_)), "{error}");
    }
}

#[test]
fn entry_whose_body_or_topic_is_wrong() {
    let chain = chain();
    let account = key("account", 0);
    let sign = |topic: &str, body| Entry::sign(&chain, &account, 1, topic, body).unwrap_err();
    assert!(matches!(sign("coin", json!([])), EntryError::BodyNotObject));
    for topic in ["", "Coin", "1coin", "co in", "coin\n", &"c".repeat(65)] {
        assert!(
            matches!(sign(topic, json!({})), EntryError::Topic(_)),
            "{topic:?}"
        );
    }
}
