//! Keeps garbage collection and fetches apart: a lease is held while blocks arrive that no pin
//! reaches yet, and nothing is collected while one is.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    leases: usize,
    collecting: bool,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere can't leave the two numbers half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gate of one store.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Inner>);

/// Blocks that are held, or that arrive while this is held, are not collected. It may be sent to
/// other threads and held for as long as a fetch takes.
#[derive(Debug, Default)]
pub struct Lease(Option<Arc<Inner>>);

/// Nothing but one collection may go on while this is held.
#[derive(Debug)]
pub(super) struct Collecting(Arc<Inner>);

impl Gate {
    /// Waits for a collection under way; those are short.
    pub fn lease(&self) -> Lease {
        let mut state = self.0.lock();
        while state.collecting {
            state = self
                .0
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.leases += 1;
        Lease(Some(Arc::clone(&self.0)))
    }

    /// Waits at most `patience` for leases to end; then says how many there are.
    pub fn collect(&self, patience: Duration) -> Result<Collecting, usize> {
        let deadline = Instant::now() + patience;
        let mut state = self.0.lock();
        while state.collecting || state.leases > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(state.leases);
            }
            (state, _) = self
                .0
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.collecting = true;
        Ok(Collecting(Arc::clone(&self.0)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(inner) = &self.0 {
            inner.lock().leases -= 1;
            inner.changed.notify_all();
        }
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        self.0.lock().collecting = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_the_other() {
        let gate = Gate::default();
        let (a, b) = (gate.lease(), gate.lease());
        assert_eq!(gate.collect(Duration::ZERO).unwrap_err(), 2);
        drop(a);
        assert_eq!(gate.collect(Duration::ZERO).unwrap_err(), 1);
        drop(b);
        let collecting = gate.collect(Duration::ZERO).unwrap();
        let other = gate.clone();
        let waiting = std::thread::spawn(move || drop(other.lease()));
        assert!(gate.collect(Duration::ZERO).is_err());
        drop(collecting);
        waiting.join().unwrap();
        assert!(gate.collect(Duration::ZERO).is_ok());
    }
}
