//! `instar policy`: release policies, checked and written as in-toto layouts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use instar_attest::release_policy::{MAX_POLICY_BYTES, ReleasePolicy};
use instar_attest::{Purpose, layout};
use serde_json::json;

use super::key::KeyArgs;
use crate::exit::facts;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Say what a policy asks for, or why it can't be used
    Check(Check),
    /// Write the policy as an in-toto layout, signed, for stock `in-toto-verify`
    Layout(Layout),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar policy check policy.json")]
pub struct Check {
    /// The policy
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(
    mut_arg("key", |key| key.required(true)),
    after_help = "Example: instar policy layout policy.json --key owner.json --expires 2030-01-01T00:00:00Z -o root.layout"
)]
pub struct Layout {
    /// The policy
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Until when in-toto takes the layout
    #[arg(long, value_name = "TIME")]
    expires: String,
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Reads a policy, bounded.
pub fn read(file: &Path) -> Result<ReleasePolicy> {
    let bytes = super::verify::read_bounded(file, MAX_POLICY_BYTES as u64)?;
    ReleasePolicy::parse(&bytes).with_context(|| format!("the policy {}", file.display()))
}

/// Runs the verb.
pub fn run(verb: &Verb) -> Result<()> {
    match verb {
        Verb::Check(args) => {
            let policy = read(&args.file)?;
            facts(args.json, &policy, words)
        }
        Verb::Layout(args) => {
            let policy = read(&args.file)?;
            let key = args.key.load(Purpose::Builder)?;
            let document = layout::layout(&policy, &args.expires)?;
            let bytes = layout::sign(&key, &document)?;
            fs::write(&args.output, bytes).with_context(|| args.output.display().to_string())?;
            facts(false, &json!({}), |_| {
                format!(
                    "layout in {}, signed by {}",
                    args.output.display(),
                    key.public()
                )
            })
        }
    }
}

fn words(policy: &ReleasePolicy) -> String {
    let builders = &policy.builders;
    let mut lines = vec![format!(
        "{} of {} builders, by distinct operators; recipes {}",
        builders.threshold,
        builders.of.len(),
        policy.recipes.join(", ")
    )];
    for one in &builders.of {
        let by = match (&one.key, &one.keyless) {
            (Some(key), _) => format!("{} key {}", key.algorithm(), key.key_id()),
            (None, Some(who)) => format!("identity of {}", who.issuer),
            (None, None) => "nothing".into(),
        };
        lines.push(format!("  {} ({}): {by}", one.name, one.operator));
    }
    if let Some(reviews) = &policy.reviews {
        let (k, n) = (reviews.threshold, reviews.of.len());
        lines.push(format!(
            "{k} of {n} maintainers' reviews of the source commit"
        ));
    }
    if let Some(tests) = &policy.tests {
        let (k, n) = (tests.threshold, tests.of.len());
        lines.push(format!("{k} of {n} testers say that it passed"));
    }
    lines.join("\n")
}
