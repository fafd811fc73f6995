//! A report as a page: one HTML file, without scripts and without anything that is loaded from elsewhere.

use std::fmt::Write as _;

use crate::report::{Report, Step};

/// What each part of the way is, for people: its title, its steps, and what the steps rest on.
const PARTS: [(&str, &[&str], &str); 5] = [
    (
        "The chain",
        &[
            "clone",
            "genesis",
            "blocks",
            "certificates",
            "lane-commits",
            "receipts",
            "native-rules",
        ],
        "Every block, lane commit, signature and certificate since genesis, and the native rules run again.",
    ),
    (
        "The release",
        &["bundle", "release-json", "history", "source-commit"],
        "What was asked about, and the source commit that it names.",
    ),
    (
        "The builds",
        &[
            "policy",
            "build-open",
            "commitments",
            "reveals",
            "attestations",
            "builders",
            "release-root",
        ],
        "Who built it before seeing another's result, with which bytes, and the root computed from them.",
    ),
    (
        "The decision",
        &[
            "proposal",
            "votes",
            "readiness",
            "activation",
            "rollout",
            "genesis-admitted",
        ],
        "Who proposed it, who voted, who rehearsed it, and when it went live.",
    ),
    (
        "The files",
        &["attestation-members", "files", "sbom", "members"],
        "The bytes at hand are those that were decided on.",
    ),
];

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:1.8rem 0 .2rem}p{margin:.2rem 0 .6rem}\
.verdict{padding:.6rem 1rem;border-radius:.3rem;font-weight:600}.yes{background:#e3f4e6}.no{background:#fbe3e1}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{color:#666}dd{margin:0;overflow-wrap:anywhere}\
ol{list-style:none;padding:0;border-left:3px solid #bcd;margin:0}li{padding:.25rem 0 .25rem 1rem;overflow-wrap:anywhere}\
li b{font-weight:600}li.no{background:#fbe3e1}code{font-size:.9em}footer{margin-top:2rem;color:#666;font-size:.9rem}\
@media print{body{margin:0}}";

/// The page of a report.
pub fn page(report: &Report) -> String {
    let title = match (report.ok, &report.release) {
        (true, Some(_)) => "Chain of custody: verified",
        (true, None) => "Chain: verified",
        (false, _) => "NOT verified",
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    verdict(&mut out, report);
    facts(&mut out, report);
    for (title, names, about) in PARTS {
        let steps = report
            .steps
            .iter()
            .filter(|s| names.contains(&s.name.as_str()));
        part(&mut out, title, about, steps);
    }
    // A step that no part names is shown all the same.
    let known = |s: &&Step| !PARTS.iter().any(|(_, n, _)| n.contains(&s.name.as_str()));
    part(&mut out, "Further", "", report.steps.iter().filter(known));
    out.push_str(
        "<footer>Checked offline from the audit bundle alone; nothing that a node says was taken on trust. What you have \
         to know from elsewhere is the chain's id. The same checks with stock tools are in the auditor's guide.</footer>\n\
         </body></html>\n",
    );
    out
}

fn verdict(out: &mut String, report: &Report) {
    let (class, words) = match (report.refused_by(), report.activated_at) {
        (Some(step), _) => (
            "no",
            format!("{} does not hold: {}", step.name, step.detail),
        ),
        (None, Some(height)) => ("yes", format!("Live since height {height}.")),
        (None, None) if report.ok => ("yes", "Every step holds.".to_owned()),
        (None, None) => ("no", "Not everything was shown.".to_owned()),
    };
    let _ = writeln!(out, "<p class=\"verdict {class}\">{}</p>", escaped(&words));
}

fn facts(out: &mut String, report: &Report) {
    out.push_str("<dl>");
    let rows = [
        ("Release", report.release.clone()),
        ("Chain", report.chain.map(|c| c.to_string())),
        ("Admitted", report.admitted.clone()),
        ("Blocks checked", Some(report.blocks.to_string())),
        (
            "Lane commits checked",
            Some(report.lane_commits.to_string()),
        ),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            let _ = write!(
                out,
                "<dt>{name}</dt><dd><code>{}</code></dd>",
                escaped(&value)
            );
        }
    }
    out.push_str("</dl>\n");
}

fn part<'a>(out: &mut String, title: &str, about: &str, steps: impl Iterator<Item = &'a Step>) {
    let mut lines = String::new();
    for step in steps {
        let (class, mark) = if step.ok {
            ("yes", "✓")
        } else {
            ("no", "✗")
        };
        let _ = writeln!(
            lines,
            "<li class=\"{class}\">{mark} <b>{}</b>: {}</li>",
            escaped(&step.name),
            escaped(&step.detail)
        );
    }
    if !lines.is_empty() {
        let _ = write!(
            out,
            "<h2>{title}</h2>\n<p>{about}</p>\n<ol>\n{lines}</ol>\n"
        );
    }
}

/// Text as HTML: names on the ledger are chosen by others.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_chosen_by_others_are_text_and_a_refusal_is_the_verdict() {
        let mut report = Report {
            release: Some("bafy<script>".into()),
            ..Report::default()
        };
        report.hold("votes", "yes by <b onclick='x()'>val & co</b>");
        let _ = report.refuse("a step of its own", "\"quoted\"");
        let page = page(&report);
        assert!(
            !page.contains("<script") && !page.contains("<b onclick"),
            "{page}"
        );
        assert!(page.contains("&lt;b onclick=&#39;x()&#39;&gt;val &amp; co"));
        assert!(page.contains("NOT verified") && page.contains("a step of its own does not hold"));
        assert!(page.contains("<h2>The decision</h2>") && page.contains("<h2>Further</h2>"));
        assert!(!page.contains("<h2>The files</h2>"));
    }
}
