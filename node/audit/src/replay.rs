//! The rules, run again on one block after the other.
//!
//! Dapps run again where a host for them is given. Otherwise what they answered is taken from the certified receipts,
//! and what they wrote is not known: from the first block on in which one wrote something, the state is known in its
//! native part only, and its root can't be recomputed.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest};
use instar_chain::{
    BlockError, BlockInput, BlockOutput, DappCall, DappFailure, DappHost, DappResult, MemoryState,
    StateView, Verdict, Writes, apply_block, fork_writes, genesis_writes,
};
use instar_ledger::{Block, Genesis, LaneCommit, Outcome, Receipt, ReceiptLine, Slice};
use instar_state::Fork;

use crate::wrong::{At, Stop};

/// The rule of a receipt whose dapp ended before it had answered.
const DAPP_CRASHED: &str = "dapp-crashed";
/// The rule of a receipt whose dapp answered what no dapp may answer.
const DAPP_PROTOCOL: &str = "dapp-protocol";
/// How many characters of a line that differs are shown.
const SHOWN_CHARS: usize = 400;

/// Rules that refuse an entry before its dapp is asked.
fn is_native(rule: &str) -> bool {
    matches!(
        rule,
        "nonce-used"
            | "nonce-gap"
            | "nonce-used-up"
            | "wrong-key-purpose"
            | "dapp-suspended"
            | "device-retired"
            | "lane-key-replaced"
            | "lane-quarantined"
    )
}

/// A state as far as it is known.
pub enum Known {
    /// All of it, with its tree.
    Whole(Box<Fork>),
    /// Its native part.
    Native(MemoryState),
}

impl Known {
    /// As a view.
    pub fn view(&self) -> &dyn StateView {
        match self {
            Self::Whole(fork) => &**fork,
            Self::Native(state) => state,
        }
    }

    /// Its keys and values, ascending.
    pub fn pairs(&self) -> Box<dyn Iterator<Item = (&str, &[u8])> + '_> {
        match self {
            Self::Whole(fork) => Box::new(
                fork.changes()
                    .iter()
                    .filter_map(|(k, v)| Some((k.as_str(), v.as_deref()?))),
            ),
            Self::Native(state) => Box::new(state.iter()),
        }
    }

    /// The native part alone.
    fn into_native(self) -> MemoryState {
        match self {
            Self::Native(state) => state,
            Self::Whole(fork) => {
                let mut state = MemoryState::default();
                state.apply(fork.changes());
                state
            }
        }
    }
}

/// What running a block again came to.
pub struct Replayed {
    /// What the rules gave.
    pub output: BlockOutput,
    /// Whether the state root was computed and compared.
    pub root_compared: bool,
}

/// The state as it goes from block to block.
pub struct Replay<'h> {
    chain: ChainId,
    kernel: u32,
    known: Known,
    /// Runs dapps; without it their verdicts are taken from receipts.
    host: Option<&'h mut dyn DappHost>,
}

impl<'h> Replay<'h> {
    /// Starts at genesis.
    pub fn at_genesis(
        genesis: &Genesis,
        chain: &ChainId,
        host: Option<&'h mut dyn DappHost>,
    ) -> Result<Self, Stop> {
        let at = At::new("genesis", "the genesis")
            .object((*chain).into())
            .height(0);
        let writes = genesis_writes(genesis, chain).map_err(|e| at.wrong("genesis-rules", e))?;
        let mut fork = Fork::empty();
        fork.apply(&writes)
            .map_err(|e| Stop::CannotTell(e.to_string()))?;
        Ok(Self::at(
            *chain,
            genesis.kernel,
            Known::Whole(Box::new(fork)),
            host,
        ))
    }

    /// Goes on from the mother's state to a fork that stands on it.
    pub fn into_fork(self, genesis: &Genesis, chain: &ChainId) -> Result<Self, Stop> {
        let at = At::new("genesis", "the genesis")
            .object((*chain).into())
            .height(0);
        let writes = fork_writes(genesis, chain, self.known.view())
            .map_err(|e| at.wrong("genesis-rules", e))?;
        // Of a state that is known in its native part only, the fork takes nothing that would be known.
        let known = match self.known {
            Known::Whole(_) => {
                let mut fork = Fork::empty();
                fork.apply(&writes)
                    .map_err(|e| Stop::CannotTell(e.to_string()))?;
                Known::Whole(Box::new(fork))
            }
            Known::Native(_) => {
                let mut state = MemoryState::default();
                state.apply(&writes);
                Known::Native(state)
            }
        };
        Ok(Self::at(*chain, genesis.kernel, known, self.host))
    }

    /// Goes on from a state that was known before.
    pub fn at(
        chain: ChainId,
        kernel: u32,
        known: Known,
        host: Option<&'h mut dyn DappHost>,
    ) -> Self {
        Self {
            chain,
            kernel,
            known,
            host,
        }
    }

    /// The state as it stands.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// The native part of the state at the end.
    pub fn into_native(self) -> MemoryState {
        self.known.into_native()
    }

    /// Whether the whole state is known.
    pub fn is_whole(&self) -> bool {
        matches!(self.known, Known::Whole(_))
    }

    /// Runs a block again, and compares all that it comes to with what was certified.
    pub fn block(
        &mut self,
        block: &Block,
        lanes: &[LaneCommit],
        fork: Option<&Slice>,
    ) -> Result<Replayed, Stop> {
        let header = &block.header;
        let at = At::block("native-rules", header.height, block.id);
        let input = BlockInput {
            chain: self.chain,
            height: header.height,
            time_ms: header.time_ms,
            parent: header.parent,
            proposer: header.proposer,
            previous: block.previous.as_ref(),
            lanes,
            fork,
            left_out: &header.left_out,
        };
        let view = self.known.view();
        let output = match &mut self.host {
            Some(host) => apply_block(view, &input, &mut **host),
            None => apply_block(view, &input, &mut Receipts::of(&block.receipts)),
        };
        let output = output.map_err(|e| stop(&at, e))?;
        compare_receipts(&at, &block.receipts, &output.receipts)?;
        let wrote_nothing = self.compare_dapps(&at, block, &output)?;
        let facts = [
            (
                output.protocol == header.protocol,
                "protocol-differs",
                "another protocol",
            ),
            (
                self.kernel == header.kernel,
                "kernel-differs",
                "another consensus kernel",
            ),
            (
                output.validators.digest() == header.validators,
                "validators-differ",
                "another validator set for the next block",
            ),
        ];
        for (holds, rule, what) in facts {
            if !holds {
                return Err(at.wrong(rule, format!("its header names {what}")).into());
            }
        }
        let root_compared = self.advance(&output.writes, wrote_nothing, block)?;
        Ok(Replayed {
            output,
            root_compared,
        })
    }

    /// Compares the digests of what dapps answered. Says whether every write of this block is known: where dapps are
    /// not run, a digest that fits an answer without writes shows that there were none.
    fn compare_dapps(&self, at: &At, block: &Block, output: &BlockOutput) -> Result<bool, Stop> {
        let certified = &block.header.dapps;
        if !output.dapps.keys().eq(certified.keys()) {
            let why = "its header names other dapps than those that were asked";
            return Err(at.wrong("dapps-differ", why).into());
        }
        let differs = certified
            .iter()
            .find(|(name, digest)| output.dapps.get(*name) != Some(digest));
        match (differs, &self.host) {
            (None, _) => Ok(true),
            (Some(_), None) => Ok(false),
            (Some((name, digest)), Some(_)) => {
                let why = format!(
                    "dapp {name} run again writes something else: its header has the digest {digest}"
                );
                Err(at.wrong("dapp-differs", why).into())
            }
        }
    }

    fn advance(&mut self, writes: &Writes, all: bool, block: &Block) -> Result<bool, Stop> {
        if let Known::Whole(fork) = &mut self.known
            && all
        {
            let root = fork
                .apply(writes)
                .map_err(|e| Stop::CannotTell(e.to_string()))?;
            let header = &block.header;
            if root != header.state_root {
                let at = At::block("state-roots", header.height, block.id);
                let why = format!(
                    "the state after it has the root {root}, its header says {}",
                    header.state_root
                );
                return Err(at.wrong("state-root", why).into());
            }
            return Ok(true);
        }
        let known = std::mem::replace(&mut self.known, Known::Native(MemoryState::default()));
        let mut state = known.into_native();
        state.apply(writes);
        self.known = Known::Native(state);
        Ok(false)
    }
}

/// What an error of the state machine means: most break a rule of blocks, some are this machine's.
pub(crate) fn stop(at: &At, error: BlockError) -> Stop {
    let rule = match &error {
        BlockError::State(e) => return Stop::CannotTell(e.to_string()),
        BlockError::Abstain { .. } => return Stop::CannotTell(error.to_string()),
        BlockError::OtherChain { .. } => "other-chain",
        BlockError::Height { .. } => "block-height",
        BlockError::Time { .. } => "block-time",
        BlockError::LaneOrder(_) => "lane-order",
        BlockError::TooManyLanes { .. } | BlockError::TooManyEntries { .. } => "too-many",
        BlockError::UnknownDevice(_) => "device-unknown",
        BlockError::Incarnation { .. } => "lane-incarnation",
        BlockError::LaneGap { .. } => "lane-gap",
        BlockError::LaneClosed { .. } => "lane-closed",
        BlockError::Quota { .. } => "quota",
        BlockError::ForkNotDue { .. } => "fork-not-due",
        BlockError::ForkWaits { .. } => "fork-waits",
        BlockError::LeftOut(_) => "left-out",
        BlockError::Overflow(_) => "overflow",
    };
    at.wrong(rule, error).into()
}

fn compare_receipts(
    at: &At,
    certified: &[ReceiptLine],
    computed: &[ReceiptLine],
) -> Result<(), Stop> {
    if certified == computed {
        return Ok(());
    }
    let line = certified
        .iter()
        .zip(computed)
        .position(|(a, b)| a != b)
        .unwrap_or(certified.len().min(computed.len()));
    let show = |lines: &[ReceiptLine]| match lines.get(line) {
        None => "nothing more".to_owned(),
        Some(line) => serde_json::to_string(line)
            .unwrap_or_else(|e| e.to_string())
            .chars()
            .take(SHOWN_CHARS)
            .collect(),
    };
    let why = format!(
        "line {} of its receipts is not what the rules give. The rules: {}. The block: {}",
        line + 1,
        show(computed),
        show(certified)
    );
    Err(at.wrong("receipt-differs", why).into())
}

/// A host that answers what the receipts say.
struct Receipts<'a> {
    by_entry: BTreeMap<Digest, Vec<&'a Receipt>>,
    events: Vec<&'a instar_ledger::Event>,
}

impl<'a> Receipts<'a> {
    fn of(lines: &'a [ReceiptLine]) -> Self {
        let mut by_entry: BTreeMap<Digest, Vec<&Receipt>> = BTreeMap::new();
        let mut events = Vec::new();
        for line in lines {
            match line {
                ReceiptLine::Entry(receipt) => {
                    by_entry.entry(receipt.entry).or_default().push(receipt);
                }
                ReceiptLine::Event(event) => events.push(event),
            }
        }
        Self { by_entry, events }
    }
}

impl DappHost for Receipts<'_> {
    fn run(&mut self, call: DappCall<'_>) -> Result<DappResult, DappFailure> {
        if call.migrate.is_some() {
            let slot = format!("dapps/{}", call.dapp);
            let voided = |e: &&instar_ledger::Event| {
                e.event == "activation-voided"
                    && e.body.get("slot").and_then(|s| s.as_str()) == Some(slot.as_str())
            };
            return match self.events.iter().copied().find(voided) {
                Some(_) => Err(DappFailure::Crash("its migration failed".into())),
                None => Ok(DappResult::default()),
            };
        }
        let receipts: Option<Vec<&Receipt>> =
            call.entries.iter().map(|e| self.of_dapp(&e.id)).collect();
        let receipts = receipts
            .ok_or_else(|| DappFailure::Abstain("an entry has no receipt of the dapp".into()))?;
        let all = |rule| !receipts.is_empty() && receipts.iter().all(|r| has_rule(r, rule));
        if all(DAPP_CRASHED) {
            return Err(DappFailure::Crash("its receipts say so".into()));
        }
        if all(DAPP_PROTOCOL) {
            return Err(DappFailure::Protocol("its receipts say so".into()));
        }
        let verdicts = receipts
            .into_iter()
            .map(|receipt| Verdict {
                detail: receipt.detail.clone(),
                ok: receipt.outcome == Outcome::Applied,
                output: receipt.output.clone(),
                rule: receipt.rule.clone(),
            })
            .collect();
        Ok(DappResult {
            verdicts,
            ..DappResult::default()
        })
    }
}

impl<'a> Receipts<'a> {
    /// The receipt that a dapp's verdict became. An entry that two lanes carry has two receipts in a block; the other
    /// one was refused before the dapp was asked.
    fn of_dapp(&self, id: &Digest) -> Option<&'a Receipt> {
        let all = self.by_entry.get(id)?;
        let applied = all.iter().find(|r| r.outcome == Outcome::Applied);
        let asked = || {
            all.iter()
                .find(|r| !r.rule.as_deref().is_some_and(is_native))
        };
        applied.or_else(asked).or(all.first()).copied()
    }
}

fn has_rule(receipt: &Receipt, rule: &str) -> bool {
    receipt.rule.as_deref() == Some(rule)
}
