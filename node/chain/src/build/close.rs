//! How a round goes from phase to phase, and what it comes to.

use std::collections::BTreeMap;

use instar_attest::Digest;
use instar_attest::json;
use instar_attest::release::{
    ChunkProfile, Cid, FileReveal, Release, ReleaseHead, SbomReveal, Target,
};
use instar_chunks::Profile;
use serde_json::{Value, json};

use super::assemble::release_root;
use super::open_ids;
use super::reveal::StoredReveal;
use super::round::{Round, RoundPhase};
use super::tally::{self, Count, Said};
use crate::gates::Gate;
use crate::keys;
use crate::machine::Machine;
use crate::record::{self, Deadline};
use crate::view::StateError;

/// Moves a round on as far as it can go, and writes it.
pub(super) fn advance(m: &mut Machine<'_>, round: &mut Round) -> Result<(), StateError> {
    let over = |r: &Round| r.deadline.has_passed(m.height, m.time_ms);
    let committed = round.builders.iter().filter(|b| b.committed.is_some());
    let (n, committed) = (round.builders.len(), committed.count());
    // Never at k: that would lock out the slow and honest.
    if round.phase == RoundPhase::Commit && (committed == n || over(round)) {
        round.phase = RoundPhase::Reveal;
        round.deadline = Deadline {
            height: m.height + round.policy.reveal_blocks,
            time_ms: m.time_ms + round.policy.reveal_ms,
        };
        let body = json!({"builders": n, "committed": committed});
        m.event("round-revealing", round.id, body);
    }
    if round.phase == RoundPhase::Reveal {
        let revealed = round.builders.iter().filter(|b| b.revealed.is_some());
        let over = round.deadline.has_passed(m.height, m.time_ms);
        if revealed.count() == committed || over {
            close(m, round)?;
        }
    }
    record::write(&mut m.state, &keys::round(&round.id), round)
}

/// The reveals of a round, with the name of each builder.
type Reveals = Vec<(String, Said, StoredReveal)>;

fn close(m: &mut Machine<'_>, round: &mut Round) -> Result<(), StateError> {
    let reveals = take_reveals(m, round)?;
    let said: Vec<Said> = reveals.iter().map(|(_, said, _)| said.clone()).collect();
    let required = round.policy.target_list();
    let k = round.policy.builders as usize;
    let mut count = tally::count(&said, &required, k);
    let best = tally::best(&said, &required);
    if let (false, Some((targets, sbom))) = (m.gates.hold(Gate::BuilderThreshold), best.clone()) {
        count = Count::Agreed { targets, sbom };
    }
    let failed = match count {
        Count::Agreed { targets, sbom } => match release(m, round, &reveals, &targets, &sbom) {
            Ok((text, root)) => {
                agree(m, round, &reveals, targets, (text, root));
                None
            }
            Err(why) => Some(("release-not-assembled", why)),
        },
        Count::Below { best, .. } => Some((
            "builders-below-threshold",
            format!("{best} of {k} builders"),
        )),
        Count::Disagree { target } => {
            let detail = format!("more than one answer for {target} has {k} builders");
            Some(("builders-disagree", detail))
        }
        Count::SbomsDiffer => {
            let detail = "the targets were built with different SBOMs";
            Some(("sboms-differ", detail.into()))
        }
    };
    round.closed_at = Some(m.height);
    if let Some((rule, detail)) = failed {
        round.would_be = best.and_then(|(targets, sbom)| {
            let named = release(m, round, &reveals, &targets, &sbom);
            named.ok().map(|(_, root)| root)
        });
        fail(m, round, rule, detail);
    }
    let open: Vec<Digest> = open_ids(&m.state)?
        .into_iter()
        .filter(|id| *id != round.id)
        .collect();
    record::write(&mut m.state, keys::OPEN_ROUNDS, &open)
}

/// Takes the reveals out of the state; they stay in the entries.
fn take_reveals(m: &mut Machine<'_>, round: &Round) -> Result<Reveals, StateError> {
    let mut reveals = Vec::new();
    for builder in round.builders.iter().filter(|b| b.revealed.is_some()) {
        let key = keys::reveal(&round.id, &builder.key);
        let stored: StoredReveal = record::expect(&m.state, &key)?;
        m.state.delete(key);
        let targets = builder.revealed.as_ref().map(|r| r.targets.clone());
        let said = Said {
            operator: builder.operator.clone(),
            targets: targets.unwrap_or_default(),
            sbom: sbom_digest(&stored.sbom),
        };
        reveals.push((builder.name.clone(), said, stored));
    }
    Ok(reveals)
}

/// The whole SBOM reveal counts, not just its content: its CID and sizes stand in the release.
fn sbom_digest(sbom: &SbomReveal) -> Digest {
    Digest::of(&json::to_vec(sbom).expect("checked sizes are below 2^53, all else is ASCII text"))
}

fn release(
    m: &Machine<'_>,
    round: &Round,
    reveals: &Reveals,
    agreed: &BTreeMap<Target, Digest>,
    sbom: &Digest,
) -> Result<(String, Cid), String> {
    let mut targets: BTreeMap<Target, Vec<FileReveal>> = BTreeMap::new();
    let mut chosen = None;
    for (_, said, stored) in reveals.iter().filter(|(_, said, _)| said.sbom == *sbom) {
        chosen.get_or_insert_with(|| stored.sbom.clone());
        for (target, digest) in agreed {
            if said.targets.get(target) == Some(digest)
                && let Some(files) = stored.targets.get(target)
            {
                targets.insert(target.clone(), files.clone());
            }
        }
    }
    let profile = ChunkProfile::new(Profile::InstarCdcV1.name()).map_err(|e| e.to_string())?;
    let head = ReleaseHead {
        activation: round.activation,
        chain: m.chain,
        chunk_profile: profile,
        name: round.name.clone(),
        number: round.number,
        protocol: round.protocol,
        slot: round.slot.clone(),
        source: round.source.clone(),
    };
    let sbom = chosen.ok_or("nobody revealed this SBOM")?;
    let release = Release::assemble(head, &targets, sbom).map_err(|e| e.to_string())?;
    release_root(&release).map_err(|e| e.to_string())
}

fn agree(
    m: &mut Machine<'_>,
    round: &mut Round,
    reveals: &Reveals,
    targets: BTreeMap<Target, Digest>,
    (text, root): (String, Cid),
) {
    let matches = |said: &Said| {
        let mut own = round.policy.target_list().into_iter();
        own.all(|t| said.targets.get(&t) == targets.get(&t))
    };
    round.matched = reveals
        .iter()
        .filter(|(_, said, _)| matches(said))
        .map(|(name, ..)| name.clone())
        .collect();
    round.matched.sort();
    m.state.put(keys::release(root.as_str()), text.into_bytes());
    round.agreed = targets;
    round.phase = RoundPhase::Agreed;
    let mut body = head_of(round);
    body["matched"] = json!(round.matched);
    body["release"] = json!(root);
    round.release = Some(root);
    m.event("round-closed", round.id, body);
}

fn fail(m: &mut Machine<'_>, round: &mut Round, rule: &str, detail: String) {
    round.phase = RoundPhase::Failed;
    let mut body = head_of(round);
    body["detail"] = json!(detail);
    body["rule"] = json!(rule);
    body["would_be"] = json!(round.would_be);
    round.rule = Some(rule.to_owned());
    round.detail = Some(detail);
    m.event("round-failed", round.id, body);
}

fn head_of(round: &Round) -> Value {
    json!({"number": round.number, "slot": round.slot})
}
