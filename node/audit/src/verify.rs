//! A whole chain checked from a clone: for an audit, which wants to know all that happened, and for `chain verify`,
//! which wants to know whether it holds, as quickly as can be, and to go on where it was interrupted.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use instar_attest::ChainId;
use instar_chain::{DappHost, MemoryState};
use instar_ledger::Oid;

use crate::history::{History, Known as KnownBlock, Lineage};
use crate::log::Log;
use crate::objects::Objects;
use crate::progress::{self, Place};
use crate::replay::Replay;
use crate::report::{Refused, Report};
use crate::verdict::{Mother, Verdict, not_checked};
use crate::walk::{Counts, Seen, Walk, Watcher};
use crate::wrong::{At, Stop};

/// How often progress is saved, unless saving is slow.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// Saving may take one part in so many of the whole time: a large state is written less often.
const SAVE_SHARE: u32 = 20;

/// A chain that holds, from genesis to the tip.
pub struct Verified {
    /// Its blocks.
    pub history: History,
    /// What it says about builds and upgrades.
    pub log: Log,
    /// The native part of its state, run again from genesis.
    pub state: MemoryState,
}

/// Checks a whole chain for an audit. The report says how far it got.
pub fn verify_chain(clone: &Path) -> (Report, Option<Verified>) {
    let mut report = Report::default();
    let verified = run(clone, &mut report).ok();
    report.ok = verified.is_some();
    (report, verified)
}

pub(crate) fn run(clone: &Path, report: &mut Report) -> Result<Verified, Refused> {
    let objects = report.need("clone", Objects::open(clone))?;
    let Lineage {
        mothers,
        own: history,
    } = Lineage::open(objects).map_err(|wrong| report.wrong(&wrong))?;
    report.chain = Some(history.chain);
    report.hold("clone", about_clone(&history));
    let first = mothers.first().unwrap_or(&history);
    let replay = Replay::at_genesis(&first.genesis, &first.chain, None)
        .map_err(|stop| report.stop(&stop))?;
    report.hold("genesis", about_genesis(&history));
    let mut walk = Walk {
        replay,
        counts: Counts::default(),
        trusted: 0,
    };
    for (mother, child) in mothers.iter().zip(mothers.iter().skip(1).chain([&history])) {
        // What the mother decided about builds is no part of the fork's own custody: it admits what runs there by genesis.
        let walked = walk.run(mother, 0, &mut Log::default());
        walk = walked
            .map_err(|stop| of_mother(mother, stop))
            .and_then(|()| walk.into_fork(child))
            .map_err(|stop| report.stop(&stop))?;
    }
    let mut log = Log::default();
    walk.run(&history, 0, &mut log)
        .map_err(|stop| report.stop(&stop))?;
    let Walk { replay, counts, .. } = walk;
    report.blocks = counts.blocks;
    report.lane_commits = counts.lane_commits;
    for (step, detail) in counts.sentences() {
        report.hold(step, detail);
    }
    Ok(Verified {
        history,
        log,
        state: replay.into_native(),
    })
}

/// Says of something wrong that it is in a mother.
fn of_mother(mother: &History, stop: Stop) -> Stop {
    match stop {
        Stop::Wrong(mut wrong) => {
            wrong.what += &format!(" of the mother, chain {}", mother.chain);
            Stop::Wrong(wrong)
        }
        Stop::CannotTell(why) => {
            Stop::CannotTell(format!("of the mother, chain {}: {why}", mother.chain))
        }
    }
}

impl Watcher for Log {
    fn block(&mut self, seen: &Seen<'_>) -> Result<(), Stop> {
        self.add(seen.block.header.height, seen.lanes, &seen.block.receipts);
        Ok(())
    }
}

fn about_clone(history: &History) -> String {
    format!(
        "chain {} ({}), head at height {}",
        history.chain,
        history.genesis.chain_name,
        history.height()
    )
}

fn about_genesis(history: &History) -> String {
    let validators = &history.genesis.validators;
    let operators: BTreeSet<&str> = validators.iter().map(|v| v.operator.as_str()).collect();
    format!(
        "{} validators of {} operators; the genesis commit is the chain's id",
        validators.len(),
        operators.len()
    )
}

impl Counts {
    /// What was checked, one sentence a step.
    fn sentences(&self) -> Vec<(&'static str, String)> {
        let dapps: Vec<String> = self
            .dapps
            .iter()
            .map(|(name, blocks)| format!("{name} in {blocks} blocks"))
            .collect();
        let dapps = match dapps.is_empty() {
            true => "none".into(),
            false => dapps.join(", "),
        };
        let mut said = vec![
            (
                "blocks",
                format!(
                    "{} blocks, each rebuilt byte for byte and standing on the one before",
                    self.blocks
                ),
            ),
            (
                "certificates",
                format!(
                    "{} certificates, each of more than two thirds of the power of its height",
                    self.certificates
                ),
            ),
            (
                "lane-commits",
                format!(
                    "{} lane commits of {} devices, each rebuilt byte for byte and signed by its device's lane key",
                    self.lane_commits,
                    self.signers.len()
                ),
            ),
            (
                "receipts",
                format!(
                    "{} entries, each signed by its author, with one receipt in its place",
                    self.entries
                ),
            ),
            (
                "native-rules",
                format!(
                    "all native rules were run again and gave every receipt byte for byte; the verdicts of dapps were \
                     taken from the certified receipts, not run again: {dapps}"
                ),
            ),
            (
                "state-roots",
                format!(
                    "{} of {} state roots recomputed; the others follow on writes of dapps and were taken from certified headers",
                    self.state_roots, self.blocks
                ),
            ),
        ];
        if self.fork_blocks > 0 {
            let what = format!(
                "{} blocks of forks, merged slice by slice as motions had it, each rebuilt byte for byte",
                self.fork_blocks
            );
            said.push(("fork-slices", what));
        }
        said
    }
}

/// A height up to which somebody vouches for the signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trusted {
    /// The height.
    pub height: u64,
    /// The block there, if it was named.
    pub block: Option<Oid>,
}

/// Is told how far a verification is: the height, the newest height, what was checked.
pub type Tell<'a> = dyn FnMut(u64, u64, &Counts) + 'a;

/// How a chain is verified.
#[derive(Default)]
pub struct Settings<'a> {
    /// The chain that it must be.
    pub chain: Option<ChainId>,
    /// Up to here signatures are taken on the caller's word.
    pub trusted: Option<Trusted>,
    /// Runs dapps again.
    pub dapps: Option<&'a mut dyn DappHost>,
    /// Where progress is kept.
    pub progress: Option<&'a Path>,
    /// Starts over, whatever is kept.
    pub fresh: bool,
    /// Is told how far it is: height, the newest height, what was checked.
    pub tell: Option<&'a mut Tell<'a>>,
    /// Is told, in a sentence, what a person should know meanwhile.
    pub note: Option<&'a mut dyn FnMut(&str)>,
}

/// Checks a chain from genesis, or from where it was verified before.
pub fn verify(clone: &Path, settings: Settings<'_>) -> Verdict {
    let mut verdict = Verdict {
        dapps_run: settings.dapps.is_some(),
        trusted: settings.trusted.map_or(0, |t| t.height),
        ..Verdict::default()
    };
    match check(clone, settings, &mut verdict) {
        Ok(()) => verdict.ok = true,
        Err(Stop::Wrong(wrong)) => verdict.wrong = Some(*wrong),
        Err(Stop::CannotTell(why)) => verdict.cannot_tell = Some(why),
    }
    verdict
}

fn check(clone: &Path, settings: Settings<'_>, verdict: &mut Verdict) -> Result<(), Stop> {
    let Settings {
        chain,
        trusted,
        dapps,
        progress,
        fresh,
        tell,
        note,
    } = settings;
    let mut nothing = |_: &str| {};
    let note = note.unwrap_or(&mut nothing);
    let mut quiet = |_: u64, _: u64, _: &Counts| {};
    let tell = tell.unwrap_or(&mut quiet);
    let at = At::new("clone", "the clone");
    let objects = Objects::open(clone).map_err(|e| at.unread(&e))?;
    let dapps_run = dapps.is_some();
    let kept = kept(
        progress.filter(|_| !fresh),
        dapps_run,
        verdict.trusted,
        note,
    );
    let known = kept.as_ref().map(|p| KnownBlock {
        chain: p.head.chain,
        height: p.head.height,
        block: p.head.block,
    });
    let (lineage, met) = Lineage::open_above(objects, known)?;
    let history = &lineage.own;
    verdict.chain = Some(history.chain);
    verdict.head = Some(history.head());
    verdict.height = history.height();
    verdict.forked_from = lineage.mothers.iter().map(Mother::of).collect();
    if let Some(expected) = chain.filter(|c| *c != history.chain) {
        let at = At::new("genesis", "the genesis commit").object(history.chain.into());
        let why = format!("the clone is of chain {}, not of {expected}", history.chain);
        return Err(at.wrong("other-chain", why).into());
    }
    trust(history, trusted)?;
    let mut lines = lineage.mothers.iter().chain([history]).peekable();
    let first = *lines.peek().expect("a lineage has the chain itself");
    let mut after = 0;
    let mut native_since = None;
    let mut walk = match kept.filter(|_| met) {
        Some(kept) => {
            after = kept.head.height;
            native_since = kept.head.native_since;
            verdict.resumed_at = Some(after);
            verdict.trusted = verdict.trusted.max(kept.head.trusted);
            let of = match lineage.mothers.is_empty() {
                true => String::new(),
                false => format!(" of chain {}", first.chain),
            };
            note(&format!(
                "going on at height {after}{of}, which was verified before"
            ));
            Walk {
                replay: Replay::at(first.chain, first.genesis.kernel, kept.known, dapps),
                counts: kept.head.counts,
                trusted: verdict.trusted,
            }
        }
        None => Walk {
            replay: Replay::at_genesis(&first.genesis, &first.chain, dapps)?,
            counts: Counts::default(),
            trusted: verdict.trusted,
        },
    };
    while let Some(line) = lines.next() {
        let of_own = lines.peek().is_none();
        // Whoever vouches for a block of the fork vouches for all that it stands on.
        walk.trusted = match verdict.trusted {
            trusted if of_own || trusted == 0 => trusted,
            _ => u64::MAX,
        };
        let mut keeper = Keeper {
            history: line,
            path: progress,
            dapps_run,
            trusted: verdict.trusted,
            native_since,
            verified: after,
            saved_at: Instant::now(),
            save_every: SAVE_EVERY,
            tell: &mut *tell,
            note: &mut *note,
        };
        let walked = walk.run(line, after, &mut keeper);
        let native = keeper.native_since;
        if of_own {
            verdict.verified_height = keeper.verified;
        }
        verdict.checked = walk.counts.clone();
        verdict.not_checked = not_checked(verdict, native);
        let Some(child) = lines.peek() else {
            return walked;
        };
        walked.map_err(|stop| of_mother(line, stop))?;
        walk = walk.into_fork(child)?;
        (after, native_since) = (0, None);
    }
    Ok(())
}

/// What an earlier run left, if it is of use.
fn kept(
    path: Option<&Path>,
    dapps_run: bool,
    trusted: u64,
    note: &mut dyn FnMut(&str),
) -> Option<progress::Progress> {
    let path = path?;
    match progress::load(path) {
        Ok(kept) => kept.filter(|p| {
            // Who asks for more than was checked before gets it from the beginning.
            let enough = (p.head.dapps_run || !dapps_run) && p.head.trusted <= trusted;
            if !enough {
                note("what was verified before was verified less strictly; starting over");
            }
            enough
        }),
        Err(why) => {
            note(&format!(
                "what was kept in {} is not used ({why}); starting over",
                path.display()
            ));
            None
        }
    }
}

/// The block that somebody vouches for must be the one in the clone.
fn trust(history: &History, trusted: Option<Trusted>) -> Result<(), Stop> {
    let Some(trusted) = trusted else {
        return Ok(());
    };
    if trusted.height > history.height() {
        return Err(Stop::CannotTell(format!(
            "height {} is trusted, but the clone ends at {}",
            trusted.height,
            history.height()
        )));
    }
    // Below what was verified before, ids are not read again: that run saw to them.
    let (Some(expected), Some(got)) = (trusted.block, history.id(trusted.height)) else {
        return Ok(());
    };
    if got == expected {
        return Ok(());
    }
    let at = At::block("clone", trusted.height, got);
    let why = format!("the trusted block of this height is {expected}");
    Err(at.wrong("other-checkpoint", why).into())
}

/// Tells how far the walk is, and keeps it.
struct Keeper<'a> {
    history: &'a History,
    path: Option<&'a Path>,
    dapps_run: bool,
    trusted: u64,
    native_since: Option<u64>,
    verified: u64,
    saved_at: Instant,
    save_every: Duration,
    tell: &'a mut Tell<'a>,
    note: &'a mut dyn FnMut(&str),
}

impl Watcher for Keeper<'_> {
    fn block(&mut self, seen: &Seen<'_>) -> Result<(), Stop> {
        let header = &seen.block.header;
        self.verified = header.height;
        if self.native_since.is_none() && matches!(seen.known, crate::replay::Known::Native(_)) {
            self.native_since = Some(header.height);
        }
        (self.tell)(header.height, self.history.height(), seen.counts);
        let last = header.height == self.history.height();
        if let Some(path) = self.path
            && (last || self.saved_at.elapsed() >= self.save_every)
        {
            self.save(path, seen);
        }
        Ok(())
    }
}

impl Keeper<'_> {
    fn save(&mut self, path: &Path, seen: &Seen<'_>) {
        let begun = Instant::now();
        let place = Place {
            chain: self.history.chain,
            block: seen.block.id,
            height: seen.block.header.height,
            counts: seen.counts,
            dapps_run: self.dapps_run,
            native_since: self.native_since,
            trusted: self.trusted,
        };
        // The answer does not depend on it, so that a full disk costs only the second start.
        if let Err(e) = progress::save(path, &place, seen.known) {
            (self.note)(&format!(
                "progress can't be kept in {}: {e}",
                path.display()
            ));
            self.path = None;
        }
        self.saved_at = Instant::now();
        self.save_every = SAVE_EVERY.max(begun.elapsed() * SAVE_SHARE);
    }
}
