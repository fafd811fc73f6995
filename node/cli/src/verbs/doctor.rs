//! `instar doctor`: what this machine can do for a node, and what is missing.

use std::process::Command;

use anyhow::Result;
use serde::Serialize;

use crate::exit::{Negative, facts};

#[derive(clap::Args)]
#[command(after_help = "Example: instar doctor --json")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// Whether it is as needed.
    pub ok: bool,
    /// Whether a node can't do without it.
    pub needed: bool,
    /// What was found, or how to mend it.
    pub detail: String,
}

/// Programs that are called, and by what.
const PROGRAMS: [(&str, &[&str], &str); 4] = [
    (
        "git",
        &["--version"],
        "serves and clones the ledger; install git",
    ),
    (
        "ssh-keygen",
        &["-?"],
        "is what `git verify-commit` calls; install openssh-client",
    ),
    ("cargo", &["--version"], "builds releases; install Rust"),
    ("cc", &["--version"], "links releases; install a C compiler"),
];

/// A sandbox report in words.
pub fn describe(report: &instar_sandbox::Report) -> String {
    let mode = match report.mode {
        instar_sandbox::Mode::Root => "by root",
        instar_sandbox::Mode::User => "by an ordinary user",
    };
    let missing: Vec<String> = report
        .missing
        .iter()
        .map(|m| format!("without {}: {}", m.what, m.allow))
        .collect();
    let mut text = format!("sealed containers {mode}");
    if !missing.is_empty() {
        text += &format!("; {}", missing.join("; "));
    }
    text
}

/// Looks at everything.
pub fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    let report = instar_sandbox::probe();
    findings.push(Finding {
        what: "sandbox".into(),
        ok: report.usable(),
        needed: true,
        detail: describe(&report),
    });
    for (program, args, why) in PROGRAMS {
        let found = Command::new(program)
            .args(args)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        let detail = match &found {
            Ok(_) => "found".to_owned(),
            Err(e) => format!("{e}: {program} {why}"),
        };
        findings.push(Finding {
            what: program.into(),
            ok: found.is_ok(),
            needed: true,
            detail,
        });
    }
    findings
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let findings = examine();
    facts(args.json, &findings, |all| {
        let line = |f: &Finding| {
            format!(
                "{} {}: {}",
                if f.ok { "ok     " } else { "MISSING" },
                f.what,
                f.detail
            )
        };
        all.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    if findings.iter().any(|f| f.needed && !f.ok) {
        return Err(Negative("something that a node needs is missing".into()).into());
    }
    Ok(())
}
