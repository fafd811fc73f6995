//! Putting a home together from a snapshot. What was proven gathers in the folder `joining`, durable step by step, and
//! takes its place when all of it is there; so a join that was killed goes on where it was.
//!
//! This knows no network: whoever calls it has the header from a light check, and hands in what others sent.

use std::fs;
use std::path::PathBuf;

use instar_attest::Purpose;
use instar_chain::query;
use instar_ledger::store::BaseCommit;
use instar_ledger::{Genesis, Lane, Oid, Store, StoreError};
use instar_state::snapshot::{Restore, RestoreError};
use instar_state::{Head, StateStore};

use crate::core::base::Base;
use crate::core::open::{OpenError, options};
use crate::core::{CoreError, ledger_error, own_lane};
use crate::home::Home;

/// A home that is being put together.
pub struct Joining<'a> {
    home: &'a Home,
    genesis: &'a Genesis,
    base: Base,
}

/// How far the state is.
pub enum State {
    /// Chunks are missing.
    Chunks(Restore),
    /// It is whole.
    Whole(StateStore),
}

/// The ledger on its way.
pub struct Ledger {
    store: Store,
    lanes: Vec<(Lane, Oid, u64)>,
    wanted: Vec<BaseCommit>,
    have: usize,
}

impl<'a> Joining<'a> {
    /// What a join that did not end was about.
    pub fn under_way(home: &Home) -> Result<Option<Base>, CoreError> {
        Base::read(&home.joining().join("base.json"))
    }

    /// Removes what a join left that did not end, for a home that begins at genesis after all.
    pub fn forget(home: &Home) -> Result<(), CoreError> {
        if !home.joining().exists() || home.ledger().exists() {
            return Ok(());
        }
        // Without a ledger beside it a state is what a killed join had moved.
        match fs::remove_file(home.state()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(ledger_error(e)),
            _ => {}
        }
        remove(&home.joining())
    }

    /// Begins with what a light check proved, or goes on if the last join was about the same block. What is left of
    /// another one is removed.
    pub fn begin(home: &'a Home, genesis: &'a Genesis, base: Base) -> Result<Self, CoreError> {
        let same = Self::under_way(home)?.is_some_and(|there| there.block() == base.block());
        if !same {
            remove(&home.joining())?;
        }
        fs::create_dir_all(home.joining()).map_err(ledger_error)?;
        base.write(&home.joining().join("base.json"))?;
        let joining = Self {
            home,
            genesis,
            base,
        };
        // A join that was killed between its last steps has moved the state already.
        if home.state().exists() && !joining.state_path().exists() {
            fs::rename(home.state(), joining.state_path()).map_err(ledger_error)?;
        }
        Ok(joining)
    }

    /// What is proven of the block that the home will begin with.
    pub fn base(&self) -> &Base {
        &self.base
    }

    fn state_path(&self) -> PathBuf {
        self.home.joining().join("state.redb")
    }

    fn ledger_path(&self) -> PathBuf {
        self.home.joining().join("ledger.git")
    }

    /// The state as far as it is.
    pub fn state(&self) -> Result<State, RestoreError> {
        let signed = &self.base.header;
        let certificate = signed.certificate.to_bytes();
        let target = Head {
            height: self.base.height(),
            block: self.base.block(),
            root: signed.header.state_root,
            certificate: certificate
                .map_err(|e| instar_state::StoreError::Damaged(e.to_string()))?,
        };
        let store = StateStore::open(&self.state_path())?;
        if store.head()?.is_some_and(|head| head == target) {
            return Ok(State::Whole(store));
        }
        drop(store);
        match Restore::open(&self.state_path(), &target) {
            Err(RestoreError::OtherTarget { .. }) => {
                self.forget_state()?;
                Restore::open(&self.state_path(), &target).map(State::Chunks)
            }
            other => other.map(State::Chunks),
        }
    }

    /// Throws away the chunks that are there: another list cuts the state in another way.
    pub fn forget_state(&self) -> Result<(), RestoreError> {
        fs::remove_file(self.state_path())
            .map_err(|e| instar_state::StoreError::Damaged(e.to_string()).into())
    }

    /// A ledger for this state, without any commits yet.
    pub fn ledger(&self, state: &StateStore) -> Result<Ledger, OpenError> {
        let view = state.view().map_err(CoreError::from)?;
        let marks = query::lanes(&view).map_err(CoreError::from)?;
        let lanes: Vec<_> = marks
            .into_iter()
            .map(|(lane, mark)| (lane, mark.head, mark.seq))
            .collect();
        // A ledger that is half there is small, and no part of it was acknowledged.
        remove(&self.ledger_path())?;
        self.home.create()?;
        let options = options(&self.home.marks());
        let (store, _) = Store::create_with(&self.ledger_path(), self.genesis, &options)
            .map_err(ledger_error)?;
        let heads = lanes
            .iter()
            .map(|(l, id, seq)| BaseCommit::Lane(*l, *id, *seq));
        Ok(Ledger {
            store,
            wanted: [BaseCommit::Block(self.base.block())]
                .into_iter()
                .chain(heads)
                .collect(),
            lanes,
            have: 0,
        })
    }

    /// Puts everything into its place; the home is one like any other then.
    pub fn finish(self, state: StateStore, ledger: Ledger) -> Result<(), OpenError> {
        let Ledger {
            mut store, lanes, ..
        } = ledger;
        store
            .begin_at(&self.base.header.certificate, &lanes)
            .map_err(ledger_error)?;
        let own = own_lane::first(&self.home.key(Purpose::Lane)?.public());
        match store.begin_incarnation(&own) {
            // A device that had a lane before gets another incarnation of it when the node starts.
            Ok(()) | Err(StoreError::Mark(_)) => {}
            Err(e) => return Err(ledger_error(e).into()),
        }
        drop((store, state));
        self.base.write(&self.home.base())?;
        // The ledger comes last: a home that has one is whole.
        fs::rename(self.state_path(), self.home.state()).map_err(ledger_error)?;
        fs::rename(self.ledger_path(), self.home.ledger()).map_err(ledger_error)?;
        fs::File::open(self.home.path())
            .and_then(|folder| folder.sync_all())
            .map_err(ledger_error)?;
        Ok(remove(&self.home.joining())?)
    }
}

impl Ledger {
    /// How many commits are there, and of how many.
    pub fn progress(&self) -> (usize, usize) {
        (self.have, self.wanted.len())
    }

    /// Takes in the next commits; a pack that has none, or anything else, is refused.
    pub fn add(&mut self, pack: &[u8], max: usize) -> Result<(), CoreError> {
        let refused = |e: String| CoreError::Refused(e);
        let count = self
            .store
            .import_base(pack, max, &self.wanted[self.have..])
            .map_err(|e| refused(e.to_string()))?;
        if count == 0 {
            return Err(refused("it has none of the commits asked for".into()));
        }
        self.have += count;
        Ok(())
    }
}

fn remove(path: &std::path::Path) -> Result<(), CoreError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(ledger_error(format!(
            "{} can't be removed: {e}",
            path.display()
        ))),
        _ => Ok(()),
    }
}
