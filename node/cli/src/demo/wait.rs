//! Waiting for things that nodes say, with a bound and a reason.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use instar_attest::Digest;
use instar_ledger::ReceiptLine;
use instar_node::api::types::BlockAnswer;
use serde_json::Value;

use crate::client::Client;

/// Between two questions.
const POLL: Duration = Duration::from_millis(150);

/// Asks until `ask` has an answer, at most `patience`.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut last_error = None;
    loop {
        super::stop::check()?;
        match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(e) => last_error = Some(e),
        }
        if start.elapsed() > patience {
            let why = last_error.map(|e| format!(" ({e})")).unwrap_or_default();
            bail!("{what} did not happen within {} s{why}", patience.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// The phase of a round or proposal; fails at once when it is one of `bad`.
pub fn phase(
    client: &Client,
    path: &str,
    good: &[&str],
    bad: &[&str],
    patience: Duration,
) -> Result<Value> {
    let mut seen = String::new();
    let found = until(
        &format!("{path} becoming {}", good.join(" or ")),
        patience,
        || {
            let value: Value = client.get(path)?;
            value["phase"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut seen);
            Ok((good.contains(&seen.as_str()) || bad.contains(&seen.as_str())).then_some(value))
        },
    )?;
    if bad.contains(&seen.as_str()) {
        bail!("{path} became {seen}: {found}");
    }
    Ok(found)
}

/// The first event of this name about `id` from `height` on, with the block that holds it.
pub fn event(
    client: &Client,
    mut height: u64,
    name: &str,
    id: &Digest,
    patience: Duration,
) -> Result<(BlockAnswer, Value)> {
    until(&format!("event {name} of {id}"), patience, || {
        while let Some(block) = client.block(height)? {
            let found = block.receipts.iter().find_map(|line| match line {
                ReceiptLine::Event(e) if e.event == name && e.id == *id => Some(e.body.clone()),
                _ => None,
            });
            if let Some(body) = found {
                return Ok(Some((block, body)));
            }
            height += 1;
        }
        Ok(None)
    })
}
