//! The node's HTTP API as the command line calls it: blocking, bounded, with errors that say what to do.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use instar_attest::{Digest, PublicKey};
use instar_node::api::types::{
    Account, ApiError, BlockAnswer, EntryAnswer, ReceiptAnswer, StatementRequest, Status, Submitted,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Answers larger than this are refused: the largest block's receipts fit ten times.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// How long an answer may take, beyond what a call itself asks to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a download may take: a large state over a slow line.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long the node holds a question for a receipt before it answers that there is none yet.
const RECEIPT_POLL: Duration = Duration::from_secs(10);

/// One node's API.
#[derive(Clone)]
pub struct Client {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    /// A client for `base`, e.g. `http://127.0.0.1:8080`. Writes need the node's token.
    pub fn new(base: &str, token: Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self {
            base: base.trim_end_matches('/').to_owned(),
            token,
            agent: config.into(),
        }
    }

    /// The address that was given.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn answer(
        &self,
        path: &str,
        sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        limit: u64,
    ) -> Result<Option<Vec<u8>>> {
        let mut response = sent.with_context(|| {
            format!(
                "no answer from the node at {}{path}; is it running?",
                self.base
            )
        })?;
        let status = response.status();
        let bytes = response
            .body_mut()
            .with_config()
            .limit(limit)
            .read_to_vec()
            .with_context(|| format!("the answer of {}{path} broke off", self.base))?;
        if status.is_success() {
            return Ok(Some(bytes));
        }
        if status.as_u16() == 404 {
            return Ok(None);
        }
        let refusal: ApiError = serde_json::from_slice(&bytes).unwrap_or_else(|_| ApiError {
            error: String::from_utf8_lossy(&bytes).into_owned(),
            hint: None,
        });
        let hint = refusal.hint.map(|h| format!("; {h}")).unwrap_or_default();
        bail!(
            "{}{path} answered {status}: {}{hint}",
            self.base,
            refusal.error
        )
    }

    /// A GET whose answer may be missing.
    pub fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        let Some(bytes) = self.find_bytes(path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{}{path} answered something else", self.base))
    }

    /// A GET whose answer must be there.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.find(path)?
            .ok_or_else(|| anyhow!("{}{path}: not found", self.base))
    }

    /// A GET of bytes that may be missing.
    pub fn find_bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.find_bytes_within(path, MAX_ANSWER_BYTES)
    }

    /// A GET of at most `limit` bytes that may be missing; more are an error.
    pub fn find_bytes_within(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let sent = self.agent.get(format!("{}{path}", self.base)).call();
        self.answer(path, sent, limit)
    }

    /// A GET whose answer becomes a file: of at most `max` bytes, however long it takes as long as something comes.
    pub fn download(&self, path: &str, to: &Path, max: u64) -> Result<()> {
        let asked = self
            .agent
            .get(format!("{}{path}", self.base))
            .config()
            .timeout_global(None)
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_recv_body(Some(DOWNLOAD_TIMEOUT))
            .build()
            .call();
        let mut response = match asked {
            Ok(response) if response.status().is_success() => response,
            other => {
                self.answer(path, other, MAX_ANSWER_BYTES)?;
                bail!("{}{path}: not found", self.base)
            }
        };
        let mut file = File::create(to).with_context(|| to.display().to_string())?;
        let mut body = response.body_mut().as_reader().take(max + 1);
        let bytes = io::copy(&mut body, &mut file)
            .with_context(|| format!("the answer of {}{path} broke off", self.base))?;
        if bytes > max {
            bail!("{}{path} answers with more than {max} bytes", self.base);
        }
        Ok(())
    }

    /// A GET of plain text.
    pub fn text(&self, path: &str) -> Result<String> {
        let bytes = self
            .find_bytes(path)?
            .ok_or_else(|| anyhow!("{}{path}: not found", self.base))?;
        String::from_utf8(bytes).with_context(|| format!("{}{path} is no text", self.base))
    }

    /// A POST of bytes.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let bytes = self
            .answer(path, request.send(body), MAX_ANSWER_BYTES)?
            .ok_or_else(|| anyhow!("{}{path}: not found", self.base))?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{}{path} answered something else", self.base))
    }

    /// The node's status.
    pub fn status(&self) -> Result<Status> {
        self.get("/v1/status")
    }

    /// An account's next nonce.
    pub fn account(&self, key: &PublicKey) -> Result<Account> {
        self.get(&format!("/v1/accounts/{key}"))
    }

    /// Hands over signed entries, one canonical line each.
    pub fn submit(&self, lines: &str) -> Result<Submitted> {
        self.post("/v1/entries", lines.as_bytes())
    }

    /// Has the node sign a statement with its own account key and append it.
    pub fn statement(&self, topic: &str, body: Value) -> Result<Digest> {
        let request = serde_json::to_vec(&StatementRequest {
            topic: topic.into(),
            body,
        })?;
        let submitted: Submitted = self.post("/v1/statements", &request)?;
        submitted
            .ids
            .first()
            .copied()
            .ok_or_else(|| anyhow!("the node took the statement but named no id"))
    }

    /// The receipt of an entry, if it is final or becomes so within `wait`.
    pub fn receipt(&self, id: &Digest, wait: Duration) -> Result<Option<ReceiptAnswer>> {
        let wait = wait.min(RECEIPT_POLL).as_millis();
        self.find(&format!("/v1/receipts/{id}?wait_ms={wait}"))
    }

    /// Where an entry stands, as this node knows it.
    pub fn entry(&self, id: &Digest) -> Result<Option<EntryAnswer>> {
        self.find(&format!("/v1/entries/{id}"))
    }

    /// Waits until an entry is final, at most `patience`.
    pub fn wait_receipt(&self, id: &Digest, patience: Duration) -> Result<ReceiptAnswer> {
        let start = std::time::Instant::now();
        loop {
            let left = patience.saturating_sub(start.elapsed());
            if let Some(answer) = self.receipt(id, left)? {
                return Ok(answer);
            }
            if left.is_zero() {
                bail!(
                    "entry {id} is not final after {} s; ask again with `instar receipt {id}`",
                    patience.as_secs()
                );
            }
        }
    }

    /// A final block.
    pub fn block(&self, height: u64) -> Result<Option<BlockAnswer>> {
        self.find(&format!("/v1/blocks/{height}"))
    }
}

/// Bytes of blocks that go to a node in one archive: under what its API takes in one call.
const UPLOAD_BYTES: usize = 1_900_000;

impl Client {
    /// Pins `root` under `name`; every block must be there.
    pub fn pin(&self, name: &str, root: &instar_chunks::Cid) -> Result<()> {
        let pin = serde_json::to_vec(&serde_json::json!({"cid": root.to_string(), "name": name}))?;
        self.post::<Value>("/v1/pins", &pin).map(drop)
    }
}

/// Blocks on their way to a node, gathered into archives so that each step is durable there.
pub struct BlockUpload<'a> {
    client: &'a Client,
    pending: Vec<(instar_chunks::Cid, Vec<u8>)>,
    bytes: usize,
    /// Blocks handed over so far.
    pub blocks: u64,
}

impl<'a> BlockUpload<'a> {
    /// An upload to `client`, which needs the node's token.
    pub fn new(client: &'a Client) -> Self {
        Self {
            client,
            pending: Vec::new(),
            bytes: 0,
            blocks: 0,
        }
    }

    /// Sends a block, now or with the next ones.
    pub fn put(&mut self, cid: &instar_chunks::Cid, bytes: &[u8]) -> Result<()> {
        const OVERHEAD: usize = 64;
        if self.bytes + bytes.len() + OVERHEAD > UPLOAD_BYTES {
            self.flush()?;
        }
        self.bytes += bytes.len() + OVERHEAD;
        self.pending.push((*cid, bytes.to_vec()));
        Ok(())
    }

    /// Sends the rest.
    pub fn finish(&mut self) -> Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.bytes = 0;
        let Some((first, _)) = pending.first() else {
            return Ok(());
        };
        let mut car = instar_chunks::car::CarWriter::new(Vec::new(), &[*first])?;
        for (cid, bytes) in &pending {
            car.block(cid, bytes)?;
        }
        self.client.post::<Value>("/v1/store", &car.finish()?)?;
        self.blocks += pending.len() as u64;
        Ok(())
    }
}
