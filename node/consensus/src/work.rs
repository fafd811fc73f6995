//! The signal that ends idleness.

use std::sync::Arc;

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

    /// Waits for [`WorkSignal::notify`].
    pub(crate) async fn wait(&self) {
        self.0.notified().await;
    }
}
