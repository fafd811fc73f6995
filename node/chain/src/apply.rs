//! The merge test of a block: a pure function of the state before it and of what it merges.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::{ChainId, Digest, PublicKey};
use instar_ledger::{
    Entry, Event, Lane, LaneCommit, Oid, Outcome, Receipt, ReceiptLine, SliceEntry, Validator,
    ValidatorSet,
};

use crate::block::{BlockError, BlockInput, BlockOutput};
use crate::dapps::{self, Answer, Standing};
use crate::gates::Gates;
use crate::host::{DappEntry, DappHost};
use crate::machine::{Machine, Op, OpError, check_purpose, ensure};
use crate::record::{self, ChainRecord, Closed, ClosedBy, Head, ValidatorRecord};
use crate::view::{Overlay, StateError, StateView};
use crate::{build, forks, govern, keys, lanes, ops, upgrade};

/// The highest height and the latest time that are counted, half of what JSON carries exactly: sums with delays fit.
pub const MAX_COUNT: u64 = 1 << 52;

/// Tests a block on top of `state`. The same state and input give the same output on every node, whoever proposed it.
pub fn apply_block(
    state: &dyn StateView,
    input: &BlockInput<'_>,
    dapps: &mut dyn DappHost,
) -> Result<BlockOutput, BlockError> {
    apply_gated(state, input, dapps, Gates::default())
}

pub(crate) fn apply_gated(
    state: &dyn StateView,
    input: &BlockInput<'_>,
    dapps: &mut dyn DappHost,
    gates: Gates,
) -> Result<BlockOutput, BlockError> {
    let chain: ChainRecord = record::expect(state, keys::CHAIN)?;
    check_block(state, input, &chain)?;
    let mut m = Machine {
        state: Overlay::new(state),
        host: dapps,
        chain: input.chain,
        height: input.height,
        time_ms: input.time_ms,
        seed: seed(&input.chain, input.height, &input.parent),
        protocol: chain.protocol,
        policy: record::expect(state, keys::POLICY)?,
        gates,
        left_out: BTreeSet::new(),
        events: Vec::new(),
        digests: BTreeMap::new(),
    };
    lanes::merge(&mut m.state, input)?;
    dapps::leave_out(&mut m, input)?;
    let foreign = forks::merge(&mut m, input)?;
    build::due(&mut m)?;
    upgrade::due(&mut m, input.previous)?;
    govern::due(&mut m)?;
    let mut receipts: Vec<ReceiptLine> = take_events(&mut m);
    let entries = entries(&mut m, input.lanes, &foreign)?;
    receipts.extend(entries.into_iter().map(ReceiptLine::Entry));
    receipts.extend(take_events(&mut m));
    let head = Head {
        height: input.height,
        time_ms: input.time_ms,
    };
    record::write(&mut m.state, keys::HEAD, &head)?;
    Ok(BlockOutput {
        receipts,
        dapps: dapps::header_digests(m.digests),
        protocol: m.protocol,
        validators: validator_set(&m.state)?,
        writes: m.state.into_writes()?,
    })
}

/// The only randomness that dapps get: known as soon as the parent is, so that no proposer can choose it.
pub fn seed(chain: &ChainId, height: u64, parent: &Oid) -> Digest {
    let height = height.to_be_bytes();
    let bytes = [chain.as_bytes().as_slice(), &height, parent.as_bytes()].concat();
    Digest::tagged("instar/seed/v1", &bytes)
}

/// The set that certifies the block after this state.
pub(crate) fn validator_set(view: &dyn StateView) -> Result<ValidatorSet, StateError> {
    let records: Vec<ValidatorRecord> = record::expect(view, keys::VALIDATORS)?;
    let validators = records.into_iter().map(|v| Validator {
        key: v.keys.consensus,
        power: v.power,
    });
    ValidatorSet::new(validators.collect()).map_err(|e| StateError::Corrupt {
        key: keys::VALIDATORS.to_owned(),
        why: e.to_string(),
    })
}

fn check_block(
    state: &dyn StateView,
    input: &BlockInput<'_>,
    chain: &ChainRecord,
) -> Result<(), BlockError> {
    let head: Head = record::expect(state, keys::HEAD)?;
    if input.chain != chain.chain {
        return Err(BlockError::OtherChain {
            expected: chain.chain,
            got: input.chain,
        });
    }
    if head.height.checked_add(1) != Some(input.height) {
        return Err(BlockError::Height {
            head: head.height,
            got: input.height,
        });
    }
    if input.time_ms <= head.time_ms {
        return Err(BlockError::Time {
            parent: head.time_ms,
            got: input.time_ms,
        });
    }
    if input.height > MAX_COUNT {
        return Err(BlockError::Overflow("height"));
    }
    if input.time_ms > MAX_COUNT {
        return Err(BlockError::Overflow("block's time"));
    }
    Ok(())
}

fn take_events(m: &mut Machine<'_>) -> Vec<ReceiptLine> {
    let events: Vec<Event> = std::mem::take(&mut m.events);
    events.into_iter().map(ReceiptLine::Event).collect()
}

/// Receipts in merge order, and which of them each dapp still has to fill in.
#[derive(Default)]
struct Batch {
    receipts: Vec<Receipt>,
    calls: BTreeMap<String, Vec<(usize, DappEntry)>>,
}

/// All entries in merge order, those of a fork last: native ones at once, dapps' in one call each, since no two share a key.
fn entries(
    m: &mut Machine<'_>,
    commits: &[LaneCommit],
    foreign: &[&SliceEntry],
) -> Result<Vec<Receipt>, BlockError> {
    let mut batch = Batch::default();
    for commit in commits {
        // Asked for each commit: evidence in this very block may close a lane between two.
        let mut closed = lanes::closed(&m.state, &commit.lane)?;
        for (index, entry) in commit.entries.iter().enumerate() {
            let id = entry.id();
            let answer = match &closed {
                Some(closed) => left_behind(&commit.lane, closed),
                None => match admit(m, entry, id, &mut batch) {
                    Ok(answer) => answer,
                    Err(OpError::Refused(r)) => Answer::rejected(&r.rule, &r.detail),
                    Err(OpError::State(error)) => return Err(error.into()),
                },
            };
            if entry.topic == ops::GOVERN {
                closed = lanes::closed(&m.state, &commit.lane)?;
            }
            let receipt = Receipt {
                chain: None,
                detail: answer.detail,
                entry: id,
                index: u32::try_from(index).map_err(|_| BlockError::Overflow("entry's index"))?,
                lane: commit.lane,
                outcome: answer.outcome,
                output: answer.output,
                rule: answer.rule,
                seq: commit.seq,
            };
            batch.receipts.push(receipt);
        }
    }
    for merged in foreign {
        let (chain, id) = (merged.entry.chain, merged.entry.id());
        let (place, dapp) = (batch.receipts.len(), merged.entry.topic.clone());
        batch.receipts.push(forks::receipt(&chain, merged, id));
        let call = (place, forks::call(&chain, merged, id));
        batch.calls.entry(dapp).or_default().push(call);
    }
    for (dapp, calls) in batch.calls {
        let (places, entries): (Vec<usize>, Vec<DappEntry>) = calls.into_iter().unzip();
        let answers = dapps::run(m, &dapp, entries)?;
        for (place, answer) in places.into_iter().zip(answers) {
            let receipt = &mut batch.receipts[place];
            receipt.outcome = answer.outcome;
            receipt.rule = answer.rule;
            receipt.detail = answer.detail;
            receipt.output = answer.output;
        }
    }
    Ok(batch.receipts)
}

/// What a closed lane still carries takes no effect, and no nonce is consumed: another lane can carry it.
fn left_behind(lane: &Lane, closed: &Closed) -> Answer {
    let why = match closed.by {
        ClosedBy::DeviceRetired => "its device was retired",
        ClosedBy::LaneKeyReplaced => "its device got another lane key",
        ClosedBy::LaneQuarantined => "its device said two things at one place of it",
    };
    let since = closed.since;
    Answer {
        outcome: Outcome::Unavailable,
        rule: Some(closed.by.rule().to_owned()),
        detail: Some(format!("lane {lane} is closed since height {since}: {why}")),
        output: None,
    }
}

/// The nonce, the author's key and the topic of an entry; a native one takes effect here.
fn admit(m: &mut Machine<'_>, entry: &Entry, id: Digest, batch: &mut Batch) -> Op<Answer> {
    if !ops::is_native(&entry.topic) && dapps::standing(m, &entry.topic)? == Standing::Suspended {
        // No nonce is consumed: the same entry can be carried again.
        return Ok(Answer {
            outcome: Outcome::Unavailable,
            rule: Some("dapp-suspended".into()),
            detail: Some(format!("the dapp {} is left out for now", entry.topic)),
            output: None,
        });
    }
    take_nonce(m, &entry.author, entry.nonce)?;
    match entry.topic.as_str() {
        ops::BUILD => return Ok(applied(build::apply(m, entry, id)?)),
        ops::UPGRADE => return Ok(applied(upgrade::apply(m, entry, id)?)),
        ops::GOVERN => return Ok(applied(govern::apply(m, entry, id)?)),
        _ => {}
    }
    // What is left is open to everybody who has a key for nothing else.
    if let Some(known) = m.key(&entry.author)? {
        check_purpose(&entry.author, &known)?;
    }
    if entry.topic == ops::NOTE {
        return Ok(applied(None));
    }
    ensure(
        dapps::standing(m, &entry.topic)? == Standing::Open,
        "unknown-topic",
        || format!("no dapp owns the topic {}", entry.topic),
    )?;
    let call = DappEntry {
        author: entry.author,
        body: entry.body.clone(),
        chain: None,
        id,
        nonce: entry.nonce,
        topic: entry.topic.clone(),
    };
    let place = batch.receipts.len();
    batch
        .calls
        .entry(entry.topic.clone())
        .or_default()
        .push((place, call));
    Ok(applied(None))
}

fn applied(output: Option<serde_json::Value>) -> Answer {
    Answer {
        outcome: Outcome::Applied,
        rule: None,
        detail: None,
        output,
    }
}

/// An author's nonces are taken strictly in order, whatever becomes of the entry then.
fn take_nonce(m: &mut Machine<'_>, author: &PublicKey, nonce: u64) -> Op<()> {
    let key = keys::nonce(author);
    let next: u64 = record::read(&m.state, &key)?.unwrap_or(0);
    ensure(nonce >= next, "nonce-used", || {
        format!("the author's next nonce is {next}")
    })?;
    ensure(nonce == next, "nonce-gap", || {
        format!("the author's next nonce is {next}")
    })?;
    // Below 2^53 by canonical JSON, so the next one fits the state too.
    ensure(nonce < MAX_COUNT, "nonce-used-up", || {
        "nonces are used up".into()
    })?;
    record::write(&mut m.state, &key, &(nonce + 1))?;
    Ok(())
}
