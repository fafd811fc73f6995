//! A lane that says two things at one place: what is found is proven on the ledger, once.

use instar_chain::govern::GovernOp;
use instar_chain::ops::GOVERN;
use instar_chain::query;
use instar_ledger::equivocation::Evidence;
use instar_ledger::{DeviceId, Lane, Oid};

use super::{Core, CoreError, ledger_error};
use crate::node::now_ms;

impl Core {
    /// Compares what came with what is here. Both are kept: what came is in the store, and the evidence holds both
    /// payloads.
    pub(crate) fn check_fork(&mut self, lane: &Lane, theirs: &Oid) -> Result<(), CoreError> {
        let Some((ours, theirs)) = self.fork(lane, theirs)? else {
            return Ok(());
        };
        let bytes = |id: &Oid| {
            let commit = self.ledger.signed_lane_commit(id).map_err(ledger_error)?;
            Ok::<_, CoreError>(commit.to_bytes())
        };
        match Evidence::of(&self.chain, &bytes(&ours)?, &bytes(&theirs)?) {
            Ok(evidence) => self.accuse(&lane.device, evidence)?,
            // One payload with two signatures is no equivocation yet; whatever follows on both is.
            Err(e) => tracing::warn!(%lane, error = %e, "a lane forks without evidence"),
        }
        Err(CoreError::Refused(format!(
            "lane {lane} says two things at one sequence number: {ours} and {theirs}"
        )))
    }

    /// Two commits at one place, where what came does not contain what is here or the other way round.
    fn fork(&self, lane: &Lane, theirs: &Oid) -> Result<Option<(Oid, Oid)>, CoreError> {
        let refused = |e: instar_ledger::StoreError| CoreError::Refused(e.to_string());
        let tail = self.tails.get(lane).and_then(|t| t.commits.last());
        let merged = query::lane(&self.state.view()?, lane)?;
        let (ours, seq) = match (tail, merged) {
            (Some(commit), _) => (commit.id, commit.seq),
            (None, Some(mark)) => (mark.head, mark.seq),
            (None, None) => return Ok(None),
        };
        let at = seq.min(self.ledger.lane_commit(theirs).map_err(refused)?.seq);
        let here = self.ledger.lane_commit_at(&ours, at).map_err(refused)?;
        let there = self.ledger.lane_commit_at(theirs, at).map_err(refused)?;
        Ok(match (here, there) {
            (Some(here), Some(there)) if here != there => Some((here, there)),
            _ => None,
        })
    }

    /// Appends the evidence to the own lane, unless somebody did or the lane is closed.
    fn accuse(&mut self, device: &DeviceId, evidence: Evidence) -> Result<(), CoreError> {
        let known = query::device(&self.state.view()?, device)?;
        let about = device.to_string();
        let under_way = self
            .tails
            .values()
            .flat_map(|t| &t.commits)
            .flat_map(|c| &c.entries)
            .filter(|e| e.topic == GOVERN && e.body["op"] == "evidence")
            .any(|e| {
                e.body["a"]["payload"]
                    .as_str()
                    .is_some_and(|p| p.contains(&about))
            });
        if under_way || known.is_none_or(|d| d.closed.is_some()) {
            return Ok(());
        }
        tracing::warn!(%device, "a device said two things at one place of its lane; the evidence goes on the ledger");
        let entry = self.sign_statement(GOVERN, GovernOp::Evidence(evidence).to_value())?;
        self.news = self.append(&[entry], now_ms() / 1000)?;
        Ok(())
    }
}
