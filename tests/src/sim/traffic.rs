//! What goes between the nodes, and what comes to them from outside: messages, lanes, entries, faults.

use std::sync::Arc;

use instar_consensus::bare::{Bare, Output};
use instar_ledger::Entry;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::Broken;
use super::check::Violation;
use super::disk::lock;
use super::lanes::LaneNews;
use super::plan::Fault;
use super::run::{Event, Packet, Sim, TICK_MS};
use super::world::{DAPP, VALIDATORS, World};

impl Sim {
    pub(super) fn output(&mut self, node: usize, output: Output) -> Result<(), Violation> {
        match output {
            Output::Publish(channel, bytes) => {
                self.checker.sent(channel, &bytes)?;
                let host = self.nodes[node].bare.as_mut();
                let host = host.and_then(Bare::host_mut);
                let sent = match (self.liars.get_mut(&node), host) {
                    (Some(liar), Some(host)) => liar.publish(channel, &bytes, host, &mut self.rng),
                    _ => (0..VALIDATORS)
                        .filter(|to| *to != node)
                        .map(|to| (to, channel, bytes.clone()))
                        .collect(),
                };
                for (to, channel, bytes) in sent {
                    self.send(node, to, Packet::Consensus(channel, bytes));
                }
            }
            Output::Send(to, channel, bytes) => {
                self.send(node, to as usize, Packet::Consensus(channel, bytes));
            }
            Output::Timer(timer, after) => {
                let at = self.now + after.as_millis() as u64;
                let boot = self.nodes[node].boot;
                self.at(at, Event::Timer(node, boot, timer));
            }
            Output::Event(event) => {
                match &event {
                    instar_consensus::Event::Round { round, .. } if *round > 0 => {
                        self.summary.late_rounds += 1;
                    }
                    instar_consensus::Event::Following { .. } => self.summary.followed += 1,
                    _ => {}
                }
                self.note(|| format!("node {node}: {event:?}"));
            }
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        let healed = self.healed_at.is_some();
        let percent = |rng: &mut ChaCha8Rng, of: u32| !healed && rng.random_ratio(of, 100);
        if percent(&mut self.rng, self.plan.loss) {
            return;
        }
        let copies = 1 + u64::from(percent(&mut self.rng, self.plan.twice));
        for _ in 0..copies {
            let delay = match percent(&mut self.rng, self.plan.slow) {
                true => self.rng.random_range(0..1_000),
                false if healed => self.rng.random_range(1..=10),
                false => self.rng.random_range(1..=self.plan.delay_ms),
            };
            self.at(self.now + delay, Event::Deliver(from, to, packet.clone()));
        }
    }

    pub(super) fn deliver(
        &mut self,
        from: usize,
        to: usize,
        packet: Packet,
    ) -> Result<(), Violation> {
        if self.cut.is_some_and(|side| side[from] != side[to]) {
            return Ok(());
        }
        match packet {
            Packet::Consensus(channel, bytes) => {
                if let Some(liar) = self.liars.get_mut(&to) {
                    for (at, channel, bytes) in liar.hears(from, channel, &bytes, &mut self.rng) {
                        self.send(to, at, Packet::Consensus(channel, bytes));
                    }
                }
                if self.options.trace
                    && let Some(said) = super::wire::read(channel, &bytes)
                {
                    self.note(|| format!("node {to} hears of {from}: {said:?}"));
                }
                self.with(to, None, |bare| bare.receive(from as u64, channel, bytes))
            }
            Packet::Lane(news) => self.with(to, None, |bare| {
                // A lane that is refused now comes again.
                let _ = bare.host_mut().map(|host| host.hear(&news));
                Ok(())
            }),
        }
    }

    pub(super) fn tick(&mut self, node: usize, boot: u64) -> Result<(), Violation> {
        if self.nodes[node].boot != boot || self.nodes[node].bare.is_none() {
            return Ok(());
        }
        self.at(self.now + TICK_MS, Event::Tick(node, boot));
        let mut news = Vec::new();
        if let Some(host) = self.nodes[node].bare.as_ref().and_then(Bare::host) {
            news.extend(
                host.unmerged()
                    .iter()
                    .filter_map(|lane| host.lane_news(lane)),
            );
        }
        for news in news {
            self.tell_lane(node, news);
        }
        if self.options.broken == Some(Broken::SyncLeftOut) {
            return Ok(());
        }
        self.with(node, Some(boot), |bare| bare.tick())
    }

    fn tell_lane(&mut self, node: usize, news: LaneNews) {
        let news = Arc::new(news);
        for to in (0..VALIDATORS).filter(|to| *to != node) {
            self.send(node, to, Packet::Lane(Arc::clone(&news)));
        }
    }

    pub(super) fn entry(&mut self, node: usize) -> Result<(), Violation> {
        let world = World::get();
        let nonce = self.nodes[node].nonce;
        let body = match nonce % 4 {
            3 => json!({"take": "all"}),
            _ => json!({"put": {format!("key-{node}-{nonce}"): "value"}}),
        };
        let account = &world.secrets[node].account;
        let entry = Entry::sign(&world.chain, account, nonce, DAPP, body);
        let entry = entry.expect("this entry is of the grammar");
        let id = entry.id();
        let host = self.nodes[node].bare.as_mut();
        let appended = match host.and_then(Bare::host_mut) {
            Some(host) => host.append(vec![entry]),
            None => Err("off".into()),
        };
        match appended {
            Ok(news) => {
                self.nodes[node].nonce += 1;
                self.to_say -= 1;
                self.note(|| format!("node {node} takes entry {id}"));
                if !self.liars.contains_key(&node) {
                    self.checker.taken.insert(id);
                }
                self.tell_lane(node, news);
            }
            // The client tries again.
            Err(_) => self.at(self.now + 200, Event::Entry(node)),
        }
        self.after(node)
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), Violation> {
        self.note(|| format!("{fault:?}"));
        match fault {
            Fault::Cut(side) => self.cut = Some(side),
            Fault::Join => self.cut = None,
            Fault::Power(node, after) => {
                if self.nodes[node].bare.is_some() {
                    lock(&self.nodes[node].disk).burn(after);
                    let boot = self.nodes[node].boot;
                    self.at(self.now + 300, Event::Off(node, boot));
                }
            }
        }
        Ok(())
    }
}
