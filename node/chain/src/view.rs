//! The authenticated state, seen from the state machine: a map from printable keys to bytes, behind a trait.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The longest key, in bytes, with its key space's prefix.
pub const MAX_KEY_BYTES: usize = 512;
/// The largest value, in bytes. The largest record of ours is the registry of the largest validator set.
pub const MAX_VALUE_BYTES: usize = 512 * 1024;

/// Why the state can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A value is not what the tree says, or not of the shape that its key demands.
    #[error("the state is corrupt at key {key}: {why}")]
    Corrupt {
        /// The key.
        key: String,
        /// What is wrong with its value.
        why: String,
    },
    /// The store could not be read.
    #[error("the state can't be read: {0}")]
    Io(String),
}

/// What a block changes: a value for each key that is set, none for each that is deleted.
pub type Writes = BTreeMap<String, Option<Vec<u8>>>;

/// One version of the state. Keys are printable ASCII of at most [`MAX_KEY_BYTES`].
pub trait StateView {
    /// The value of `key`.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError>;

    /// The first `limit` keys that begin with `prefix`, ascending, with their values.
    fn range(&self, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StateError>;
}

/// A state in memory: the working fake, and the fork that a rehearsal runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryState(BTreeMap<String, Vec<u8>>);

impl MemoryState {
    /// Sets one key.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.insert(key.into(), value.into());
    }

    /// Makes a block's changes.
    pub fn apply(&mut self, writes: &Writes) {
        for (key, value) in writes {
            match value {
                Some(value) => self.0.insert(key.clone(), value.clone()),
                None => self.0.remove(key),
            };
        }
    }

    /// All keys and values, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_slice()))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl StateView for MemoryState {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        Ok(self
            .0
            .range::<str, _>(from)
            .take_while(|(k, _)| k.starts_with(prefix))
            .take(limit)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect())
    }
}

/// A state with changes on top that are not committed yet.
pub struct Overlay<'a> {
    base: &'a dyn StateView,
    writes: Writes,
}

impl<'a> Overlay<'a> {
    /// Nothing is changed yet.
    pub fn new(base: &'a dyn StateView) -> Self {
        Self {
            base,
            writes: Writes::new(),
        }
    }

    /// Sets `key`.
    pub fn put(&mut self, key: impl Into<String>, value: Vec<u8>) {
        self.writes.insert(key.into(), Some(value));
    }

    /// Deletes `key`.
    pub fn delete(&mut self, key: impl Into<String>) {
        self.writes.insert(key.into(), None);
    }

    /// Makes further changes.
    pub fn extend(&mut self, writes: Writes) {
        self.writes.extend(writes);
    }

    /// What was changed, without those writes that leave a key as the base has it.
    pub fn into_writes(self) -> Result<Writes, StateError> {
        let base = self.base;
        let mut out = Writes::new();
        for (key, value) in self.writes {
            if base.get(&key)? != value {
                out.insert(key, value);
            }
        }
        Ok(out)
    }
}

impl StateView for Overlay<'_> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(key),
        }
    }

    fn range(&self, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let own: Vec<_> = self
            .writes
            .range::<str, _>(from)
            .take_while(|(k, _)| k.starts_with(prefix))
            .collect();
        // Each own write hides at most one key of the base, so this many always suffice.
        let base = self.base.range(prefix, limit.saturating_add(own.len()))?;
        let mut merged: BTreeMap<String, Vec<u8>> = base.into_iter().collect();
        for (key, value) in own {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }
}

/// A dapp's own key space: the keys below a prefix, without it.
pub struct KeySpace<'a> {
    base: &'a dyn StateView,
    prefix: String,
    /// The first error that was handed out: whoever runs the dapp may have made something else of it.
    failed: RefCell<Option<StateError>>,
}

impl<'a> KeySpace<'a> {
    /// The keys of `dapp` in `base`.
    pub fn of_dapp(base: &'a dyn StateView, dapp: &str) -> Self {
        Self {
            base,
            prefix: crate::keys::dapp_space(dapp),
            failed: RefCell::new(None),
        }
    }

    /// The first error that a read came to.
    pub fn failure(&self) -> Option<StateError> {
        self.failed.borrow().clone()
    }

    fn note(&self, error: StateError) -> StateError {
        self.failed.borrow_mut().get_or_insert(error.clone());
        error
    }
}

impl StateView for KeySpace<'_> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let key = format!("{}{key}", self.prefix);
        self.base.get(&key).map_err(|e| self.note(e))
    }

    fn range(&self, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let prefix = format!("{}{prefix}", self.prefix);
        let found = self.base.range(&prefix, limit).map_err(|e| self.note(e))?;
        Ok(found
            .into_iter()
            .map(|(k, v)| (k[self.prefix.len()..].to_owned(), v))
            .collect())
    }
}

/// Whether `key` may stand in the state: printable ASCII without spaces, of bounded length, not empty.
pub fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY_BYTES && key.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(found: Vec<(String, Vec<u8>)>) -> Vec<String> {
        found.into_iter().map(|(k, _)| k).collect()
    }

    #[test]
    fn an_overlay_merges_deletes_and_bounds() {
        let mut base = MemoryState::default();
        for key in ["a/1", "a/2", "a/3", "b/1"] {
            base.insert(key, key.as_bytes());
        }
        let mut over = Overlay::new(&base);
        over.delete("a/1");
        over.put("a/0", b"new".to_vec());
        over.put("b/1", b"b/1".to_vec());
        assert_eq!(keys(over.range("a/", 2).unwrap()), ["a/0", "a/2"]);
        assert_eq!(over.get("a/1"), Ok(None));
        let writes = over.into_writes().unwrap();
        assert_eq!(
            writes.keys().collect::<Vec<_>>(),
            ["a/0", "a/1"],
            "a write that changes nothing is no write"
        );
    }

    #[test]
    fn a_key_space_sees_its_own_keys_only() {
        let mut base = MemoryState::default();
        base.insert("d/coin/a", b"1".to_vec());
        base.insert("d/coinage/a", b"2".to_vec());
        base.insert("n/head", b"3".to_vec());
        let space = KeySpace::of_dapp(&base, "coin");
        assert_eq!(keys(space.range("", 10).unwrap()), ["a"]);
        assert_eq!(space.get("../../n/head"), Ok(None));
    }
}
