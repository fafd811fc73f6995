//! The audit of one release: a clone and a bundle in, a report out.

use std::collections::BTreeSet;
use std::path::Path;

use instar_attest::Digest;
use instar_attest::release::{Release, Slot};
use instar_chain::query;
use instar_chain::record::{GENESIS_ADMITTED, HistoryEntry};
use instar_ledger::Outcome;

use crate::artifact::{Named, check_commit, check_file, check_root};
use crate::bundle::{
    AUDIT_FILE, Bundle, COMMIT_FILE, GENESIS_FILE, LEDGER_FILE, RELEASE_FILE, SBOM_FILE,
    SIGNERS_FILE, attestation_member, file_member,
};
use crate::custody::{Custody, Sources, follow};
use crate::export::allowed_signers;
use crate::report::{Refused, Report};
use crate::verify::{self, Verified};

/// Audits release `cid`: the whole chain from the clone, then the release's chain of custody from the clone and the
/// bundle, and every member of the bundle.
pub fn run(clone: &Path, bundle: &Path, cid: &str) -> Report {
    let mut report = Report {
        release: Some(cid.to_owned()),
        ..Report::default()
    };
    report.ok = audit(&mut report, clone, &Bundle::at(bundle), cid).is_ok();
    report
}

/// As [`run`], over a chain that [`verify_chain`](crate::verify_chain) has verified. The report has the release's steps
/// only.
pub fn run_verified(verified: &Verified, bundle: &Path, cid: &str) -> Report {
    let mut report = Report {
        chain: Some(verified.history.chain),
        release: Some(cid.to_owned()),
        ..Report::default()
    };
    report.ok = release(&mut report, verified, &Bundle::at(bundle), cid).is_ok();
    report
}

/// Goes on with the report of a chain that [`verify_chain`](crate::verify_chain) has verified: the release's steps follow.
pub fn run_after(mut report: Report, verified: &Verified, bundle: &Path, cid: &str) -> Report {
    report.release = Some(cid.to_owned());
    report.ok = release(&mut report, verified, &Bundle::at(bundle), cid).is_ok();
    report
}

fn audit(report: &mut Report, clone: &Path, bundle: &Bundle, cid: &str) -> Result<(), Refused> {
    let verified = verify::run(clone, report)?;
    release(report, &verified, bundle, cid)
}

fn release(
    report: &mut Report,
    verified: &Verified,
    bundle: &Bundle,
    cid: &str,
) -> Result<(), Refused> {
    // Before anything is opened: a member may be a pipe or a link.
    report.need("members", bundle.members())?;
    members_of_the_chain(report, verified, bundle, cid)?;
    let bytes = report.need("release-json", bundle.read(RELEASE_FILE))?;
    let release = report.need("release-json", Release::parse(&bytes))?;
    report.need("release-json", check_root(&release, &bytes, cid))?;
    report.hold(
        "release-json",
        format!(
            "it describes {} number {} and makes the root {cid}",
            release.slot, release.number
        ),
    );
    let history = live(report, verified, &release.slot, cid)?;
    let admitted_by_vote = history.by != GENESIS_ADMITTED;
    let has_commit = commit(report, bundle, &release, admitted_by_vote)?;
    let mut expected: BTreeSet<String> = [
        AUDIT_FILE,
        GENESIS_FILE,
        RELEASE_FILE,
        SBOM_FILE,
        SIGNERS_FILE,
    ]
    .map(str::to_owned)
    .into();
    if has_commit {
        expected.insert(COMMIT_FILE.into());
    }
    let activated_at = if admitted_by_vote {
        report.admitted = Some("voted".into());
        let custody = follow(
            report,
            &Sources {
                chain: verified.history.chain,
                state: &verified.state,
                log: &verified.log,
                release: &release,
                release_bytes: &bytes,
                history: &history,
            },
        )?;
        expected.extend(attestations(report, bundle, &custody)?);
        custody.activated_at
    } else {
        report.admitted = Some(GENESIS_ADMITTED.into());
        genesis_admitted(report, verified, &bytes, cid)?;
        history.height
    };
    expected.extend(files(report, bundle, &release)?);
    // A bundle in one file brings the ledger along; whether that or another clone was verified is the caller's choice.
    if bundle.path(LEDGER_FILE).exists() {
        expected.insert(LEDGER_FILE.into());
    }
    report.need("members", bundle.expect_members(&expected))?;
    report.hold(
        "members",
        format!(
            "{} members in the bundle, each checked, no other",
            expected.len()
        ),
    );
    report.activated_at = Some(activated_at);
    Ok(())
}

fn members_of_the_chain(
    report: &mut Report,
    verified: &Verified,
    bundle: &Bundle,
    cid: &str,
) -> Result<(), Refused> {
    let name = "bundle";
    let about = report.need(name, bundle.about())?;
    if about.chain != verified.history.chain || about.release != cid {
        let why = format!(
            "{AUDIT_FILE} is about release {} of chain {}",
            about.release, about.chain
        );
        return Err(report.refuse(name, why));
    }
    let genesis = report.need(name, bundle.read(GENESIS_FILE))?;
    if genesis != verified.history.genesis_bytes {
        let why = format!("{GENESIS_FILE} is not the one in the genesis commit");
        return Err(report.refuse(name, why));
    }
    let signers = report.need(name, bundle.read(SIGNERS_FILE))?;
    if signers != allowed_signers(verified).as_bytes() {
        let why = format!("{SIGNERS_FILE} is not that of the devices that the chain registers");
        return Err(report.refuse(name, why));
    }
    report.hold(
        name,
        format!("{AUDIT_FILE}, {GENESIS_FILE} and {SIGNERS_FILE} are those of this chain"),
    );
    Ok(())
}

/// Where the slot's history has the release; if it never went live, what the ledger says of it.
fn live(
    report: &mut Report,
    verified: &Verified,
    slot: &Slot,
    cid: &str,
) -> Result<HistoryEntry, Refused> {
    let name = "history";
    let mut slots = report.need(name, query::slots(&verified.state))?;
    let history = slots.remove(slot.as_str()).map(|s| s.history);
    let found = history.into_iter().flatten().find(|h| h.release == cid);
    if let Some(found) = found {
        return Ok(found);
    }
    let refused = verified.log.entries.iter().find(|e| {
        e.receipt.outcome == Outcome::Rejected
            && e.entry.body.get("op").and_then(|v| v.as_str()) == Some("propose")
            && e.entry.body.get("release").and_then(|v| v.as_str()) == Some(cid)
    });
    let why = match refused {
        Some(e) => format!(
            "{cid} never went live: entry {} that proposes it was refused in block {} by rule {}: {}",
            e.id,
            e.height,
            e.receipt.rule.as_deref().unwrap_or("?"),
            e.receipt.detail.as_deref().unwrap_or("")
        ),
        None => format!("{cid} never went live in slot {slot}"),
    };
    Err(report.refuse(name, why))
}

/// Hashes the source commit again. Gives whether it is there.
fn commit(
    report: &mut Report,
    bundle: &Bundle,
    release: &Release,
    needed: bool,
) -> Result<bool, Refused> {
    let name = "source-commit";
    if !needed && !bundle.path(COMMIT_FILE).exists() {
        report.hold(
            name,
            "not in the bundle; the chain started with this release",
        );
        return Ok(false);
    }
    let raw = report.need(name, bundle.read(COMMIT_FILE))?;
    report.need(name, check_commit(&release.source, &raw))?;
    report.hold(
        name,
        format!(
            "the object hashes to {}, its tree is {}",
            release.source.commit, release.source.tree
        ),
    );
    Ok(true)
}

fn attestations(
    report: &mut Report,
    bundle: &Bundle,
    custody: &Custody,
) -> Result<Vec<String>, Refused> {
    let name = "attestation-members";
    let mut members = Vec::new();
    for (builder, on_ledger) in &custody.bundles {
        let member = attestation_member(builder);
        let bytes = report.need(name, bundle.read(&member))?;
        if bytes != *on_ledger {
            let why = format!("{member} is not the attestation that its builder revealed");
            return Err(report.refuse(name, why));
        }
        members.push(member);
    }
    report.hold(
        name,
        format!(
            "{} attestations, byte for byte as on the ledger",
            members.len()
        ),
    );
    Ok(members)
}

fn genesis_admitted(
    report: &mut Report,
    verified: &Verified,
    release_json: &[u8],
    cid: &str,
) -> Result<(), Refused> {
    let genesis = &verified.history.genesis;
    let found = genesis.releases.iter().find(|r| r.release == cid);
    if found.is_none_or(|r| r.release_json.as_bytes() != release_json) {
        let why = "the genesis has another release.json for it";
        return Err(report.refuse(GENESIS_ADMITTED, why));
    }
    let why = "the chain started with it: nobody on this chain built it again or voted on it";
    report.hold(GENESIS_ADMITTED, why);
    Ok(())
}

/// Cuts every file again. Gives the members.
fn files(report: &mut Report, bundle: &Bundle, release: &Release) -> Result<Vec<String>, Refused> {
    let mut members = Vec::new();
    let mut check = |report: &mut Report, step: &str, member: String, named: &Named<'_>| {
        let mut content = report.need(step, bundle.open(&member))?;
        report.need(step, check_file(release, named, &mut content))?;
        members.push(member);
        Ok::<(), Refused>(())
    };
    let mut total = 0;
    for file in &release.files {
        let named = named(
            file.path.as_str(),
            file.cid.as_str(),
            (file.size, file.dag_size),
            &file.sha256,
        );
        check(report, "files", file_member(file.path.as_str()), &named)?;
        total += file.size;
    }
    let s = &release.sbom;
    let sbom = named(SBOM_FILE, s.cid.as_str(), (s.size, s.dag_size), &s.sha256);
    check(report, "sbom", SBOM_FILE.into(), &sbom)?;
    report.hold(
        "files",
        format!(
            "{} files of {total} bytes have the sha256, size and CID that the release names",
            release.files.len()
        ),
    );
    report.hold("sbom", format!("sha256 {}", s.sha256));
    Ok(members)
}

fn named<'a>(path: &'a str, cid: &'a str, sizes: (u64, u64), sha256: &'a Digest) -> Named<'a> {
    Named {
        path,
        cid,
        dag_size: sizes.1,
        sha256,
        size: sizes.0,
    }
}
