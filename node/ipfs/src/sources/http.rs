//! Sources over HTTP: trustless gateways and Kubo's RPC.

use std::io::Read as _;
use std::time::Duration;

use cid::Cid;
use instar_chunks::MAX_BLOCK_BYTES;

use super::{Source, SourceError, Stream};

/// How long one block may take.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a gateway may think before an archive begins.
const ARCHIVE_BEGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a whole archive may take; what is missing then comes block by block.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Blocks asked of one server at a time.
const PARALLEL: usize = 6;
/// Bytes of a refusal that are read for the report.
const MAX_WORDS_BYTES: u64 = 300;

/// A client without proxies and with bounds; a status is no error of its own.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(3)
        .proxy(None)
        .user_agent("instar")
        .build()
        .into()
}

fn failed(error: ureq::Error) -> SourceError {
    SourceError(error.to_string())
}

fn read_block(mut response: ureq::http::Response<ureq::Body>) -> Result<Vec<u8>, SourceError> {
    // One byte more than a block may have, so that a longer answer doesn't pass for a short one.
    response
        .body_mut()
        .with_config()
        .limit(MAX_BLOCK_BYTES as u64 + 1)
        .read_to_vec()
        .map_err(failed)
}

fn words(mut response: ureq::http::Response<ureq::Body>) -> String {
    let mut text = Vec::new();
    let reader = response.body_mut().as_reader();
    // What can't be read isn't shown.
    let _ = reader.take(MAX_WORDS_BYTES).read_to_end(&mut text);
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// A trustless gateway, ours or anybody's.
pub struct Gateway {
    base: String,
    blocks: ureq::Agent,
    archives: ureq::Agent,
}

impl Gateway {
    /// The gateway at `base`, e.g. `https://ipfs.example` or `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Self {
        let archives = ureq::Agent::config_builder()
            .timeout_global(Some(ARCHIVE_TIMEOUT))
            .timeout_recv_response(Some(ARCHIVE_BEGIN_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(3)
            .proxy(None)
            .user_agent("instar")
            .build();
        Self {
            base: base.trim_end_matches('/').to_owned(),
            blocks: agent(BLOCK_TIMEOUT),
            archives: archives.into(),
        }
    }
}

impl Source for Gateway {
    fn name(&self) -> String {
        format!("gateway {}", self.base)
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, SourceError> {
        let response = self
            .blocks
            .get(format!("{}/ipfs/{cid}?format=raw", self.base))
            .header("Accept", "application/vnd.ipld.raw")
            .call()
            .map_err(failed)?;
        match response.status().as_u16() {
            200 => read_block(response).map(Some),
            404 | 410 | 412 => Ok(None),
            status => Err(SourceError(format!(
                "it answered {status}: {}",
                words(response)
            ))),
        }
    }

    fn stream(&self, root: &Cid) -> Option<Result<Stream, SourceError>> {
        let response = self
            .archives
            .get(format!(
                "{}/ipfs/{root}?format=car&dag-scope=all",
                self.base
            ))
            .header(
                "Accept",
                "application/vnd.ipld.car; version=1; order=dfs; dups=n",
            )
            .call();
        Some(match response {
            Ok(response) if response.status().as_u16() == 200 => {
                Ok(Box::new(response.into_body().into_reader()))
            }
            Ok(response) => Err(SourceError(format!("it answered {}", response.status()))),
            Err(error) => Err(failed(error)),
        })
    }
}

/// A Kubo node by its RPC.
pub struct Kubo {
    base: String,
    agent: ureq::Agent,
}

impl Kubo {
    /// The RPC at `base`, e.g. `http://127.0.0.1:5001`.
    pub fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            agent: agent(BLOCK_TIMEOUT),
        }
    }
}

impl Source for Kubo {
    fn name(&self) -> String {
        format!("kubo {}", self.base)
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, SourceError> {
        let response = self
            .agent
            .post(format!(
                "{}/api/v0/block/get?arg={cid}&timeout=15s",
                self.base
            ))
            .send_empty()
            .map_err(failed)?;
        match response.status().as_u16() {
            200 => read_block(response).map(Some),
            status => {
                let said = words(response);
                // Kubo answers 500 for everything; these are its words for "not here".
                let absent = [
                    "not found",
                    "could not find",
                    "deadline exceeded",
                    "context",
                ];
                match absent.iter().any(|known| said.contains(known)) {
                    true => Ok(None),
                    false => Err(SourceError(format!("it answered {status}: {said}"))),
                }
            }
        }
    }
}
