//! Without a key of one's own: an identity token, Fulcio, a log and a timestamp authority; and the queue for a log that is
//! down, which is a file beside the bundle to be.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use instar_attest::keyless::MAX_TRUSTED_ROOT_BYTES;
use instar_attest::keyless::sign::{Instance, Signed, Token};
use instar_attest::provenance::{BuilderId, GitLabFacts};
use instar_attest::received::MAX_RECEIVED_BYTES;
use instar_builder::record::BuildRecord;
use serde_json::json;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::{Args, PROVENANCE_FILE, TEST_FILE, statement_of};
use crate::exit::{Negative, facts};
use crate::verbs::verify::read_bounded;

/// GitLab's variable for an identity token that is meant for Sigstore.
const TOKEN: &str = "SIGSTORE_ID_TOKEN";
/// How a bundle ends, and how one ends that waits for its log entry.
const COMPLETE: &str = ".sigstore.json";
const QUEUED: &str = ".queued.json";

/// Signs, and writes a bundle; or a queued one, which is said and is no failure.
pub(super) fn sign(args: &Args, record: &BuildRecord) -> Result<()> {
    let text = std::env::var(TOKEN).map(Zeroizing::new).with_context(|| {
        format!("{TOKEN} is not set; a GitLab job gets it by `id_tokens: {{{TOKEN}: {{aud: sigstore}}}}`")
    })?;
    let token = Token::parse(&text)?;
    let builder = GitLabFacts::from_variables(|name| std::env::var(name).ok()).map_or_else(
        || format!("{}#{}", token.issuer(), token.subject()),
        |job| job.project_url(),
    );
    let (file, statement) = statement_of(args, record, BuilderId::Identity(builder))?;
    let runtime = runtime()?;
    let signed = runtime.block_on(async {
        instance(args)
            .await?
            .sign(&statement, &token)
            .await
            .map_err(anyhow::Error::from)
    })?;
    report(args, &[keep(&args.dir, file, &signed)?])
}

/// Enters every queued bundle of the folder into the log.
pub(super) fn flush(args: &Args) -> Result<()> {
    let runtime = runtime()?;
    let mut done = Vec::new();
    let mut instance_of = None;
    for file in [PROVENANCE_FILE, TEST_FILE] {
        let at = args.dir.join(queued_name(file));
        if !at.exists() {
            continue;
        }
        let bundle = read_bounded(&at, MAX_RECEIVED_BYTES as u64)?;
        let instance = match &instance_of {
            Some(instance) => instance,
            None => instance_of.insert(runtime.block_on(instance(args))?),
        };
        let signed = runtime.block_on(instance.enter(&bundle));
        let signed = signed.with_context(|| at.display().to_string())?;
        done.push(keep(&args.dir, file, &signed)?);
    }
    ensure!(
        !done.is_empty(),
        "nothing is queued in {}: no file ends in {QUEUED}",
        args.dir.display()
    );
    report(args, &done)?;
    match done.iter().find(|d| d["queued"].is_string()) {
        None => Ok(()),
        Some(one) => Err(Negative(format!("the log is still down: {}", one["queued"])).into()),
    }
}

async fn instance(args: &Args) -> Result<Instance> {
    let Some(at) = &args.trust_config else {
        return Ok(Instance::public().await?);
    };
    let bytes = read_bounded(at, MAX_TRUSTED_ROOT_BYTES as u64)?;
    Instance::from_trust_config(&bytes).with_context(|| at.display().to_string())
}

fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("no runtime for talking to the services")
}

fn queued_name(file: &str) -> String {
    format!("{}{QUEUED}", file.trim_end_matches(COMPLETE))
}

/// Writes the bundle under the name that says whether it is complete, and takes away what it replaces.
fn keep(dir: &Path, file: &str, signed: &Signed) -> Result<serde_json::Value> {
    let (complete, queued) = (dir.join(file), dir.join(queued_name(file)));
    let (path, stale) = match &signed.queued {
        None => (complete, queued),
        Some(_) => (queued, complete),
    };
    fs::write(&path, &signed.bundle).with_context(|| path.display().to_string())?;
    match fs::remove_file(&stale) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| stale.display().to_string());
        }
        _ => {}
    }
    for note in &signed.notes {
        eprintln!("note: {note}");
    }
    Ok(json!({
        "bundle": path, "issuer": signed.by.issuer, "subject": signed.by.subject,
        "project": signed.by.project, "queued": signed.queued,
    }))
}

fn report(args: &Args, done: &[serde_json::Value]) -> Result<()> {
    facts(args.json, &json!({"bundles": done}), |_| {
        let line = |d: &serde_json::Value| {
            let text = |name: &str| d[name].as_str().unwrap_or_default().to_owned();
            match d["queued"].as_str() {
                None => format!(
                    "signed as {} (vouched for by {}); bundle in {}",
                    text("subject"),
                    text("issuer"),
                    text("bundle")
                ),
                Some(why) => format!(
                    "signed as {} (vouched for by {}), with a timestamp but without a log entry: {why}\n\
                     queued in {}; run `instar attest {} --flush-queue` when the log is back",
                    text("subject"),
                    text("issuer"),
                    text("bundle"),
                    args.dir.display()
                ),
            }
        };
        done.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}
