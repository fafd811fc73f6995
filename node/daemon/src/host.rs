//! What consensus asks of the node: a block to propose, the merge test, and what to do with a decision.

use std::future::Future;

use bytes::Bytes;
use instar_consensus::{Candidate, Host, Next, Origin, Proposed, Start, Verdict};
use instar_ledger::Certificate;

use crate::node::{Shared, now_ms};

/// The node behind consensus.
pub(crate) struct NodeHost(pub Shared);

impl Host for NodeHost {
    async fn start(&mut self) -> Start {
        let head = self.0.with_core(|core| core.head().clone()).await;
        Start {
            height: head.height + 1,
            validators: head.validators,
        }
    }

    async fn propose(&mut self, _height: u64, round: u32) -> Result<Proposed, String> {
        let (block, pack) = self
            .0
            .with_core(move |core| core.propose(round, now_ms()))
            .await
            .map_err(|e| e.to_string())?;
        Ok(Proposed {
            block,
            payload: Bytes::from(pack),
        })
    }

    async fn check(&mut self, candidate: Candidate) -> Verdict {
        let live = matches!(candidate.origin, Origin::Live).then(now_ms);
        let verdict = self
            .0
            .with_core(move |core| core.check(&candidate.block, &candidate.payload, live))
            .await;
        match verdict {
            Ok(()) => Verdict::Valid,
            Err(refusal) => Verdict::Invalid(refusal.to_string()),
        }
    }

    async fn decided(&mut self, certificate: Certificate, payload: Option<Bytes>) -> Next {
        let node = self.0.clone();
        let done = node
            .with_core(move |core| {
                core.decided(&certificate, payload.as_deref())?;
                Ok::<_, crate::core::CoreError>((
                    core.head().clone(),
                    core.has_work(now_ms()).unwrap_or(true),
                ))
            })
            .await;
        match done {
            Ok((head, work)) => {
                node.height.send_replace(head.height);
                if work {
                    node.work.notify();
                }
                Next {
                    height: head.height + 1,
                    validators: head.validators,
                }
            }
            Err(e) => {
                // Going on would mean to vote on top of a block that this node does not have.
                eprintln!(
                    "fatal: a decided block could not be made final here ({e}); the process ends and starts again from disk"
                );
                std::process::exit(1)
            }
        }
    }

    fn grown(&mut self, certificate: Certificate) -> impl Future<Output = ()> + Send {
        let node = self.0.clone();
        async move { node.with_core(move |core| core.grown(certificate)).await }
    }

    async fn min_height(&mut self) -> u64 {
        self.0.with_core(|core| core.first_height()).await
    }

    async fn decided_payload(&mut self, height: u64) -> Option<(Certificate, Bytes)> {
        let found = self
            .0
            .with_core(move |core| core.synced_block(height))
            .await;
        found
            .ok()
            .flatten()
            .map(|(certificate, pack)| (certificate, Bytes::from(pack)))
    }
}
