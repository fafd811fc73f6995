//! Ending early: on SIGINT, SIGTERM or SIGHUP the demo stops its processes and removes what it made.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on a signal asks the demo to end, instead of ending it on the spot with its nodes left behind.
pub fn watch() -> Result<()> {
    instar_upgrader::on_stop(|| ASKED.store(true, Ordering::Relaxed))
        .context("signals can't be handled")
}

/// Fails when the demo was asked to end. Everything that waits asks this.
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::Relaxed) {
        bail!("interrupted; its processes are stopped");
    }
    Ok(())
}
