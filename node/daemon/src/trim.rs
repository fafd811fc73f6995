//! Memory that is free goes back to the system: the allocator keeps what was needed once, and a chain under load needs much
//! at times. On a small board the kernel has better use for it.
//!
//! Of what a loaded node held two thirds were such leftovers: glibc gives up to eight arenas to a core, and each keeps the
//! most that its threads ever needed.

use std::time::Duration;

/// How often. It takes a millisecond or two, less the more often it is done. Between two of them what is new lands
/// anywhere in the room that the busiest minute needed, each time on another page.
const EVERY: Duration = Duration::from_secs(1);
/// What is larger is mapped by itself and unmapped when it is free: packs and slices, a few a block. Without a fixed bound
/// glibc raises its own up to 32 MiB, one large buffer at a time.
#[cfg(target_env = "gnu")]
const MAPPED_ALONE_BYTES: i32 = 256 * 1024;
/// Free memory at the end of an arena above this goes back at once.
#[cfg(target_env = "gnu")]
const KEPT_AT_END_BYTES: i32 = 512 * 1024;

pub(crate) async fn trim_loop() {
    loop {
        tokio::time::sleep(EVERY).await;
        // On a thread of its own, since it waits for the allocator's locks.
        let _ = tokio::task::spawn_blocking(trim).await;
    }
}

/// Bounds what the allocator keeps. To be called before the node's threads begin: arenas that are there stay.
#[cfg(target_env = "gnu")]
pub(crate) fn bound() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = i32::try_from(cores).unwrap_or(i32::MAX);
    for (what, value) in [
        (libc::M_ARENA_MAX, arenas),
        (libc::M_MMAP_THRESHOLD, MAPPED_ALONE_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_AT_END_BYTES),
    ] {
        // SAFETY: the call takes two numbers, and refuses those that it does not know.
        unsafe { libc::mallopt(what, value) };
    }
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn bound() {}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: the call takes a number, and may be made by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
