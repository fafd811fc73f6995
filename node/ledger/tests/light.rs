//! Light checking: from genesis or a checkpoint over each change of the validators to any header, and what is refused.
#![allow(clippy::unwrap_used)]

mod support;

use instar_attest::{ChainId, Digest, json};
use instar_ledger::light::{Change, Changes, Light, LightError, SignedHeader};
use instar_ledger::vote::{self, VoteKind};
use instar_ledger::*;
use support::*;

/// A set of these validators, each with a power of 1.
fn set(numbers: &[usize]) -> ValidatorSet {
    let validators = numbers.iter().map(|i| Validator {
        key: key("consensus", *i).public(),
        power: 1,
    });
    ValidatorSet::new(validators.collect()).unwrap()
}

fn certify(chain: &ChainId, height: u64, block: Oid, signers: &[usize]) -> Certificate {
    let bytes = vote::signed_bytes(chain, VoteKind::Precommit, height, 0, Some(&block));
    let mut signatures: Vec<_> = signers
        .iter()
        .map(|i| CommitSignature {
            sig: key("consensus", *i).sign(&bytes),
            validator: key("consensus", *i).public(),
        })
        .collect();
    signatures.sort_by_key(|s| s.validator);
    Certificate {
        block,
        height,
        round: 0,
        signatures,
    }
}

/// Five blocks. Block 2 names the set {2,3,4,5} for block 3, block 4 the set {4,5,6,7} for block 5.
struct Story {
    net: Net,
    first: Change,
    second: Change,
}

fn story() -> Story {
    let mut net = Net::new(1);
    let sets: [&[usize]; 5] = [
        &[0, 1, 2, 3],
        &[2, 3, 4, 5],
        &[2, 3, 4, 5],
        &[4, 5, 6, 7],
        &[4, 5, 6, 7],
    ];
    let mut signing: &[usize] = &[0, 1, 2, 3];
    for named in sets {
        let commit = net.append(0, 2);
        let mut draft = draft(&net.stores[0], &[vec![commit]]);
        draft.header.validators = set(named).digest();
        let block = net.stores[0].write_block(&draft).unwrap();
        let certificate = certify(&net.chain, draft.header.height, block, &signing[..3]);
        net.stores[0].finalize(&block, &certificate).unwrap();
        signing = named;
    }
    let change = |height, named: &[usize]| Change {
        at: net.stores[0].signed_header(height).unwrap().unwrap(),
        validators: set(named),
    };
    Story {
        first: change(2, &[2, 3, 4, 5]),
        second: change(4, &[4, 5, 6, 7]),
        net,
    }
}

impl Story {
    fn header(&self, height: u64) -> SignedHeader {
        self.net.stores[0].signed_header(height).unwrap().unwrap()
    }

    fn start(&self) -> Light {
        Light::from_genesis(&self.net.chain, self.net.stores[0].genesis()).unwrap()
    }

    fn at(&self, change: &Change) -> Light {
        let mut light = self.start();
        light.advance(&self.first).unwrap();
        if change.at.header.height > 2 {
            light.advance(change).unwrap();
        }
        light
    }
}

#[test]
fn from_genesis_to_any_header() {
    let story = story();
    for height in 1..=5 {
        let mut light = story.start();
        for change in [&story.first, &story.second] {
            if change.at.header.height < height {
                light.advance(change).unwrap();
            }
        }
        let header = story.header(height);
        let block = light.verify(&header).unwrap();
        assert_eq!(Some(block), story.net.stores[0].block_at(height));
        // The one spelling, a few kilobytes.
        let bytes = json::to_vec(&header).unwrap();
        assert!(bytes.len() < 4096, "{}", bytes.len());
        assert_eq!(SignedHeader::from_bytes(&bytes).unwrap(), header);
    }
    assert!(story.net.stores[0].signed_header(6).unwrap().is_none());
}

#[test]
fn from_a_checkpoint() {
    let story = story();
    let header = story.header(3);
    let block = story.net.stores[0].block_at(3).unwrap();
    let named = set(&[2, 3, 4, 5]);
    let mut light = Light::from_checkpoint(3, &block, &header, named.clone()).unwrap();
    assert_eq!(light.chain(), &story.net.chain);
    light.verify(&story.header(4)).unwrap();
    light.advance(&story.second).unwrap();
    light.verify(&story.header(5)).unwrap();
    // Another block, another height, another set than the block says.
    let other = story.net.stores[0].block_at(2).unwrap();
    let refused = |height, block, set| Light::from_checkpoint(height, block, &header, set);
    assert!(matches!(
        refused(3, &other, named.clone()),
        Err(LightError::OtherBlock { .. })
    ));
    assert!(matches!(
        refused(2, &block, named),
        Err(LightError::OtherHeight { .. })
    ));
    assert!(matches!(
        refused(3, &block, set(&[0, 1, 2, 3])),
        Err(LightError::OtherSet(3))
    ));
}

#[test]
fn a_change_that_is_left_out() {
    let story = story();
    let mut light = story.start();
    let error = light.verify(&story.header(5)).unwrap_err();
    assert!(
        matches!(
            error,
            LightError::Certificate {
                height: 5,
                source: CertificateError::NotAValidator(_)
            }
        ),
        "{error}"
    );
    assert!(light.advance(&story.second).is_err());
    light.advance(&story.first).unwrap();
    assert!(light.verify(&story.header(5)).is_err());
}

#[test]
fn keys_of_an_old_set() {
    let story = story();
    let light = story.at(&story.second);
    // The old validators sign another block of height 5: their keys may have been bought.
    let mut forged = story.header(5);
    forged.header.state_root = Digest::of(b"rich");
    let block = forged.block().unwrap();
    forged.certificate = certify(&story.net.chain, 5, block, &[2, 3, 4]);
    let error = light.verify(&forged).unwrap_err();
    assert!(
        matches!(error, LightError::Certificate { height: 5, .. }),
        "{error}"
    );
    // And what lies below what is known is not asked about at all.
    let error = light.verify(&story.header(3)).unwrap_err();
    assert!(
        matches!(error, LightError::TooLow { known: 4, got: 3 }),
        "{error}"
    );
    // The trusted block itself is known, and is no news.
    assert_eq!(light.verify(&story.second.at).unwrap(), *light.block());
    let mut light = light;
    assert!(light.advance(&story.second).is_err());
    let error = light.advance(&story.first).unwrap_err();
    assert!(matches!(error, LightError::TooLow { .. }), "{error}");
}

#[test]
fn a_header_with_anything_changed() {
    let story = story();
    let light = story.start();
    let honest = story.header(1);
    light.verify(&honest).unwrap();
    let other = Oid::from_bytes([7; 32]);
    let changes: [fn(&mut SignedHeader); 10] = [
        |h| h.header.state_root = Digest::of(b"x"),
        |h| h.header.validators = Digest::of(b"x"),
        |h| h.header.time_ms += 1000,
        |h| h.header.time_ms += 1,
        |h| h.header.lanes.clear(),
        |h| h.entries += 1,
        |h| h.receipts = Oid::from_bytes([7; 32]),
        |h| h.previous = Some(Oid::from_bytes([7; 32])),
        |h| h.header.protocol += 1,
        |h| h.header.dapps.clear(),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut bad = honest.clone();
        change(&mut bad);
        let error = light.verify(&bad).unwrap_err();
        assert!(
            matches!(error, LightError::OtherBlock { .. }),
            "{i}: {error}"
        );
    }
    let mut bad = honest.clone();
    bad.certificate.height = 2;
    assert!(matches!(
        light.verify(&bad),
        Err(LightError::OtherHeight { .. })
    ));
    let mut bad = honest.clone();
    bad.certificate.block = other;
    assert!(matches!(
        light.verify(&bad),
        Err(LightError::OtherBlock { .. })
    ));
    let mut bad = honest.clone();
    bad.header.chain = ChainId::from_bytes([1; 32]);
    assert!(matches!(
        light.verify(&bad),
        Err(LightError::OtherChain { .. })
    ));
    let mut bad = honest.clone();
    bad.certificate.signatures.pop();
    assert!(matches!(
        light.verify(&bad),
        Err(LightError::Certificate { .. })
    ));
}

#[test]
fn a_set_that_the_header_does_not_name() {
    let story = story();
    let mut light = story.start();
    let mut change = story.first.clone();
    change.validators = set(&[0, 1, 2, 3, 4]);
    assert!(matches!(
        light.advance(&change),
        Err(LightError::OtherSet(2))
    ));
    let other = ChainId::from_bytes([3; 32]);
    let genesis = story.net.stores[0].genesis();
    assert!(matches!(
        Light::from_genesis(&other, genesis),
        Err(LightError::OtherGenesis { .. })
    ));
}

#[test]
fn answers_have_one_spelling() {
    let story = story();
    let answer = Changes {
        changes: vec![story.first.clone(), story.second.clone()],
        more: false,
    };
    let bytes = json::to_vec(&answer).unwrap();
    assert_eq!(Changes::from_bytes(&bytes).unwrap(), answer);
    let spaced = [bytes.as_slice(), b" "].concat();
    assert!(Changes::from_bytes(&spaced).is_err());
    let text = String::from_utf8(bytes).unwrap();
    let unknown = text.replacen("\"more\":", "\"a\":1,\"more\":", 1);
    assert!(Changes::from_bytes(unknown.as_bytes()).is_err());
}
