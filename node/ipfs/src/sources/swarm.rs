//! Peers over bitswap as a source: the embedded peer, asked block by block from threads that wait.

use std::time::Duration;

use cid::Cid;
use tokio::runtime::Handle;

use super::{Source, SourceError};
use crate::fetch::PeerSession;
use crate::peer::Peer;

/// How long a block may take before somebody else should have it.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(12);
/// Blocks asked for at a time, of all peers together.
const PARALLEL: usize = 16;

/// All peers that an embedded peer is connected to.
pub struct SwarmSource {
    session: PeerSession,
    runtime: Handle,
    name: String,
}

impl SwarmSource {
    /// Asks through `peer`, whose tasks run on `runtime`.
    pub fn new(peer: &Peer, runtime: Handle, name: String) -> Self {
        Self {
            session: peer.session(),
            runtime,
            name,
        }
    }
}

impl Source for SwarmSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, SourceError> {
        let want = self.session.block(*cid);
        let waited = self
            .runtime
            .block_on(async { tokio::time::timeout(BLOCK_TIMEOUT, want).await });
        match waited {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => {
                let peers = self.session.peers();
                let liars = self.liars().join(", ");
                let liars = match liars.as_str() {
                    "" => String::new(),
                    liars => format!("; refused: {liars}"),
                };
                Err(SourceError(format!(
                    "none of {peers} connected peers gave {cid} in time{liars}"
                )))
            }
        }
    }

    fn liars(&self) -> Vec<String> {
        self.session.refused()
    }
}
