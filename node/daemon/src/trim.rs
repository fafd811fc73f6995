//! Memory that is free goes back to the system: the allocator keeps what was needed once, and a chain under load needs much
//! at times. On a small board the kernel has better use for it.

use std::time::Duration;

/// How often. It takes some milliseconds.
const EVERY: Duration = Duration::from_secs(15);

pub(crate) async fn trim_loop() {
    loop {
        tokio::time::sleep(EVERY).await;
        // On a thread of its own, since it waits for the allocator's locks.
        let _ = tokio::task::spawn_blocking(trim).await;
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: the call takes a number, and may be made by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
