//! `instar pin --round`: the release of a build round, once its commitments are closed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use instar_attest::{Digest, release::Release};
use serde_json::{Value, json};

use super::Args;
use crate::client::{BlockUpload, Client};
use crate::exit::facts;

/// Between two looks at the round.
const POLL: Duration = Duration::from_millis(200);
/// How long the node may be away while its round is waited for: it may be swapping its own program meanwhile, which takes
/// seconds.
const MAX_AWAY: Duration = Duration::from_secs(60);

/// Runs the verb.
pub(super) fn run(args: &Args, id: &Digest) -> Result<()> {
    let nodes = args.nodes();
    let client = args.client(nodes.first().map_or(super::DEFAULT_NODE, String::as_str))?;
    let round = closed_round(&client, args, id)?;
    let release = match round["release_json"].as_str() {
        Some(text) => Release::parse(text.as_bytes())?,
        // No agreement: what this builder built may still be wanted by those who look into it.
        None => crate::release::of_build(&args.what, client.status()?.chain)?,
    };
    let mut upload = BlockUpload::new(&client);
    let root = crate::release::store(&args.what.join("release"), &release, &mut |cid, bytes| {
        upload.put(cid, bytes).map_err(std::io::Error::other)
    })?;
    upload.finish()?;
    let blocks = upload.blocks;
    client.pin(&format!("{}/{}", release.slot, release.number), &root)?;
    facts(
        args.json,
        &json!({"cid": root.to_string(), "blocks": blocks}),
        |_| format!("pinned {root} ({blocks} blocks)"),
    )
}

fn closed_round(client: &Client, args: &Args, id: &Digest) -> Result<Value> {
    let wait = Duration::from_secs(args.wait);
    closed(client, id, wait, MAX_AWAY.min(wait))
}

/// Waits until the round is closed, at most `wait`. A round that the node doesn't know will not appear by waiting; a node
/// that doesn't answer may come back within `away`.
fn closed(client: &Client, id: &Digest, wait: Duration, away: Duration) -> Result<Value> {
    let start = Instant::now();
    let mut heard = start;
    loop {
        match client.find::<Value>(&format!("/v1/rounds/{id}")) {
            Ok(None) => bail!(
                "there is no build round {id} at {}; `instar upgrade list` shows the rounds that are open there",
                client.base()
            ),
            Ok(Some(round)) if !matches!(round["phase"].as_str(), Some("commit" | "reveal")) => {
                return Ok(round);
            }
            Ok(Some(_)) => heard = Instant::now(),
            Err(error) if !super::is_passing(&error) || heard.elapsed() > away => {
                return Err(error);
            }
            Err(_) => {}
        }
        if start.elapsed() > wait {
            bail!("round {id} is not closed after {} s", wait.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A node that gives these answers one after the other, and then the last one for ever.
    fn node(answers: &'static [(&'static str, &'static str)]) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let (status, body) = answers[number.min(answers.len() - 1)];
                let _ = stream.read(&mut [0; 4096]);
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        Client::new(&base, None)
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_round_that_does_not_exist_is_said_at_once() {
        let client = node(&[("404 Not Found", "{}")]);
        let id = Digest::of(b"no round");
        let error = closed(&client, &id, LONG, LONG).unwrap_err().to_string();
        assert!(error.contains("there is no build round"), "{error}");
        assert!(error.contains(&id.to_string()), "{error}");
    }

    #[test]
    fn an_open_round_is_waited_for_and_a_busy_node_too() {
        let client = node(&[
            ("200 OK", r#"{"phase":"commit"}"#),
            ("503 Service Unavailable", r#"{"error":"starting"}"#),
            ("200 OK", r#"{"phase":"agreed"}"#),
        ]);
        let round = closed(&client, &Digest::of(b"round"), LONG, LONG).unwrap();
        assert_eq!(round["phase"], "agreed");
    }

    #[test]
    fn a_refusal_and_a_node_that_stays_away_are_errors() {
        let id = Digest::of(b"round");
        let refuses = node(&[("400 Bad Request", r#"{"error":"no digest"}"#)]);
        let error = closed(&refuses, &id, LONG, LONG).unwrap_err().to_string();
        assert!(error.contains("no digest"), "{error}");
        // Nobody listens on a port that was just given back.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let nobody = Client::new(&format!("http://{port}"), None);
        let error = closed(&nobody, &id, LONG, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("is it running"), "{error}");
    }
}
