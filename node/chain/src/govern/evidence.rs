//! `govern.evidence`: a device signed two different payloads for one place of its lane.

use instar_attest::{Digest, Purpose};
use instar_ledger::Entry;
use instar_ledger::equivocation::Evidence;
use instar_ledger::grammar::LanePayload;
use serde_json::json;

use crate::keys;
use crate::machine::{Machine, Op, ensure, refuse};
use crate::record::{self, Closed, ClosedBy, DeviceRecord};

/// Closes the lane from this entry on. What was merged before stands.
pub(super) fn apply(m: &mut Machine<'_>, entry: &Entry, id: Digest, evidence: &Evidence) -> Op {
    // Anybody may bring it, with any key that does nothing else.
    if let Some(known) = m.key(&entry.author)? {
        ensure(
            known.purpose == Purpose::Account,
            "wrong-key-purpose",
            || format!("{} is a {} key", entry.author, known.purpose),
        )?;
    }
    // Whose lane it is comes first: signatures cost time, and a closed lane is closed.
    let Ok(payload) = LanePayload::from_bytes(evidence.a.payload.as_bytes(), &m.chain) else {
        return refuse(
            "evidence-invalid",
            "a payload is no lane commit of this chain",
        );
    };
    let lane = payload.lane;
    let key = keys::device(&lane.device);
    let Some(mut device) = record::read::<DeviceRecord>(&m.state, &key)? else {
        return refuse(
            "unknown-device",
            format!("there is no device {}", lane.device),
        );
    };
    if let Some(closed) = device.closed(lane.incarnation) {
        let detail = format!("lane {lane} is closed since height {}", closed.since);
        return refuse("lane-closed", detail);
    }
    let proven = match evidence.check(&m.chain) {
        Ok(proven) => proven,
        // What exactly is wrong is for whoever made it to find out; the words of parsers may change.
        Err(_) => {
            return refuse(
                "evidence-invalid",
                "it takes two different payloads of one lane and sequence number, both signed",
            );
        }
    };
    let own = device.key_of(lane.incarnation);
    ensure(
        proven.keys.iter().all(|k| *k == own),
        "evidence-of-another-key",
        || {
            format!(
                "lane {lane} is signed by {own}; a commit by another key is no lane commit of it"
            )
        },
    )?;
    device.closed = Some(Closed {
        by: ClosedBy::LaneQuarantined,
        evidence: Some(id),
        since: m.height,
    });
    record::write(&mut m.state, &key, &device)?;
    let body = json!({
        "device": lane.device, "evidence": id, "incarnation": lane.incarnation, "name": device.name,
        "operator": device.operator, "seq": proven.seq,
    });
    m.event("lane-quarantined", *lane.device.digest(), body);
    Ok(Some(json!({"device": lane.device, "seq": proven.seq})))
}
