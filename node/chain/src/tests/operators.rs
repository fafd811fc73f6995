//! What operators and builders of the small world say on the way to a release.

use instar_attest::bundle::Bundle;
use instar_attest::release::{Activation, FileReveal, commitment, target_digest};
use instar_attest::statement::{Build, Statement};
use instar_attest::{Digest, SecretKey};

use super::world::*;
use crate::build;
use crate::ops::{
    self, BuildOp, Commit, Open, Propose, Reveal, TargetCommitment, TargetReveal, UpgradeOp,
};

impl World {
    pub fn open_op(slot: &str, number: u64) -> Open {
        Open {
            activation: if slot == "node" {
                Activation::Rolling
            } else {
                Activation::Dapp
            },
            name: if slot == "node" { "instar" } else { "coin" }
                .parse()
                .unwrap(),
            number,
            protocol: 1,
            slot: slot.parse().unwrap(),
            source: source(number),
            targets: vec![target()],
        }
    }

    /// Opens a round; its id.
    pub fn open(&mut self, slot: &str, number: u64) -> Digest {
        let key = self.developer.clone();
        let op = BuildOp::Open(Self::open_op(slot, number));
        let id = self.say(0, &key, ops::BUILD, op.to_value());
        self.block();
        self.applied(&id);
        id
    }

    pub fn commit_op(&self, node: usize, round: &Digest, content: &[u8]) -> BuildOp {
        let digest = target_digest(&self.files(round, content));
        let commitments = vec![TargetCommitment {
            digest: commitment(
                &self.nodes[node].builder.public(),
                &self.chain,
                &digest,
                &nonce(node),
                round,
                &target(),
            ),
            target: target(),
        }];
        BuildOp::Commit(Commit {
            commitments,
            round: *round,
        })
    }

    pub fn reveal_op(&self, node: usize, round: &Digest, content: &[u8]) -> Reveal {
        let files = self.files(round, content);
        let bundle = self.bundle(&self.nodes[node].builder, round, &files);
        Reveal {
            bundle,
            reveals: vec![TargetReveal {
                files,
                nonce: nonce(node),
                target: target(),
            }],
            round: *round,
            sbom: sbom(),
        }
    }

    fn files(&self, round: &Digest, content: &[u8]) -> Vec<FileReveal> {
        let path = match self.round(round).slot.as_str() {
            "node" => "instar",
            _ => "rootfs/bin/coin",
        };
        vec![file(path, content)]
    }

    /// An attestation by any key, as a builder makes it.
    pub fn bundle(&self, key: &SecretKey, round: &Digest, files: &[FileReveal]) -> String {
        let state = self.round(round);
        let build = Build {
            builder: key.public(),
            cargo_lock: Digest::of(b"Cargo.lock"),
            chain: self.chain,
            name: state.name,
            number: state.number,
            recipe: "cargo".parse().unwrap(),
            round: *round,
            slot: state.slot,
            source: state.source,
            targets: vec![target()],
            toolchain: Digest::of(b"toolchain"),
            vendor: Digest::of(b"vendor"),
        };
        let statement = Statement::new(build, files, &sbom()).unwrap();
        let bundle = Bundle::sign(key, &statement).unwrap();
        String::from_utf8(bundle.to_bytes().unwrap()).unwrap()
    }

    /// Each of these nodes builds this; all commit, then all reveal.
    pub fn build_all(&mut self, round: &Digest, builds: &[(usize, &[u8])]) {
        let mut said = Vec::new();
        for (node, content) in builds {
            let op = self.commit_op(*node, round, content);
            said.push(self.build(*node, &op));
        }
        self.block();
        while self.round(round).phase == build::RoundPhase::Commit {
            self.block();
        }
        for (node, content) in builds {
            let op = BuildOp::Reveal(self.reveal_op(*node, round, content));
            said.push(self.build(*node, &op));
        }
        self.block();
        said.iter().for_each(|id| self.applied(id));
    }

    /// A round on which all four agree; its id.
    pub fn agreed(&mut self, slot: &str, number: u64) -> Digest {
        let round = self.open(slot, number);
        let content = format!("{slot} {number}").into_bytes();
        let builds: Vec<(usize, &[u8])> = (0..4).map(|n| (n, content.as_slice())).collect();
        self.build_all(&round, &builds);
        assert_eq!(self.round(&round).phase, build::RoundPhase::Agreed);
        round
    }

    pub fn propose_op(&self, round: &Digest) -> UpgradeOp {
        let state = self.round(round);
        UpgradeOp::Propose(Propose {
            release: state.release.or(state.would_be).unwrap(),
            round: *round,
        })
    }

    /// Proposes what a round came to; the proposal's id.
    pub fn propose(&mut self, round: &Digest) -> Digest {
        let op = self.propose_op(round);
        let key = self.developer.clone();
        let id = self.say(0, &key, ops::UPGRADE, op.to_value());
        self.block();
        id
    }
}
