//! The whole way with the upgrade module on four nodes: each decides from the ledger and from what it knows itself.

use std::collections::BTreeMap;

use instar_attest::Digest;

use super::world::*;
use crate::fake::{Behaviour, FakeHost};
use crate::module::{Action, AutoVote, LocalFacts, Me, Rehearsed, Staging, UpgradeView, decide};
use crate::ops::{Ballot, Health, UpgradeOp};
use crate::upgrade::Phase;
use crate::{MemoryState, apply_block, rehearsal};

/// Four nodes that do what their modules say.
struct Fleet {
    w: World,
    facts: Vec<LocalFacts>,
    hosts: Vec<FakeHost>,
    /// Node releases that don't live on a node.
    sick: Vec<(usize, String)>,
    /// Nodes that are down.
    down: Vec<usize>,
    swaps: Vec<(usize, u64, String)>,
}

impl Fleet {
    fn new(w: World) -> Self {
        let facts = LocalFacts {
            healthy: true,
            running: Some("genesis".into()),
            supervised: true,
            ..LocalFacts::default()
        };
        Self {
            facts: vec![facts; w.nodes.len()],
            hosts: (0..w.nodes.len() as u64).map(FakeHost::of_node).collect(),
            sick: Vec::new(),
            down: Vec::new(),
            swaps: Vec::new(),
            w,
        }
    }

    fn me(&self, node: usize) -> Me {
        Me {
            account: self.w.nodes[node].account.public(),
            name: self.w.nodes[node].name.clone(),
        }
    }

    fn decide(&self, node: usize) -> Vec<Action> {
        let view = UpgradeView::read(&self.w.state).unwrap();
        decide(&view, &self.me(node), &self.facts[node])
    }

    /// Every node decides and does; then the chain makes a block of what was said.
    fn step(&mut self) {
        for node in 0..self.facts.len() {
            if self.down.contains(&node) {
                continue;
            }
            for action in self.decide(node) {
                self.act(node, action);
            }
            let pending = &self.facts[node].pending;
            let again: Vec<_> = self.decide(node).iter().filter_map(Action::to_op).collect();
            assert!(
                again.iter().all(|op| !pending.contains(op)),
                "said twice: {again:?}"
            );
        }
        self.w.block();
        // All that was pending is merged now.
        self.facts.iter_mut().for_each(|f| f.pending.clear());
    }

    fn act(&mut self, node: usize, action: Action) {
        if let Some(op) = action.to_op() {
            self.w.upgrade(node, &op);
            self.facts[node].pending.push(op);
        }
        match action {
            Action::Stage { release, .. } => {
                self.facts[node].staged.insert(release, Staging::Verified);
            }
            Action::Rehearse {
                blocks,
                from,
                proposal,
                release,
                slot,
            } => {
                let outcome = self.rehearse(node, from, blocks, &slot, &release);
                self.facts[node]
                    .rehearsals
                    .insert((proposal, from), outcome);
            }
            Action::Swap {
                generation,
                release,
                ..
            } => {
                let facts = &mut self.facts[node];
                assert!(
                    facts.swapping.is_none_or(|g| g < generation),
                    "an older generation"
                );
                facts.swapping = Some(generation);
                if self.sick.contains(&(node, release.clone())) {
                    facts
                        .reverted
                        .insert(release.clone(), "no health in time".into());
                } else {
                    facts.running = Some(release.clone());
                }
                self.swaps.push((node, self.w.height(), release));
            }
            Action::Keep { generation, .. } => self.facts[node].kept = Some(generation),
            Action::Vote(_) | Action::Ready(_) | Action::Report(_) => {}
        }
    }

    fn rehearse(
        &mut self,
        node: usize,
        from: u64,
        blocks: u64,
        slot: &str,
        release: &str,
    ) -> Rehearsed {
        let w = &self.w;
        let host = &mut self.hosts[node];
        let mut fork: MemoryState = w.states[from as usize].clone();
        match rehearsal::replace(&fork, slot, release, from, host) {
            Ok(writes) => fork.apply(&writes),
            Err(error) => return Rehearsed::Failed(error.to_string()),
        }
        for made in &w.made[from as usize..(from + blocks) as usize] {
            let output = apply_block(&fork, &made.input(w), host).unwrap();
            fork.apply(&output.writes);
        }
        let all: BTreeMap<_, _> = fork.iter().map(|(k, v)| (k, v.to_vec())).collect();
        Rehearsed::Root(Digest::of(format!("{all:?}").as_bytes()))
    }

    /// Steps until a proposal is in one of these phases.
    #[track_caller]
    fn until(&mut self, proposal: &Digest, phases: &[Phase]) {
        for _ in 0..60 {
            if phases.contains(&self.w.proposal(proposal).phase) {
                return;
            }
            self.step();
        }
        panic!("{:?}", self.w.proposal(proposal));
    }
}

#[test]
fn a_dapp_goes_live_without_anybody_coordinating() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    let mut fleet = Fleet::new(w);
    fleet.until(&proposal, &[Phase::Activated, Phase::Refused]);
    let state = fleet.w.proposal(&proposal);
    assert_eq!(state.phase, Phase::Activated, "{state:?}");
    assert_eq!(state.votes.len(), 4);
    assert!(
        state
            .votes
            .values()
            .all(|v| v.vote == Ballot::Yes && v.rebuilt.is_some())
    );
    assert_eq!(state.ready.len(), 4);
    assert_eq!(fleet.w.slot("dapps/coin").number, 2);
    assert!(
        (0..4).all(|node| fleet.decide(node).is_empty()),
        "nothing is left to do"
    );
}

#[test]
fn a_dapp_that_differs_from_node_to_node_is_caught_by_the_rehearsal() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    let release = w.proposal(&proposal).release.to_string();
    let mut fleet = Fleet::new(w);
    for host in &mut fleet.hosts {
        host.behave(release.clone(), Behaviour::Differs);
    }
    fleet.until(&proposal, &[Phase::Activated, Phase::Refused]);
    let state = fleet.w.proposal(&proposal);
    assert_eq!(state.rule.as_deref(), Some("rehearsal-roots-differ"));
    assert_eq!(fleet.w.slot("dapps/coin").number, 1);
}

#[test]
fn a_dapp_that_can_not_migrate_is_caught_by_the_rehearsal() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    let release = w.proposal(&proposal).release.to_string();
    let mut fleet = Fleet::new(w);
    for host in &mut fleet.hosts {
        host.behave(release.clone(), Behaviour::MigrationCrashes);
    }
    fleet.until(&proposal, &[Phase::Activated, Phase::Refused]);
    assert_eq!(
        fleet.w.proposal(&proposal).rule.as_deref(),
        Some("rehearsal-failed")
    );
}

#[test]
fn the_node_rolls_out_one_after_the_other() {
    let mut w = World::new();
    let round = w.agreed("node", 1);
    let proposal = w.propose(&round);
    let mut fleet = Fleet::new(w);
    fleet.until(
        &proposal,
        &[Phase::Activated, Phase::Refused, Phase::Halted],
    );
    let state = fleet.w.proposal(&proposal);
    assert_eq!(state.phase, Phase::Activated, "{state:?}");
    let release = state.release.to_string();
    assert!(
        fleet
            .facts
            .iter()
            .all(|f| f.running.as_ref() == Some(&release))
    );
    let heights: Vec<u64> = fleet.swaps.iter().map(|(_, height, _)| *height).collect();
    assert_eq!(heights.len(), 4, "each swaps once");
    assert!(
        heights.windows(2).all(|h| h[0] < h[1]),
        "never two at once: {heights:?}"
    );
    fleet.step();
    assert!(
        fleet.facts.iter().all(|f| f.kept.is_some()),
        "probation is over for all"
    );
    assert!((0..4).all(|node| fleet.decide(node).is_empty()));
}

#[test]
fn reverts_halt_the_rollout_and_the_rest_keeps_the_old_release() {
    let mut w = World::new();
    let round = w.agreed("node", 1);
    let proposal = w.propose(&round);
    let release = w.proposal(&proposal).release.to_string();
    let mut fleet = Fleet::new(w);
    fleet.sick = (0..4).map(|node| (node, release.clone())).collect();
    fleet.until(
        &proposal,
        &[Phase::Activated, Phase::Refused, Phase::Halted],
    );
    let state = fleet.w.proposal(&proposal);
    assert_eq!(
        (state.phase, state.rule.as_deref()),
        (Phase::Halted, Some("reverted"))
    );
    assert_eq!(fleet.swaps.len(), 2, "the other two were spared");
    fleet.step();
    assert_eq!(fleet.swaps.len(), 2);
}

#[test]
fn a_node_that_was_away_catches_up() {
    let mut w = World::new();
    let round = w.agreed("node", 1);
    let proposal = w.propose(&round);
    let mut fleet = Fleet::new(w);
    fleet.down = vec![2];
    fleet.w.signing[2] = false;
    fleet.until(
        &proposal,
        &[Phase::Activated, Phase::Refused, Phase::Halted],
    );
    assert_eq!(fleet.w.proposal(&proposal).phase, Phase::Activated);
    assert_eq!(fleet.facts[2].running.as_deref(), Some("genesis"));
    fleet.down.clear();
    for _ in 0..3 {
        fleet.step();
    }
    let release = fleet.w.slot("node").release;
    assert_eq!(fleet.facts[2].running, release);
}

#[test]
fn no_vote_without_a_matching_build_of_its_own() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    w.build_all(
        &round,
        &[(0, b"good"), (1, b"good"), (2, b"good"), (3, b"gooe")],
    );
    let proposal = w.propose(&round);
    let mut fleet = Fleet::new(w);
    fleet.facts[3].auto_vote = AutoVote::Attested;
    fleet.until(&proposal, &[Phase::Activated]);
    let votes = fleet.w.proposal(&proposal).votes;
    assert_eq!(votes.len(), 3);
    assert!(
        !votes.contains_key("dan"),
        "one byte of dan's build was flipped"
    );
}

#[test]
fn who_was_not_asked_to_build_votes_only_where_its_operator_wants_it() {
    let mut rules = policy();
    rules.node.builders = 1;
    rules.node.builder_names = Some(vec!["ann".into()]);
    let mut w = World::with(rules, |_| {});
    let round = w.open("node", 1);
    w.build_all(&round, &[(0, b"node")]);
    let proposal = w.propose(&round);
    let mut fleet = Fleet::new(w);
    for _ in 0..4 {
        fleet.step();
    }
    assert_eq!(
        fleet.w.proposal(&proposal).votes.len(),
        1,
        "only ann built it"
    );
    fleet
        .facts
        .iter_mut()
        .for_each(|f| f.auto_vote = AutoVote::Attested);
    fleet.until(&proposal, &[Phase::Activated]);
    assert_eq!(fleet.w.proposal(&proposal).votes.len(), 4);
}

#[test]
fn verification_comes_before_the_vote_and_decides_readiness() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    let release = w.proposal(&proposal).release.to_string();
    let mut fleet = Fleet::new(w);
    let bad = Staging::Failed("file 1 has another sha256".into());
    fleet.facts[0].staged.insert(release.clone(), bad);
    fleet.facts[1].staged.insert(release, Staging::Running);
    for _ in 0..3 {
        fleet.step();
    }
    let votes = fleet.w.proposal(&proposal).votes;
    assert_eq!(votes.keys().collect::<Vec<_>>(), ["cleo", "dan"]);
}

#[test]
fn a_restart_in_the_middle_does_nothing_twice() {
    let mut w = World::new();
    let round = w.agreed("node", 1);
    let proposal = w.propose(&round);
    let mut fleet = Fleet::new(w);
    for step in 0..60 {
        fleet.step();
        // Every other block all nodes forget what is not on disk: what they fetched and run is, what they thought of
        // is not.
        for facts in fleet.facts.iter_mut().filter(|_| step % 2 == 1) {
            facts.rehearsals.clear();
            facts.swapping = None;
        }
        if fleet.w.proposal(&proposal).phase == Phase::Activated {
            break;
        }
    }
    let refused: Vec<_> = fleet
        .w
        .receipts
        .values()
        .filter(|r| r.rule.is_some())
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(fleet.swaps.len(), 4);
    assert_eq!(fleet.w.proposal(&proposal).phase, Phase::Activated);
}

#[test]
fn a_held_node_does_not_swap() {
    let mut w = World::new();
    let round = w.agreed("node", 1);
    let proposal = w.propose(&round);
    let mut fleet = Fleet::new(w);
    fleet.facts[1].hold = true;
    fleet.until(&proposal, &[Phase::Activated]);
    for _ in 0..3 {
        fleet.step();
    }
    assert_eq!(fleet.facts[1].running.as_deref(), Some("genesis"));
    assert!(fleet.swaps.iter().all(|(node, ..)| *node != 1));
    let healthy = |f: &LocalFacts| {
        f.pending
            .iter()
            .any(|op| matches!(op, UpgradeOp::Report(r) if r.result == Health::Healthy))
    };
    assert!(!fleet.facts.iter().any(healthy));
}
