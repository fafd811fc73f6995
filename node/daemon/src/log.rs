//! Logs go to standard error, one line an event; the level comes from `INSTAR_LOG`.

use tracing_subscriber::EnvFilter;

/// What is logged unless `INSTAR_LOG` says otherwise: our own events, and only trouble of the libraries.
const DEFAULT: &str = "warn,instar_node=info,instar_consensus=info,instar_ipfs=info,libp2p=error,arc_malachitebft_network=error,arc_malachitebft_discovery=error";

/// Installs the log. A second call changes nothing.
pub fn init() {
    let filter = EnvFilter::try_from_env("INSTAR_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
