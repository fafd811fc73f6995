//! Which lane this node appends to, and when it opens a new incarnation of it.
//!
//! A device must never sign two things at one place. So it goes on in the incarnation of its high-water mark only where
//! mark, store and ledger agree; where the mark is gone, unreadable or older than the ledger, or the device got another
//! key, it opens an incarnation that it can't have used before.

use instar_attest::PublicKey;
use instar_chain::query;
use instar_chain::record::ClosedBy;
use instar_ledger::{DeviceId, Lane, LaneRange, Oid, ReceiptLine};

use super::{Core, CoreError, MAX_LANE_MESSAGE_BYTES, ledger_error};
use crate::api::types::{OwnLane, Quarantined};

/// How far a new incarnation jumps at most. What a restored device did in incarnations that nobody told it of is
/// unknown, so the next one is drawn: that two restores draw the same is one in a million, and the ledger allows sixteen
/// times as far.
const MAX_JUMP: u32 = 1 << 20;

/// The first lane of a device whose first lane key this is.
pub(crate) fn first(key: &PublicKey) -> Lane {
    Lane {
        device: DeviceId::of(key),
        incarnation: 1,
    }
}

impl Core {
    /// Finds the lane to append to; opens a new incarnation if the one before can't be gone on with.
    pub(crate) fn find_own_lane(&mut self) -> Result<(), CoreError> {
        let key = self.keys.lane.public();
        let view = self.state.view()?;
        let device = query::device_of(&view, &key)?;
        let record = query::device(&view, &device)?;
        let why = match self.ledger.marked_lane() {
            Ok(lane) => {
                let fits = record
                    .as_ref()
                    .is_none_or(|d| d.key_of(lane.incarnation) == key);
                let (merged, known) = (self.merged_seq(&lane)?, self.ledger.lane_head(&lane));
                if lane.device != device || !fits {
                    "the device has another lane key than its mark was made for".to_owned()
                } else if merged > known.map_or(0, |(_, seq)| seq) {
                    format!(
                        "commit {merged} of lane {lane} is on the trunk and not in the store: this home was restored"
                    )
                } else {
                    self.own_lane = lane;
                    return Ok(());
                }
            }
            Err(e) => e.to_string(),
        };
        let newest = record.map_or(0, |d| d.incarnation);
        self.begin_incarnation(device, newest, &why)
    }

    /// Opens an incarnation above all that are known.
    fn begin_incarnation(
        &mut self,
        device: DeviceId,
        on_trunk: u32,
        why: &str,
    ) -> Result<(), CoreError> {
        let newest = self
            .ledger
            .lane_heads()
            .into_iter()
            .filter(|(lane, ..)| lane.device == device)
            .map(|(lane, ..)| lane.incarnation)
            .fold(on_trunk, u32::max);
        let lane = Lane {
            device,
            incarnation: newest.saturating_add(1).saturating_add(jump()?),
        };
        self.own_lane = lane;
        match self.ledger.begin_incarnation(&lane) {
            Ok(()) => {
                tracing::warn!(%lane, reason = why, "a new incarnation of the own lane is opened")
            }
            // The mark is another device's, such as that of the key before: nothing is appended until the key fits.
            Err(e) => {
                tracing::warn!(%lane, reason = why, error = %e, "this node has no lane to append to")
            }
        }
        Ok(())
    }

    /// A peer sends the own lane back, as it does with every lane that no block has merged. It may have commits that this
    /// store never had, under this node's own signature: then the home was restored.
    pub(crate) fn own_lane_heard(
        &mut self,
        head: &Oid,
        pack: &[u8],
        key: &PublicKey,
    ) -> Result<bool, CoreError> {
        if self.ledger.lane_commit(head).is_ok() {
            return Ok(false);
        }
        let own = self.own_lane;
        self.ledger
            .import_pack_from(pack, MAX_LANE_MESSAGE_BYTES, |lane, signer| {
                *lane == own && signer == key
            })
            .map_err(|e| CoreError::Refused(e.to_string()))?;
        let why = format!(
            "a peer has commit {head} of lane {own}, which is signed here and not in the store"
        );
        self.begin_incarnation(own.device, own.incarnation, &why)?;
        Ok(false)
    }

    /// After a block that changed who may sign which lane, or that merged what this store never had.
    pub(crate) fn own_lane_after(
        &mut self,
        ranges: &[LaneRange],
        receipts: &[ReceiptLine],
    ) -> Result<(), CoreError> {
        let known = self.ledger.lane_head(&self.own_lane);
        let beyond = ranges
            .iter()
            .any(|r| r.lane() == self.own_lane && known.is_none_or(|(_, seq)| seq < r.to));
        let governed = receipts
            .iter()
            .any(|line| matches!(line, ReceiptLine::Event(e) if e.event == "motion-effective"));
        if beyond || governed {
            self.find_own_lane()?;
        }
        Ok(())
    }

    /// Nothing is appended where it could take no effect.
    pub(crate) fn check_own_lane(&self) -> Result<(), CoreError> {
        let lane = self.own_lane;
        let device = query::device(&self.state.view()?, &lane.device)?;
        match device.and_then(|d| d.closed(lane.incarnation)) {
            Some(closed) => Err(CoreError::Refused(format!(
                "this node's lane {lane} is closed since height {} ({}); send entries to another node; a motion can \
                 give the device a new lane key",
                closed.since,
                closed.by.rule()
            ))),
            None => Ok(()),
        }
    }
}

impl Core {
    /// What `status` says of lanes: the own one, and those that are quarantined.
    pub(crate) fn lanes_status(&self) -> Result<(OwnLane, Vec<Quarantined>), CoreError> {
        let lane = self.own_lane;
        let devices = query::devices(&self.state.view()?)?;
        let own = devices.get(&lane.device);
        let own = OwnLane {
            closed: own.and_then(|d| d.closed(lane.incarnation)),
            lane,
            registered: own.is_some(),
        };
        let quarantined = devices
            .into_iter()
            .filter_map(|(device, d)| {
                let closed = d.closed.filter(|c| c.by == ClosedBy::LaneQuarantined)?;
                Some(Quarantined {
                    device,
                    evidence: closed.evidence,
                    name: d.name,
                    operator: d.operator,
                    since: closed.since,
                })
            })
            .collect();
        Ok((own, quarantined))
    }
}

/// From 0 to [`MAX_JUMP`], drawn.
fn jump() -> Result<u32, CoreError> {
    let mut raw = [0u8; 4];
    getrandom::fill(&mut raw).map_err(ledger_error)?;
    Ok(u32::from_be_bytes(raw) % MAX_JUMP)
}
