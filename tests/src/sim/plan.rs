//! What a seed makes happen: how bad the network is, who is cut off, who loses power, whose clock is wrong.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::world::VALIDATORS;
use super::{Broken, Options};

/// Something that happens to the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// From now on messages pass only within each side.
    Cut([bool; VALIDATORS]),
    /// All messages pass again.
    Join,
    /// The power of a node goes within so many writes, or soon after.
    Power(usize, u32),
}

/// The plan of one run. Times are in milliseconds since its beginning.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Validators that lie.
    pub liars: Vec<usize>,
    /// How much each clock is off.
    pub skew_ms: [i64; VALIDATORS],
    /// Messages that are lost, in percent.
    pub loss: u32,
    /// Messages that come twice, in percent.
    pub twice: u32,
    /// The longest delay of most messages.
    pub delay_ms: u64,
    /// Messages that take up to a second, in percent.
    pub slow: u32,
    /// The faults.
    pub faults: Vec<(u64, Fault)>,
    /// When clients hand in an entry, and to whom.
    pub entries: Vec<(u64, usize)>,
    /// A node whose disk writes in its own order: after a cut its log may have holes. One that lies beside it would be a
    /// second fault.
    pub disorderly: Option<usize>,
    /// When everything works again.
    pub healed_ms: u64,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(options: &Options, rng: &mut ChaCha8Rng) -> Self {
        let any = |rng: &mut ChaCha8Rng| rng.random_range(0..VALIDATORS);
        let healed_ms = rng.random_range(2_000..6_000);
        let two = options.broken == Some(Broken::TwoLiars);
        let first = any(rng);
        let liars = match rng.random_range(0..3) {
            _ if two => vec![first, (first + 1) % VALIDATORS],
            0 if options.broken.is_none_or(Broken::wants_honest) => Vec::new(),
            _ if options.broken.is_some_and(Broken::wants_honest) => Vec::new(),
            _ => vec![first],
        };
        let mut faults = Vec::new();
        for _ in 0..rng.random_range(0..4) {
            let from = rng.random_range(0..healed_ms);
            let side = std::array::from_fn(|_| rng.random());
            faults.push((from, Fault::Cut(side)));
            let until = (from + rng.random_range(200..2_000)).min(healed_ms);
            faults.push((until, Fault::Join));
        }
        for _ in 0..rng.random_range(0..5) {
            let at = rng.random_range(0..healed_ms);
            let after = rng.random_range(0..12);
            faults.push((at, Fault::Power(any(rng), after)));
        }
        faults.sort_by_key(|(at, _)| *at);
        let mut entries: Vec<(u64, usize)> = (0..rng.random_range(3..9))
            .map(|_| (rng.random_range(0..healed_ms), any(rng)))
            .collect();
        // After healing everybody says something once more.
        entries.extend((0..VALIDATORS).map(|n| (healed_ms + 100, n)));
        entries.sort_unstable();
        Self {
            skew_ms: std::array::from_fn(|_| rng.random_range(-4_000..4_000)),
            loss: [0, 2, 20][rng.random_range(0..3)],
            twice: [0, 10][rng.random_range(0..2)],
            delay_ms: [2, 20, 80][rng.random_range(0..3)],
            slow: [0, 3][rng.random_range(0..2)],
            disorderly: (liars.is_empty() && rng.random_ratio(1, 3)).then(|| any(rng)),
            liars,
            faults,
            entries,
            healed_ms,
        }
    }
}
