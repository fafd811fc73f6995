//! What peers are held to: who hands over what no honest node would is not listened to for a while. Pure; time is passed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// What a peer may have against it before it rests.
const MAX_POINTS: u32 = 64;
/// One point is forgiven in this time.
const FORGIVEN: Duration = Duration::from_secs(1);
/// How long a peer rests.
const REST: Duration = Duration::from_secs(60);
/// Most peers remembered: identities cost nothing, so that more would only be what an attacker wants.
const MAX_PEERS: usize = 1_024;

/// What was wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No honest node sends that, whatever it knows or lacks: it breaks a limit or a grammar, or a signature doesn't hold.
    Forged,
    /// Nobody here knows who it is from. An honest node may know more.
    Stranger,
}

impl Fault {
    fn points(self) -> u32 {
        match self {
            Self::Forged => 8,
            Self::Stranger => 1,
        }
    }
}

#[derive(Debug)]
struct Score {
    points: u32,
    since: Instant,
    rests_until: Option<Instant>,
}

/// The book.
#[derive(Debug, Default)]
pub struct Conduct(HashMap<PeerId, Score>);

impl Conduct {
    /// Notes a fault; true if the peer rests from now on.
    pub fn fault(&mut self, peer: PeerId, fault: Fault, now: Instant) -> bool {
        self.0.retain(|_, score| !score.forgiven(now));
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(&peer) {
            // Who has least against it is forgotten first.
            let least = self.0.iter().min_by_key(|(_, score)| score.left(now));
            if let Some(least) = least.map(|(peer, _)| *peer) {
                self.0.remove(&least);
            }
        }
        let score = self.0.entry(peer).or_insert(Score {
            points: 0,
            since: now,
            rests_until: None,
        });
        score.points = score.left(now) + fault.points();
        score.since = now;
        let begins = score.points >= MAX_POINTS && score.rests_until.is_none_or(|end| end <= now);
        if begins {
            score.rests_until = Some(now + REST);
        }
        begins
    }

    /// Whether a peer is not listened to.
    pub fn rests(&self, peer: &PeerId, now: Instant) -> bool {
        self.0
            .get(peer)
            .and_then(|score| score.rests_until)
            .is_some_and(|end| now < end)
    }

    /// How many rest.
    pub fn resting(&self, now: Instant) -> usize {
        self.0.keys().filter(|peer| self.rests(peer, now)).count()
    }
}

impl Score {
    fn left(&self, now: Instant) -> u32 {
        let forgiven = now.duration_since(self.since).as_millis() / FORGIVEN.as_millis();
        self.points
            .saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    fn forgiven(&self, now: Instant) -> bool {
        self.left(now) == 0 && self.rests_until.is_none_or(|end| end <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_forges_rests_for_a_while_and_is_heard_again() {
        let (mut book, peer, start) = (Conduct::default(), PeerId::random(), Instant::now());
        for _ in 0..7 {
            assert!(!book.fault(peer, Fault::Forged, start));
        }
        assert!(book.fault(peer, Fault::Forged, start), "it is told once");
        assert!(!book.fault(peer, Fault::Forged, start));
        assert!(book.rests(&peer, start + REST - FORGIVEN));
        assert_eq!(book.resting(start), 1);
        let later = start + REST * 3;
        assert!(!book.rests(&peer, later));
        assert!(!book.fault(peer, Fault::Forged, later));
        assert!(!book.rests(&PeerId::random(), start), "nobody else does");
    }

    #[test]
    fn a_few_faults_are_forgiven() {
        let (mut book, peer, start) = (Conduct::default(), PeerId::random(), Instant::now());
        for second in 0..1_000 {
            let now = start + FORGIVEN * 2 * second;
            assert!(!book.fault(peer, Fault::Stranger, now));
        }
    }

    #[test]
    fn many_identities_fill_no_memory_and_hide_nobody() {
        let (mut book, peer, now) = (Conduct::default(), PeerId::random(), Instant::now());
        for _ in 0..8 {
            book.fault(peer, Fault::Forged, now);
        }
        for _ in 0..2 * MAX_PEERS {
            book.fault(PeerId::random(), Fault::Stranger, now);
        }
        assert!(book.0.len() <= MAX_PEERS);
        assert!(book.rests(&peer, now));
    }
}
