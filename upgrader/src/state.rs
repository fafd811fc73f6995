//! What the supervisor keeps on disk: which program is good, and what is under way.

use instar_attest::Digest;
use serde::{Deserialize, Serialize};

/// What `state.json` says of its own format.
pub const FORMAT: &str = "instar-upgrader-v1";

/// How many bad releases are remembered; the oldest is forgotten first. More than a chain refuses in years.
pub const MAX_QUARANTINE: usize = 256;

/// The longest name of a release: far above any CID.
const MAX_NAME_BYTES: usize = 128;

/// The longest reason that is kept.
const MAX_REASON_BYTES: usize = 1024;

/// Bytes that can be run: one executable in the folder of its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// CID of the file, cut under `instar-cdc-v1`.
    pub file: String,
    /// The protocol number that the program speaks, for the floor.
    pub protocol: u32,
    /// CID of the release; the name of its folder.
    pub release: String,
    /// SHA-256 of the file.
    pub sha256: Digest,
}

impl Release {
    /// Whether the names can stand in a path: lower-case letters and digits, as in a CIDv1 in base 32.
    pub fn is_named_well(&self) -> bool {
        [&self.file, &self.release].into_iter().all(|name| {
            let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
            fits && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
    }
}

/// What is under way. Each phase is written before anything is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Phase {
    /// The good program runs.
    Steady,
    /// The bytes were checked; the old program is to be stopped and the link moved.
    Swapping {
        /// What is swapped in.
        target: Release,
    },
    /// The link was moved; the new program has to show that it is healthy.
    Probation {
        /// What is tried.
        target: Release,
        /// How often it was started, this time included.
        starts: u32,
    },
    /// The failed program is to be stopped and the link moved back to the good one.
    Reverting {
        /// What failed.
        failed: Release,
        /// Why.
        reason: String,
    },
}

impl Phase {
    /// The phase's name, as in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Swapping { .. } => "swapping",
            Self::Probation { .. } => "probation",
            Self::Reverting { .. } => "reverting",
        }
    }
}

/// Bytes that are never swapped in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// CID of the file.
    pub file: String,
    /// Why.
    pub reason: String,
    /// CID of the release.
    pub release: String,
    /// SHA-256 of the file: the same bytes in another release are just as bad.
    pub sha256: Digest,
}

/// How the last swap ended. The program reads it after a start, to report it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The swap's generation.
    pub generation: u64,
    /// Whether the new program was kept.
    pub kept: bool,
    /// Why not; empty if it was kept.
    pub reason: String,
    /// CID of the release that was swapped in.
    pub release: String,
}

/// All that is on disk, in `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The name of the executable in each release's folder.
    pub exe: String,
    /// [`FORMAT`].
    pub format: String,
    /// The lowest protocol number that may be run.
    pub floor: u32,
    /// The highest generation of a swap that was begun. Older requests are refused.
    pub generation: u64,
    /// The last program that proved good. It is never removed.
    pub good: Release,
    /// Whether swaps are refused for now.
    pub held: bool,
    /// How the last swap ended.
    pub outcome: Option<Outcome>,
    /// What is under way.
    pub phase: Phase,
    /// Counts the supervisor's own decisions; whatever carries out a step refuses one of an older decision.
    pub plan: u64,
    /// The good program before the last, for going back by hand.
    pub previous: Option<Release>,
    /// What is never swapped in again.
    pub quarantine: Vec<Quarantined>,
}

impl State {
    /// The state of a fresh home, in which `first` was just installed.
    pub fn first(exe: String, first: Release) -> Self {
        Self {
            exe,
            format: FORMAT.to_owned(),
            floor: 0,
            generation: 0,
            good: first,
            held: false,
            outcome: None,
            phase: Phase::Steady,
            plan: 0,
            previous: None,
            quarantine: Vec::new(),
        }
    }

    /// What should run, or is about to.
    pub fn target(&self) -> &Release {
        match &self.phase {
            Phase::Swapping { target } | Phase::Probation { target, .. } => target,
            Phase::Steady | Phase::Reverting { .. } => &self.good,
        }
    }

    /// Why these bytes are quarantined, if they are: by release, by file, or by hash.
    pub fn quarantined(&self, release: &Release) -> Option<&Quarantined> {
        self.quarantine.iter().find(|q| {
            q.release == release.release || q.file == release.file || q.sha256 == release.sha256
        })
    }

    /// Remembers bad bytes. A way back to them is none.
    pub(crate) fn quarantine(&mut self, bad: &Release, reason: &str) {
        if self.quarantined(bad).is_some() {
            return;
        }
        if self.quarantine.len() == MAX_QUARANTINE {
            self.quarantine.remove(0);
        }
        self.quarantine.push(Quarantined {
            file: bad.file.clone(),
            reason: shortened(reason),
            release: bad.release.clone(),
            sha256: bad.sha256,
        });
        self.previous = self
            .previous
            .take()
            .filter(|previous| self.quarantined(previous).is_none());
    }

    /// Whether any part of the state still needs a release's folder.
    pub fn needs(&self, release: &str) -> bool {
        let failed = match &self.phase {
            Phase::Reverting { failed, .. } => Some(failed),
            _ => None,
        };
        [
            Some(&self.good),
            Some(self.target()),
            self.previous.as_ref(),
            failed,
        ]
        .into_iter()
        .flatten()
        .any(|r| r.release == release)
    }
}

/// A reason cut to a length that can be kept.
pub(crate) fn shortened(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(name: &str) -> Release {
        Release {
            file: format!("file{name}"),
            protocol: 1,
            release: name.to_owned(),
            sha256: Digest::of(name.as_bytes()),
        }
    }

    #[test]
    fn names_stay_inside_the_folder() {
        assert!(release("bafy2").is_named_well());
        for bad in ["", "..", "a/b", "Q", "a b", "é", &"a".repeat(129)] {
            assert!(!release(bad).is_named_well(), "{bad}");
        }
    }

    #[test]
    fn the_same_bytes_under_another_name_stay_quarantined() {
        let mut state = State::first("node".to_owned(), release("a"));
        state.quarantine(&release("bad"), "crashed");
        let other = Release {
            file: "other".to_owned(),
            release: "another".to_owned(),
            ..release("bad")
        };
        assert_eq!(state.quarantined(&other).unwrap().reason, "crashed");
        assert!(state.quarantined(&release("b")).is_none());
        for i in 0..1000 {
            state.quarantine(&release(&i.to_string()), "x");
        }
        assert_eq!(state.quarantine.len(), MAX_QUARANTINE);
    }
}
