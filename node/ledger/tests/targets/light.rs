//! Any bytes as what a follower is answered with: a header with its certificate, changes of the validator set, a signed
//! head. What is accepted is written as it came, and nobody's word moves a light checker but its validators'.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use instar_attest::{Digest, json};
use instar_ledger::Genesis;
use instar_ledger::freshness::{Freshness, MAX_SIGNED_HEAD_BYTES, SignedHead, weigh};
use instar_ledger::light::{Changes, Light, SignedHeader};

/// A light checker at the beginning of the vectors' chain.
static START: LazyLock<Light> = LazyLock::new(|| {
    let genesis = Genesis::from_bytes(include_bytes!("../vectors/genesis.json")).unwrap();
    Light::from_genesis(&genesis.chain_id().unwrap(), &genesis).unwrap()
});

/// Fails where a light checker goes anywhere without certificates. Says whether one of the decoders accepted the bytes.
pub fn run(data: &[u8]) -> bool {
    let start = &*START;
    let mut accepted = false;
    if let Ok(header) = SignedHeader::from_bytes(data) {
        accepted = true;
        assert_eq!(json::to_vec(&header).unwrap(), data);
        signed(start, &header);
    }
    if let Ok(changes) = Changes::from_bytes(data) {
        accepted = true;
        assert_eq!(json::to_vec(&changes).unwrap(), data);
        let mut light = start.clone();
        for change in &changes.changes {
            let before = light.clone();
            signed(&light, &change.at);
            match light.advance(change) {
                Ok(()) => {
                    assert!(before.verify(&change.at).is_ok());
                    assert!(light.height() > before.height());
                    assert_eq!(*light.block(), change.at.certificate.block);
                    assert_eq!(light.validators().digest(), change.at.header.validators);
                }
                Err(_) => assert_eq!(light, before),
            }
            // Whoever vouches for the block's id gets there too, if header and set are the block's.
            let (header, set) = (&change.at, &change.validators);
            let Ok(block) = header.block() else { continue };
            let trusted = Light::from_checkpoint(header.header.height, &block, header, set.clone());
            assert_eq!(trusted.is_ok(), set.digest() == header.header.validators);
        }
    }
    if let Ok(head) = json::from_slice::<SignedHead>(data, MAX_SIGNED_HEAD_BYTES) {
        accepted = true;
        assert_eq!(json::to_vec(&head).unwrap(), data);
        let own = start.block();
        assert!(head.verify(start.chain(), &Digest::of(b"a nonce")).is_err());
        // One of four equal validators is no third of the power, however often it says so.
        let answers = vec![head; 3];
        let weighed = weigh(start.validators(), 0, own, &answers);
        assert!(matches!(weighed, Freshness::Unknown { power: 0..=1, .. }));
    }
    accepted
}

/// A header is of the block that its certificate names, or is refused; and so it is without enough signatures.
fn signed(light: &Light, header: &SignedHeader) {
    if let Ok(block) = light.verify(header) {
        assert_eq!(block, header.certificate.block);
        assert_eq!(block, header.block().unwrap());
        assert_eq!(header.header.height, header.certificate.height);
        let (chain, set) = (light.chain(), light.validators());
        assert!(header.certificate.verify(chain, set).is_ok());
    }
}
