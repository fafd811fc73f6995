//! The native rules, run again. Dapps are not run: what they answered is taken from the certified receipts.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest};
use instar_chain::{
    BlockInput, BlockOutput, DappCall, DappFailure, DappHost, DappResult, MemoryState, Verdict,
    apply_block, genesis_writes,
};
use instar_ledger::{Block, Genesis, LaneCommit, Outcome, Receipt, ReceiptLine};

/// The rule of a receipt whose dapp ended before it had answered.
const DAPP_CRASHED: &str = "dapp-crashed";
/// The rule of a receipt whose dapp answered what no dapp may answer.
const DAPP_PROTOCOL: &str = "dapp-protocol";

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

/// Why a block's receipts are not what the rules give.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The genesis can't be a state.
    #[error("the genesis makes no state: {0}")]
    Genesis(String),
    /// The block breaks a rule of blocks.
    #[error("block {height}: {why}")]
    Block {
        /// The block.
        height: u64,
        /// What it breaks.
        why: String,
    },
    /// A receipt differs.
    #[error("block {height}: line {line} of its receipts is not what the rules give: {got}")]
    Receipt {
        /// The block.
        height: u64,
        /// The line, from 1.
        line: usize,
        /// What the rules give.
        got: String,
    },
    /// The header names other dapps or another protocol.
    #[error("block {height}: its header names another {what}")]
    Header {
        /// The block.
        height: u64,
        /// What differs.
        what: &'static str,
    },
}

/// The native part of the state, as it goes from block to block.
pub struct Replay {
    chain: ChainId,
    state: MemoryState,
}

impl Replay {
    /// Starts at genesis.
    pub fn new(genesis: &Genesis, chain: &ChainId) -> Result<Self, ReplayError> {
        let writes =
            genesis_writes(genesis, chain).map_err(|e| ReplayError::Genesis(e.to_string()))?;
        let mut state = MemoryState::default();
        state.apply(&writes);
        Ok(Self {
            chain: *chain,
            state,
        })
    }

    /// The state as it stands.
    pub fn state(&self) -> &MemoryState {
        &self.state
    }

    /// The state at the end.
    pub fn into_state(self) -> MemoryState {
        self.state
    }

    /// Runs the native rules on a block, and compares every receipt.
    pub fn block(
        &mut self,
        block: &Block,
        lanes: &[LaneCommit],
    ) -> Result<BlockOutput, ReplayError> {
        let header = &block.header;
        let height = header.height;
        let input = BlockInput {
            chain: self.chain,
            height,
            time_ms: header.time_ms,
            parent: header.parent,
            proposer: header.proposer,
            previous: block.previous.as_ref(),
            lanes,
            left_out: &header.left_out,
        };
        let mut host = Receipts::of(&block.receipts);
        let output =
            apply_block(&self.state, &input, &mut host).map_err(|e| ReplayError::Block {
                height,
                why: e.to_string(),
            })?;
        compare(height, &block.receipts, &output.receipts)?;
        // The digests hold what dapps wrote, which is not known here; which dapps were asked is.
        if !output.dapps.keys().eq(header.dapps.keys()) {
            let what = "set of dapps";
            return Err(ReplayError::Header { height, what });
        }
        if output.protocol != header.protocol {
            let what = "protocol";
            return Err(ReplayError::Header { height, what });
        }
        self.state.apply(&output.writes);
        Ok(output)
    }
}

fn compare(
    height: u64,
    certified: &[ReceiptLine],
    computed: &[ReceiptLine],
) -> Result<(), ReplayError> {
    if certified == computed {
        return Ok(());
    }
    let at = certified
        .iter()
        .zip(computed)
        .position(|(a, b)| a != b)
        .unwrap_or(certified.len().min(computed.len()));
    let got = computed.get(at).map_or_else(
        || "nothing more".to_owned(),
        |line| serde_json::to_string(line).unwrap_or_else(|e| e.to_string()),
    );
    Err(ReplayError::Receipt {
        height,
        line: at + 1,
        got,
    })
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
