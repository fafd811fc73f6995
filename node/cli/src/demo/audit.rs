//! The auditor: a stock clone, stock checks, and the chain of custody with the nodes' homes moved away.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::repo::git;
use super::report::Audited;
use super::stage::Stage;

/// Clones, checks and audits the release `cid`.
pub fn run(stage: &mut Stage<'_>, cid: &str, keep: bool) -> Result<Audited> {
    stage
        .talk
        .title("An auditor clones the ledger with stock git");
    let dir = stage.home.join("auditor");
    std::fs::create_dir_all(&dir)?;
    let url = format!("{}/ledger.git", stage.validators[0].url());
    git(&dir, &["clone", "--quiet", &url, "ledger"])?;
    let clone = dir.join("ledger");
    let complaints = git(&clone, &["fsck", "--strict", "--no-progress"])?;
    ensure!(
        complaints.is_empty(),
        "git fsck --strict complains: {complaints}"
    );
    stage.talk.say("git fsck --strict is clean");

    let signers = dir.join("allowed_signers");
    std::fs::write(&signers, stage.clients[0].text("/v1/allowed-signers")?)?;
    let lanes = verify_lane_commits(&clone, &signers)?;
    ensure!(lanes > 0, "the clone has no lane commits");
    stage.talk.say(format!(
        "git verify-commit passes on all {lanes} lane commits"
    ));

    let bundle = dir.join("coin.audit");
    let output = Command::new(&stage.program)
        .args(["audit", cid, "--ledger", &url, "--export"])
        .arg(&bundle)
        .arg("--source")
        .arg(&stage.coin)
        .output()?;
    ensure!(
        output.status.success(),
        "instar audit --export: {}",
        String::from_utf8_lossy(&output.stderr)
    );

    // From here on nothing of the validators is within reach: what is checked is checked from the bundle alone.
    let away = stage.home.join("moved-away");
    let validators = stage.home.join("validators");
    if !keep {
        for validator in &mut stage.validators {
            validator.stop();
        }
        std::fs::rename(&validators, &away)?;
    }
    let output = Command::new(&stage.program)
        .args(["audit", cid, "--json", "--bundle"])
        .arg(&bundle)
        .output()?;
    if away.exists() {
        std::fs::rename(&away, &validators)?;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "instar audit: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default())
        .context("instar audit printed no report")?;
    ensure!(report["ok"] == true, "the audit does not verify: {report}");
    let steps = report["steps"].as_array().map_or(0, Vec::len);
    stage.talk.say(format!(
        "instar audit: {steps} steps from the source commit to height {}, each verified",
        report["activated_at"]
    ));
    Ok(Audited {
        verified: true,
        fsck: true,
        lane_commits_verified: lanes,
        steps: steps as u64,
    })
}

/// Runs `git verify-commit` on every commit that stands in a lane; returns how many there are.
fn verify_lane_commits(clone: &Path, signers: &Path) -> Result<u64> {
    // A lane commit's subject says so; blocks and tips have no signature, their certificate is elsewhere.
    let log = git(clone, &["log", "--all", "--format=%H %s"])?;
    let lanes: Vec<&str> = log
        .lines()
        .filter_map(|l| l.split_once(' '))
        .filter(|(_, s)| s.starts_with("lane "))
        .map(|(id, _)| id)
        .collect();
    let file = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    let failed = std::sync::Mutex::new(Vec::new());
    // git starts ssh-keygen for each; two at a time use the cores, and thousands of arguments would not fit one call.
    std::thread::scope(|scope| {
        for half in lanes.chunks(lanes.len().div_ceil(2).max(1)) {
            let (failed, file) = (&failed, &file);
            scope.spawn(move || {
                for some in half.chunks(200) {
                    let args: Vec<&str> = ["-c", "gpg.format=ssh", "-c", file, "verify-commit"]
                        .into_iter()
                        .chain(some.iter().copied())
                        .collect();
                    if let Err(e) = git(clone, &args) {
                        failed
                            .lock()
                            .expect("no thread panics while holding it")
                            .push(e.to_string());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panicked");
    ensure!(
        failed.is_empty(),
        "git verify-commit refuses lane commits: {}",
        failed.join("; ")
    );
    Ok(lanes.len() as u64)
}
