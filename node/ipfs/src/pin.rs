//! Keeps a DAG elsewhere: a Kubo node, by its RPC.
//!
//! The blocks go there as an archive (`dag/import`), so that the address is ours whatever that node
//! would have made of the content; then it is pinned (`pin/add`), and asked whether it is
//! (`pin/ls`). A service that speaks the IPFS Pinning Service API would be another such place.

use std::io::{Read, Write as _};
use std::time::Duration;

use cid::Cid;
use instar_chunks::car::write_car;
use instar_chunks::{Blocks, Limits};
use serde_json::Value;

use crate::sources::http::agent;

/// How long a whole import may take.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long the other calls may take; a pin walks the whole DAG.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of an answer that are read.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Times that a call is tried before the place counts as lost: with the waits between them a node has a quarter of a minute
/// to start again.
pub const MAX_ATTEMPTS: u32 = 6;
/// Wait before the second try; it doubles each time.
pub const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Separates the one part of an upload from nothing; no CAR header has it.
const BOUNDARY: &str = "instar-d5a0c1f24e0b4c57";

/// Why a place doesn't keep a DAG.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It couldn't be reached, or broke off: trying again may help.
    #[error("{call} failed: {why}")]
    Call {
        /// What was called.
        call: &'static str,
        /// What was said.
        why: String,
    },
    /// It answered, and what it said means no.
    #[error("{call} was refused: {why}")]
    Refused {
        /// What was called.
        call: &'static str,
        /// What was said.
        why: String,
    },
    /// It said yes, and doesn't list the pin.
    #[error("it took the pin, and doesn't list it")]
    NotListed,
}

impl PinError {
    fn passing(&self) -> bool {
        matches!(self, Self::Call { .. })
    }
}

/// Tries something that may fail in passing, with growing waits. Returns also how often it was tried.
pub fn with_retries<T, E>(
    passing: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> (Result<T, E>, u32) {
    let mut wait = FIRST_WAIT;
    for number in 1.. {
        match attempt() {
            Err(error) if number < MAX_ATTEMPTS && passing(&error) => {
                std::thread::sleep(wait);
                wait *= 2;
            }
            result => return (result, number),
        }
    }
    unreachable!("the loop has no end of its own")
}

/// A Kubo node as a place to keep things.
pub struct KuboPins {
    base: String,
    import: ureq::Agent,
    call: ureq::Agent,
}

impl KuboPins {
    /// The RPC at `base`, e.g. `http://127.0.0.1:5001`.
    pub fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            import: agent(IMPORT_TIMEOUT),
            call: agent(CALL_TIMEOUT),
        }
    }

    /// Brings everything below `root` there and pins it. Returns how many calls it took at most.
    pub fn keep(
        &self,
        blocks: &(dyn Blocks + Sync),
        root: &Cid,
        limits: &Limits,
    ) -> (Result<(), PinError>, u32) {
        let (imported, tries) =
            with_retries(PinError::passing, || self.import(blocks, root, limits));
        if let Err(error) = imported {
            return (Err(error), tries);
        }
        let (pinned, more) = with_retries(PinError::passing, || {
            self.post("pin/add", &format!("pin/add?arg={root}&recursive=true"))
                .map(drop)
        });
        if let Err(error) = pinned {
            return (Err(error), tries.max(more));
        }
        let (listed, again) = with_retries(PinError::passing, || self.is_pinned(root));
        let result = match listed {
            Ok(true) => Ok(()),
            Ok(false) => Err(PinError::NotListed),
            Err(error) => Err(error),
        };
        (result, tries.max(more).max(again))
    }

    fn import(
        &self,
        blocks: &(dyn Blocks + Sync),
        root: &Cid,
        limits: &Limits,
    ) -> Result<(), PinError> {
        const CALL: &str = "dag/import";
        let failed = |why: String| PinError::Call { call: CALL, why };
        let (car, mut sink) = std::io::pipe().map_err(|e| failed(e.to_string()))?;
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"root.car\"\r\nContent-Type: application/vnd.ipld.car\r\n\r\n"
        );
        let tail = format!("\r\n--{BOUNDARY}--\r\n");
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let out = std::io::BufWriter::with_capacity(1 << 20, &mut sink);
                let written = write_car(blocks, &[*root], limits, out);
                // Closing it is how the other end learns that this was all.
                let _ = sink.flush();
                drop(sink);
                written
            });
            let mut body = head.as_bytes().chain(car).chain(tail.as_bytes());
            let sent = self
                .import
                .post(format!(
                    "{}/api/v0/dag/import?pin-roots=false&stats=true",
                    self.base
                ))
                .header(
                    "Content-Type",
                    format!("multipart/form-data; boundary={BOUNDARY}"),
                )
                .send(ureq::SendBody::from_reader(&mut body));
            // Hanging up ends a writer that nobody reads from any more.
            drop(body);
            let written = writer.join();
            let answer = read(CALL, sent);
            match written {
                Ok(Ok(_)) => {}
                // If the call failed, the archive broke off because of that.
                Ok(Err(why)) if answer.is_ok() => {
                    return Err(PinError::Refused {
                        call: CALL,
                        why: why.to_string(),
                    });
                }
                Ok(Err(_)) => {}
                Err(_) => return Err(failed("writing the archive broke off".into())),
            }
            // Kubo says 200 before it has read everything; what went wrong stands in the lines.
            let answer = answer?;
            for line in answer.lines() {
                let Ok(line) = serde_json::from_str::<Value>(line) else {
                    continue;
                };
                let pin_error = line["Root"]["PinErrorMsg"].as_str().unwrap_or_default();
                let message = line["Message"].as_str().unwrap_or(pin_error);
                if !message.is_empty() {
                    return Err(PinError::Refused {
                        call: CALL,
                        why: message.to_owned(),
                    });
                }
            }
            Ok(())
        })
    }

    fn post(&self, call: &'static str, path: &str) -> Result<String, PinError> {
        let sent = self
            .call
            .post(format!("{}/api/v0/{path}", self.base))
            .send_empty();
        read(call, sent)
    }

    /// Whether it lists a recursive pin of `root`.
    pub fn is_pinned(&self, root: &Cid) -> Result<bool, PinError> {
        let listed = self.post("pin/ls", &format!("pin/ls?arg={root}&type=recursive"));
        let text = match listed {
            Ok(text) => text,
            // Kubo refuses to list what isn't pinned.
            Err(PinError::Refused { why, .. }) if why.contains("not pinned") => return Ok(false),
            Err(error) => return Err(error),
        };
        let answer: Value = serde_json::from_str(&text).map_err(|e| PinError::Refused {
            call: "pin/ls",
            why: format!("its answer is no JSON: {e}"),
        })?;
        let keys = answer["Keys"].as_object();
        Ok(keys.is_some_and(|keys| {
            keys.iter().any(|(key, pin)| {
                key.parse::<Cid>()
                    .is_ok_and(|cid| cid.hash() == root.hash())
                    && pin["Type"] == "recursive"
            })
        }))
    }
}

fn read(
    call: &'static str,
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<String, PinError> {
    let failed = |e: ureq::Error| PinError::Call {
        call,
        why: e.to_string(),
    };
    let mut response = sent.map_err(failed)?;
    let status = response.status();
    let bytes = response
        .body_mut()
        .with_config()
        .limit(MAX_ANSWER_BYTES)
        .read_to_vec()
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.is_success() {
        return Ok(text);
    }
    let said: Value = serde_json::from_str(&text).unwrap_or_default();
    let said = said["Message"].as_str().unwrap_or(text.trim());
    let why = format!("{}: {said}", status.as_u16());
    // Behind a proxy these pass; Kubo itself says 500 for what it refuses.
    match status.as_u16() {
        429 | 502..=504 => Err(PinError::Call { call, why }),
        _ => Err(PinError::Refused { call, why }),
    }
}
