//! A byte changed after the commit was resolved: the bytes speak, not the named commit.

use std::collections::BTreeSet;
use std::fs;

use instar::demo::runner;
use instar::demo::stage::{PATIENCE, Stage};
use instar_builder::{BuildOutcome, BuildRequest, How, Prepared};
use serde_json::Value;

/// The validator whose runner's work tree is changed.
const ODD: usize = 3;

pub fn flipped_byte() {
    super::with_chain(
        |_| {},
        |stage| {
            let commit = stage
                .commit_coin(2, "coin: Let a transfer carry a memo")
                .unwrap();
            let job = stage.job(2, &commit);
            let round = stage.open_round(&job).unwrap();
            let odd = stage.runners[ODD].clone();
            let odd_sha = build_flipped(stage, &odd, &job);
            let closed = std::thread::scope(|scope| {
                let others = scope.spawn(|| stage.build(&stage.runners[..ODD], &job, &round));
                // It attests what it has: its commitment and its reveal are taken. Then there is nothing for it to pin.
                let nothing = odd.attest_and_pin(&job, &round).unwrap_err().to_string();
                assert!(nothing.contains("revealed in entry"), "{nothing}");
                assert!(nothing.contains("not what the release"), "{nothing}");
                others.join().unwrap().unwrap()
            });
            let names = |value: &Value| -> BTreeSet<String> {
                let list = value.as_array().unwrap();
                list.iter()
                    .map(|n| n.as_str().unwrap().to_owned())
                    .collect()
            };
            let three: BTreeSet<String> = ["val-1", "val-2", "val-3"].map(str::to_owned).into();
            assert_eq!(names(&closed["matched"]), three, "{closed}");
            for runner in &stage.runners[..ODD] {
                assert_ne!(program_sha(runner, &job), odd_sha);
            }

            let proposal = stage.propose(&round).unwrap();
            let live = stage
                .proposal(&proposal, "activated", &["refused", "void"], PATIENCE)
                .unwrap();
            let votes = live["votes"].as_object().unwrap();
            let yes: BTreeSet<String> = votes
                .iter()
                .filter(|(_, v)| v["vote"] == "yes")
                .map(|(name, _)| name.clone())
                .collect();
            assert_eq!(
                yes, three,
                "only those whose own build matched vote yes: {live}"
            );
        },
    );
}

/// Builds the job as the runner would, but with one byte of the work tree flipped after the commit was resolved.
fn build_flipped(stage: &Stage<'_>, runner: &runner::Runner, job: &runner::Job) -> String {
    let request = BuildRequest {
        repository: job.repo.clone(),
        revision: job.commit.clone(),
        slot: Some(job.slot.parse().unwrap()),
        number: job.number,
        name: Some(job.name.parse().unwrap()),
        allow_dirty: false,
        how: How::Cargo,
        out: runner.out(job),
        cache: stage.home.join("odd-cache"),
        jobs: 1,
    };
    let prepared = Prepared::new(&request, &mut |_| {}).unwrap();
    assert_eq!(prepared.commit().source.commit.to_string(), job.commit);
    let file = prepared.work_tree().join("coin/src/main.rs");
    let mut source = fs::read(&file).unwrap();
    let text = b"insufficient-funds";
    let at = source
        .windows(text.len())
        .position(|w| w == text)
        .expect("the coin names the rule that refuses an overdraft");
    source[at] ^= 0x20;
    fs::write(&file, source).unwrap();
    let outcome = prepared.build(&mut |_| {}).unwrap();
    assert!(matches!(outcome, BuildOutcome::Equal(_)), "{outcome:?}");
    program_sha(runner, job)
}

fn program_sha(runner: &runner::Runner, job: &runner::Job) -> String {
    let record = fs::read(runner.out(job).join("build.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let files = record["targets"][0]["files"].as_array().unwrap();
    let program = files
        .iter()
        .find(|f| f["path"].as_str().unwrap().ends_with("bin/coin"));
    program.unwrap()["sha256"].as_str().unwrap().to_owned()
}
