//! The coin dapp's releases: one that goes live, and two that are refused.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use instar_attest::Digest;
use instar_ledger::ReceiptLine;

use super::report::{Refused, Upgrade, upgrade_facts};
use super::runner::Job;
use super::stage::{PATIENCE, Stage};
use super::traffic::Traffic;
use super::{VALIDATORS, repo, wait};

/// A commit of the coin with its open build round.
pub struct Opened {
    /// What the runners build.
    pub job: Job,
    /// The round.
    pub round: Digest,
    /// When the commit was made.
    pub start: Instant,
}

/// Commits version 2, whose transfers carry a memo, and opens its round.
pub fn open_second(stage: &Stage<'_>) -> Result<Opened> {
    stage
        .talk
        .title("Version 2 of the coin: transfers carry a memo");
    let start = Instant::now();
    let commit = stage.commit_coin(2, "coin: Let a transfer carry a memo")?;
    opened(stage, start, 2, &commit)
}

fn opened(stage: &Stage<'_>, start: Instant, number: u64, commit: &str) -> Result<Opened> {
    let job = stage.job(number, commit);
    let round = stage.open_round(&job)?;
    stage.talk.say(format!(
        "commit {}, build round {}",
        &commit[..12],
        &round.to_hex()[..12]
    ));
    Ok(Opened { job, round, start })
}

/// Takes version 2 from its round to the first memo that comes back.
pub fn upgrade(stage: &Stage<'_>, opened: &Opened, traffic: &Traffic) -> Result<Upgrade> {
    let before = stage.height()?;
    let closed = stage.build(&stage.runners, &opened.job, &opened.round)?;
    stage.talk.say(format!(
        "four runners built it twice each, with the same bytes: {}",
        closed["release"].as_str().unwrap_or("?")
    ));
    let proposal = stage.propose(&opened.round)?;
    let live = stage.proposal(&proposal, "activated", &["refused", "void"], PATIENCE)?;
    let (block, _) = wait::event(&stage.clients[0], before, "activated", &proposal, PATIENCE)?;
    let height = block.header.height;
    for client in &stage.clients {
        wait::until("every node living at the activation", PATIENCE, || {
            Ok((client.status()?.height >= height).then_some(()))
        })?;
    }
    stage.talk.say(format!(
        "live on all four at height {height}, {:.1} s after the commit",
        opened.start.elapsed().as_secs_f64()
    ));
    traffic.use_memo();
    wait::until("a memo coming back", PATIENCE, || Ok(traffic.seen().memo))?;
    stage.talk.say("a transfer with a memo is final");
    Ok(upgrade_facts(
        &live,
        &closed,
        &stage.first_coin,
        height,
        height,
        true,
        opened.start.elapsed(),
    ))
}

/// Opens the round of a release that only one builder will build. It stays open until its deadline.
pub fn open_lonely(stage: &Stage<'_>) -> Result<Opened> {
    stage.talk.title(
        "A release that only one builder will attest; its round waits for the others until the deadline",
    );
    let commit = repo::commit_files(
        &stage.coin,
        &[("src/lonely.rs", b"// Nobody else builds this.\n")],
        "coin: Slip something in",
    )?;
    opened(stage, Instant::now(), 3, &commit)
}

/// Lets one runner build it. It waits for the reveal phase, which comes with the deadline; the story goes on meanwhile.
pub fn build_lonely(stage: &Stage<'_>, lonely: &Opened) {
    let runner = &stage.runners[VALIDATORS - 1];
    stage.talk.say(format!(
        "{} alone builds round {}",
        runner.name(),
        &lonely.round.to_hex()[..12]
    ));
    stage.build_beside(runner, &lonely.job, &lonely.round);
}

/// Proposes it all the same, and returns why the ledger refused it.
pub fn lonely_refusal(stage: &Stage<'_>, lonely: &Opened) -> Result<Refused> {
    stage
        .talk
        .title("The release that only one builder attested is proposed all the same");
    let round = wait::phase(
        &stage.clients[0],
        &format!("/v1/rounds/{}", lonely.round),
        &["failed"],
        &["agreed"],
        PATIENCE,
    )?;
    let release = round["would_be"]
        .as_str()
        .context("the round names no release that it would have had")?;
    let answer = stage.at_node(&[
        "propose",
        "--round",
        &lonely.round.to_string(),
        "--release",
        release,
    ])?;
    let receipt = &answer["receipt"]["receipt"];
    ensure!(
        receipt["outcome"] == "rejected",
        "a release of one builder was taken: {answer}"
    );
    let refused = Refused {
        release: release.to_owned(),
        rule: receipt["rule"].as_str().unwrap_or_default().to_owned(),
        entry: answer["id"].as_str().unwrap_or_default().to_owned(),
        detail: receipt["detail"].as_str().unwrap_or_default().to_owned(),
    };
    stage
        .talk
        .say(format!("refused: {} ({})", refused.rule, refused.detail));
    Ok(refused)
}

/// A dapp that answers differently on different nodes: built alike by all, voted for, and caught by the rehearsal.
pub fn disagreeing(stage: &Stage<'_>) -> Result<Refused> {
    stage
        .talk
        .title("A release whose dapp answers differently on different nodes");
    let before = stage.height()?;
    let commit = stage.commit_coin(3, "coin: Print a map in its own order")?;
    let bad = opened(stage, Instant::now(), 4, &commit)?;
    stage.build(&stage.runners, &bad.job, &bad.round)?;
    let proposal = stage.propose(&bad.round)?;
    let state = stage.proposal(&proposal, "refused", &["activated"], PATIENCE)?;
    let (block, body) = wait::event(
        &stage.clients[0],
        before,
        "proposal-refused",
        &proposal,
        PATIENCE,
    )?;
    let line = block.receipts.iter().find(
        |line| matches!(line, ReceiptLine::Event(e) if e.id == proposal && e.event == "proposal-refused"),
    );
    let line = line.context("the event was just found")?;
    let refused = Refused {
        release: state["release"].as_str().unwrap_or_default().to_owned(),
        rule: body["rule"].as_str().unwrap_or_default().to_owned(),
        entry: format!(
            "{proposal} (block {}, event {})",
            block.header.height,
            Digest::of(&instar_attest::json::to_vec(line)?)
        ),
        detail: body["detail"].as_str().unwrap_or_default().to_owned(),
    };
    ensure!(
        stage.slot("dapps/coin")?["number"] == 2,
        "the disagreeing release went live"
    );
    stage
        .talk
        .say(format!("refused: {} ({})", refused.rule, refused.detail));
    Ok(refused)
}
