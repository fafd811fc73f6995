//! Signatures that some verifiers accept and ours, OpenSSH's and OpenSSL's do not.

#![allow(clippy::unwrap_used)]

mod common;

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT as B, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use curve25519_dalek::traits::IsIdentity as _;
use instar_attest::bundle::Bundle;
use instar_attest::check::{Expected, check_attestation};
use instar_attest::dsse::pae;
use instar_attest::key::SignatureError;
use instar_attest::statement::PAYLOAD_TYPE;
use instar_attest::{PublicKey, Signature};
use sha2::{Digest as _, Sha512};

/// The order of the group, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn hash(parts: [&[u8]; 3]) -> Scalar {
    let mut hash = Sha512::new();
    parts.iter().for_each(|p| hash.update(p));
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

/// ZIP-215: the cofactored equation `[8](sB - R - kA) = 0`, any encoding of the points.
fn zip215_accepts(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let (r, s) = signature.as_bytes().split_at(32);
    let r: [u8; 32] = r.try_into().unwrap();
    let s: Option<Scalar> = Scalar::from_canonical_bytes(s.try_into().unwrap()).into();
    let points = [r, *key.as_bytes()].map(|p| CompressedEdwardsY(p).decompress());
    let (Some(s), [Some(point_r), Some(a)]) = (s, points) else {
        return false;
    };
    let k = hash([&r, key.as_bytes(), message]);
    (B * s - point_r - a * k).mul_by_cofactor().is_identity()
}

/// Signs with a point of order eight added to `R`.
fn sign_with_torsion(seed: &[u8; 32], message: &[u8]) -> Signature {
    let expanded: [u8; 64] = Sha512::digest(seed).into();
    let secret = Scalar::from_bytes_mod_order(clamp_integer(expanded[..32].try_into().unwrap()));
    let public: EdwardsPoint = B * secret;
    let nonce = hash([&expanded[32..], b"", message]);
    let r = (B * nonce + EIGHT_TORSION[1]).compress();
    let k = hash([r.as_bytes(), public.compress().as_bytes(), message]);
    let s = nonce + k * secret;
    Signature::from_bytes([*r.as_bytes(), s.to_bytes()].concat().try_into().unwrap())
}

#[test]
fn a_signature_that_only_a_lax_verifier_accepts() {
    let key = common::builder(0);
    let message = b"any bytes";
    let honest = key.sign(message);
    assert!(zip215_accepts(&key.public(), message, &honest));
    assert!(!zip215_accepts(&key.public(), b"others", &honest));

    let lax = sign_with_torsion(&key.expose_seed(), message);
    assert!(zip215_accepts(&key.public(), message, &lax));
    assert_eq!(
        key.public().verify(message, &lax),
        Err(SignatureError::BadSignature)
    );
}

#[test]
fn an_attestation_whose_signature_only_a_lax_verifier_accepts() {
    let key = common::builder(0);
    let mut bundle = Bundle::parse(&common::bundle(0)).unwrap();
    let message = pae(PAYLOAD_TYPE, &bundle.envelope.payload.0);
    let lax = sign_with_torsion(&key.expose_seed(), &message);
    assert!(zip215_accepts(&key.public(), &message, &lax));
    bundle.envelope.signatures[0].sig.0 = lax.as_bytes().to_vec();
    let expected = Expected {
        builder: &key.public(),
        chain: &common::chain(),
        round: &common::round(),
        slot: &"dapps/coin".parse().unwrap(),
        number: 2,
        name: &"coin".parse().unwrap(),
        source: &common::source(),
        targets: &[common::TARGET.parse().unwrap()],
        files: &common::files(),
        sbom: &common::sbom(),
        recipes: &["cargo-vendored-v1".parse().unwrap()],
        registered: &[],
    };
    let refusal = check_attestation(&bundle.to_bytes().unwrap(), &expected).unwrap_err();
    assert_eq!(refusal.rule(), "attestation-signature");
}

#[test]
fn a_key_of_small_order_signs_nothing() {
    for point in EIGHT_TORSION {
        let key = PublicKey::from_bytes(point.compress().to_bytes());
        // R = identity, S = 0: the cofactored equation holds for any message.
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let signature = Signature::from_bytes(bytes);
        assert!(zip215_accepts(&key, b"any bytes", &signature));
        assert_eq!(
            key.verify(b"any bytes", &signature),
            Err(SignatureError::BadKey)
        );
    }
}

/// Adds the group's order to `S`: the same number, written a second way.
fn not_reduced(signature: &Signature) -> Signature {
    let mut bytes = *signature.as_bytes();
    let mut carry = 0;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    Signature::from_bytes(bytes)
}

#[test]
fn a_signature_whose_s_is_not_reduced() {
    let key = common::builder(0);
    let signature = not_reduced(&key.sign(b"any bytes"));
    assert_eq!(
        key.public().verify(b"any bytes", &signature),
        Err(SignatureError::BadSignature)
    );
}

#[test]
fn vectors() {
    let key = common::builder(0);
    let message = b"instar";
    let honest = key.sign(message);
    let mut changed = *honest.as_bytes();
    changed[63] ^= 0x10;
    let mut forged = [0; 64];
    forged[0] = 1;
    let identity = EIGHT_TORSION[0].compress().to_bytes();
    let cases = [
        ("an honest signature", key.public(), honest, true),
        (
            "one bit changed",
            key.public(),
            Signature::from_bytes(changed),
            false,
        ),
        (
            "R with a part of small order: valid under ZIP-215 only",
            key.public(),
            sign_with_torsion(&key.expose_seed(), message),
            false,
        ),
        ("S not reduced", key.public(), not_reduced(&honest), false),
        (
            "the key is the identity: valid under ZIP-215 only",
            PublicKey::from_bytes(identity),
            Signature::from_bytes(forged),
            false,
        ),
    ];
    let cases = cases.map(|(name, public, signature, accept)| {
        serde_json::json!({
            "name": name,
            "public": public,
            "message": hex::encode(message),
            "signature": signature,
            "accept": accept,
            "zip215": zip215_accepts(&public, message, &signature),
        })
    });
    common::golden("ed25519.json", &serde_json::json!(cases));
}
