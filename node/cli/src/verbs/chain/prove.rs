//! `instar chain prove` and `instar chain check-proof`: what the state says of one key, for somebody who has no state.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use instar_audit::proof::{MAX_PROOF_FILE_BYTES, PROOF_FORMAT};
use instar_audit::{ProofFile, Shown, Trust};
use instar_node::api::types::KeyProof;
use serde_json::json;

use crate::exit::{Negative, facts};
use crate::light::{TrustArgs, way_to};
use crate::verbs::NodeArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  instar chain prove d/coin/balance/3f0c… --chain 9ab1… -o balance.json
  instar chain prove n/nonce/3f0c… --chain 9ab1… | instar chain check-proof - --chain 9ab1…

The file holds all that it takes to check it offline. A key that the state does not have is proven too.
docs/formats/state.md says what the file holds, docs/formats/chain.md which keys there are.")]
pub struct Prove {
    /// The key
    key: String,
    /// The height whose state is asked; the newest unless given. Nodes keep about a thousand
    #[arg(long)]
    height: Option<u64>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Where to write the proof [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar chain check-proof balance.json --chain 9ab1…\n\nExit codes: 0 it is proven · 1 it is not · 2 wrong use."
)]
pub struct Check {
    /// The proof file, or - for standard input
    file: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `prove`.
pub fn prove(args: &Prove) -> Result<()> {
    let client = args.node.client()?;
    let trust = args.trust.trust()?;
    ensure!(
        instar_chain::view::is_key(&args.key),
        "{:?} is no state key: 1 to 512 printable ASCII characters without spaces",
        args.key
    );
    let key = escape(&args.key);
    let height = args
        .height
        .map(|h| format!("&height={h}"))
        .unwrap_or_default();
    let found: KeyProof = client.get(&format!("/v1/light/proof?key={key}{height}"))?;
    ensure!(
        found.key == args.key,
        "the node answered about the key {:?}",
        found.key
    );
    let way = way_to(&client, &trust, found.header)?;
    let file = ProofFile {
        changes: way.changes,
        checkpoint: way.checkpoint,
        format: PROOF_FORMAT.into(),
        genesis: way.genesis,
        header: way.header,
        key: found.key,
        proof: found.proof,
        value: found.value,
    };
    // Nobody is handed a proof that does not hold.
    let shown = file
        .check(&trust)
        .context("what the node answered proves nothing")?;
    let mut bytes = file.to_bytes()?;
    bytes.push(b'\n');
    match &args.output {
        None => std::io::stdout().write_all(&bytes)?,
        Some(path) => {
            std::fs::write(path, &bytes).with_context(|| path.display().to_string())?;
            eprintln!(
                "{} in {} ({} bytes)",
                says(&shown),
                path.display(),
                bytes.len()
            );
        }
    }
    Ok(())
}

/// Runs `check-proof`.
pub fn check(args: &Check) -> Result<()> {
    let mut bytes = Vec::new();
    let limit = MAX_PROOF_FILE_BYTES as u64 + 2;
    if args.file.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(&args.file)
            .with_context(|| args.file.display().to_string())?
            .take(limit)
            .read_to_end(&mut bytes)?;
    }
    let trust = args.trust.trust()?;
    let shown = ProofFile::from_bytes(&bytes)
        .and_then(|file| file.check(&trust))
        .map_err(|e| Negative(format!("nothing is proven: {e}")))?;
    let value = json!({
        "block": shown.block,
        "chain": shown.chain,
        "height": shown.height,
        "key": shown.key,
        "ok": true,
        "root": shown.root,
        "time_ms": shown.time_ms,
        "trusted": trust_words(&trust),
        "value": shown.value.as_ref().map(|v| BASE64_STANDARD.encode(v)),
        "value_text": shown.value.as_deref().and_then(|v| std::str::from_utf8(v).ok()),
    });
    facts(args.json, &value, |_| {
        format!(
            "{}\nat height   {} of chain {}\nblock       {}\nstate root  {}\ntrusting    {}",
            says(&shown),
            shown.height,
            shown.chain,
            shown.block,
            shown.root,
            trust_words(&trust)
        )
    })
}

fn says(shown: &Shown) -> String {
    match &shown.value {
        None => format!("{} has no value", shown.key),
        Some(value) => match std::str::from_utf8(value) {
            Ok(text) if !text.contains(char::is_control) => format!("{} = {text}", shown.key),
            _ => format!("{} has a value of {} bytes", shown.key, value.len()),
        },
    }
}

fn trust_words(trust: &Trust) -> String {
    match trust {
        Trust::Chain(chain) => format!("the chain's id {chain}"),
        Trust::Block { height, block } => format!("block {block} of height {height}"),
    }
}

/// A key as part of a query: every byte that means something there is escaped.
fn escape(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    key.bytes()
        .map(|b| match plain(b) {
            true => char::from(b).to_string(),
            false => format!("%{b:02X}"),
        })
        .collect()
}
