//! The signal that ends idleness.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::sync::Notify;

/// Says that there is something to decide. A chain without work makes no rounds, no votes and no writes.
///
/// Cloning gives another handle to the same signal. One notification is remembered until it is used, so a signal given
/// just before consensus waits for it is not lost.
#[derive(Debug, Clone, Default)]
pub struct WorkSignal(Arc<Notify>);

impl WorkSignal {
    /// A signal that has not been given.
    pub fn new() -> Self {
        Self::default()
    }

    /// There is work. Costs nothing when it is given often.
    pub fn notify(&self) {
        self.0.notify_one();
    }

    /// Takes a notification that nobody waited for, if there is one.
    pub(crate) fn take(&self) -> bool {
        // Polling once takes a notification that is already there, and waits for none.
        let mut waiting = std::pin::pin!(self.0.notified());
        waiting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    /// Waits for [`WorkSignal::notify`].
    pub(crate) async fn wait(&self) {
        self.0.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_notification_is_kept_until_it_is_used() {
        let signal = WorkSignal::new();
        signal.notify();
        signal.clone().wait().await;
        signal.notify();
        signal.notify();
        assert!(signal.take());
        assert!(!signal.take());
        let wait = tokio::time::timeout(std::time::Duration::from_millis(20), signal.wait());
        assert!(wait.await.is_err());
        signal.notify();
        signal.wait().await;
    }
}
