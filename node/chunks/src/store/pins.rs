//! What a store is told to keep, and how much it may: pins by name, and the quota.

use cid::Cid;
use redb::{ReadableDatabase, ReadableTable};

use super::{BlockStore, META, PINS, failed};
use crate::block::{BlockError, canonical};
use crate::walk::{DagError, Limits, missing};

/// Longest name of a pin.
pub const MAX_PIN_NAME_BYTES: usize = 255;

const QUOTA: &str = "quota_bytes";

impl BlockStore {
    /// Pins `root` under `name`; a name holds one root, the latest.
    pub fn pin(&self, name: &str, root: &Cid) -> Result<(), BlockError> {
        let root = canonical(root)?;
        if name.is_empty() || name.len() > MAX_PIN_NAME_BYTES {
            return Err(BlockError::Store {
                what: "pin",
                source: "the name of a pin has 1 to 255 bytes".into(),
            });
        }
        self.write("pin", |tables| {
            tables
                .pins
                .insert(name, root.to_bytes().as_slice())
                .map_err(failed("pin"))?;
            Ok(())
        })
    }

    /// Pins `root` under `name` if all of it is held, and collects nothing in between; else says
    /// what is missing, as [`missing`] does.
    pub fn pin_whole(&self, name: &str, root: &Cid, limits: &Limits) -> Result<Vec<Cid>, DagError> {
        let _lease = self.gate.lease();
        let absent = missing(self, root, limits)?;
        if absent.is_empty() {
            self.pin(name, root)?;
        }
        Ok(absent)
    }

    /// Drops the pin `name`; true if there was one. Its blocks stay until they are collected.
    pub fn unpin(&self, name: &str) -> Result<bool, BlockError> {
        self.write("unpin", |tables| {
            let held = tables.pins.remove(name).map_err(failed("unpin"))?;
            Ok(held.is_some())
        })
    }

    /// All pins by name.
    pub fn pins(&self) -> Result<Vec<(String, Cid)>, BlockError> {
        let read = self.db.begin_read().map_err(failed("list pins"))?;
        let table = read.open_table(PINS).map_err(failed("list pins"))?;
        let mut pins = Vec::new();
        for row in table.iter().map_err(failed("list pins"))? {
            let (name, cid) = row.map_err(failed("list pins"))?;
            let cid = Cid::try_from(cid.value()).map_err(failed("read a pin"))?;
            pins.push((name.value().to_owned(), cid));
        }
        Ok(pins)
    }

    /// The most bytes that the segments may have.
    pub fn quota(&self) -> Result<Option<u64>, BlockError> {
        let read = self.db.begin_read().map_err(failed("read the quota"))?;
        let table = read.open_table(META).map_err(failed("read the quota"))?;
        let quota = table.get(QUOTA).map_err(failed("read the quota"))?;
        Ok(quota.map(|quota| quota.value()))
    }

    /// Sets or lifts the quota. Blocks over it stay; new ones are refused.
    pub fn set_quota(&self, quota_bytes: Option<u64>) -> Result<(), BlockError> {
        self.write("set the quota", |tables| {
            match quota_bytes {
                Some(bytes) => tables.meta.insert(QUOTA, bytes),
                None => tables.meta.remove(QUOTA),
            }
            .map_err(failed("set the quota"))?;
            Ok(())
        })
    }
}
