//! Certificates that certify nothing, each named after what is wrong with it.
#![allow(clippy::unwrap_used)]

mod support;

use instar_attest::ChainId;
use instar_ledger::*;
use support::*;

fn chain() -> ChainId {
    genesis("test").chain_id().unwrap()
}

#[test]
fn vote_from_a_fork() {
    let fork = genesis("fork").chain_id().unwrap();
    let set = genesis("test").validator_set().unwrap();
    let certificate = certificate(&fork, 1, 0, Oid::from_bytes([7; 32]));
    certificate.verify(&fork, &set).unwrap();
    let error = certificate.verify(&chain(), &set).unwrap_err();
    assert!(matches!(error, CertificateError::Signature { .. }));
}

#[test]
fn certificate_with_a_duplicate_signer() {
    let (chain, set) = (chain(), genesis("test").validator_set().unwrap());
    let mut certificate = certificate(&chain, 1, 0, Oid::from_bytes([7; 32]));
    certificate.signatures[2] = certificate.signatures[1];
    let error = certificate.verify(&chain, &set).unwrap_err();
    assert!(matches!(error, CertificateError::Order(_)));
}

#[test]
fn certificate_with_unsorted_signers() {
    let (chain, set) = (chain(), genesis("test").validator_set().unwrap());
    let mut certificate = certificate(&chain, 1, 0, Oid::from_bytes([7; 32]));
    certificate.signatures.swap(0, 1);
    let error = certificate.verify(&chain, &set).unwrap_err();
    assert!(matches!(error, CertificateError::Order(_)));
}

#[test]
fn certificate_below_the_power() {
    let (chain, set) = (chain(), genesis("test").validator_set().unwrap());
    let mut certificate = certificate(&chain, 1, 0, Oid::from_bytes([7; 32]));
    certificate.verify(&chain, &set).unwrap();
    certificate.signatures.pop();
    let error = certificate.verify(&chain, &set).unwrap_err();
    assert!(matches!(
        error,
        CertificateError::Power {
            signed: 2,
            total: 4
        }
    ));
    // Exactly two thirds is not more than two thirds.
    let three: Vec<_> = set.iter().take(3).copied().collect();
    let three = ValidatorSet::new(three).unwrap();
    assert!(!three.is_quorum(2) && three.is_quorum(3));
}

#[test]
fn certificate_of_another_height_round_or_block() {
    let (chain, set) = (chain(), genesis("test").validator_set().unwrap());
    let honest = certificate(&chain, 1, 0, Oid::from_bytes([7; 32]));
    let changes: [fn(&mut Certificate); 3] = [
        |c| c.height = 2,
        |c| c.round = 1,
        |c| c.block = Oid::from_bytes([8; 32]),
    ];
    for change in changes {
        let mut forged = honest.clone();
        change(&mut forged);
        let error = forged.verify(&chain, &set).unwrap_err();
        assert!(matches!(error, CertificateError::Signature { .. }));
    }
}

#[test]
fn certificate_of_another_validator_set() {
    let chain = chain();
    let others: Vec<_> = (4..8)
        .map(|i| Validator {
            key: key("consensus", i).public(),
            power: 1,
        })
        .collect();
    let set = ValidatorSet::new(others).unwrap();
    let error = certificate(&chain, 1, 0, Oid::from_bytes([7; 32]))
        .verify(&chain, &set)
        .unwrap_err();
    assert!(matches!(error, CertificateError::NotAValidator(_)));
}
