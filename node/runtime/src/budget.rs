//! What one call may use, counted where every node counts the same.

use std::time::Duration;

/// The longest line that a dapp may say. A batch of entries to it is of the same size.
pub const MAX_LINE_BYTES: usize = 256 * 1024;
/// The longest value that a dapp may keep under one key.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// The longest key of a dapp, without its prefix, which with the longest name must fit into the state's bound.
pub const MAX_KEY_BYTES: usize = 400;
/// The most rows that one `range` gives.
pub const MAX_RANGE_ROWS: usize = 1000;
/// The longest canonical form of an output: it stands in a receipt, which everybody keeps for ever.
pub const MAX_OUTPUT_BYTES: usize = 4 * 1024;
/// The longest sentence of a refusal.
pub const MAX_DETAIL_BYTES: usize = 512;
/// The longest name of a rule.
pub const MAX_RULE_BYTES: usize = 64;

/// What one call may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Times that it reads or writes the state.
    pub ops: u64,
    /// Bytes that it says.
    pub said_bytes: u64,
    /// Bytes of the state that it is told on request.
    pub told_bytes: u64,
    /// Time after which this node gives up. At least ten times what the rest takes on a small machine, because it is
    /// not the same everywhere.
    pub wall: Duration,
}

impl Budget {
    /// For the entries of a block.
    pub fn of_entries(entries: usize) -> Self {
        let entries = entries as u64;
        Self {
            ops: 1_000 + 64 * entries,
            said_bytes: (64 + 16 * entries) << 10,
            told_bytes: (1024 + 64 * entries) << 10,
            wall: Duration::from_secs(10),
        }
    }

    /// For a migration, which may touch the whole state of a baby chain.
    pub fn of_migration() -> Self {
        Self {
            ops: 200_000,
            said_bytes: 64 << 20,
            told_bytes: 64 << 20,
            wall: Duration::from_secs(60),
        }
    }

    /// For a question.
    pub fn of_question() -> Self {
        Self {
            ops: 1_000,
            said_bytes: 1 << 20,
            told_bytes: 4 << 20,
            wall: Duration::from_secs(5),
        }
    }
}
