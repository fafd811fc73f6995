//! The demo's story, in order.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use instar_attest::{ChainId, Digest};
use instar_ledger::ReceiptLine;
use serde_json::Value;

use super::chain::Admitted;
use super::report::{Killed, Refused, Report, Transfers, Upgrade, Votes, measure};
use super::runner::{Job, Runner};
use super::traffic::Traffic;
use super::validators::Validator;
use super::{Args, Talk, VALIDATORS, audit, chain, node_upgrade, repo, runner, validators, wait};
use crate::client::Client;

/// How long one step of an upgrade may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long the last transfers may take to become final.
const DRAIN: Duration = Duration::from_secs(40);

/// All that the steps share.
pub struct Stage<'a> {
    pub args: &'a Args,
    pub talk: &'a Talk,
    pub home: PathBuf,
    pub program: PathBuf,
    pub validators: Vec<Validator>,
    pub runners: Vec<Runner>,
    pub clients: Vec<Client>,
    pub chain: ChainId,
    pub coin: PathBuf,
}

impl Stage<'_> {
    pub fn job(&self, slot: &str, number: u64, commit: &str) -> Job {
        Job {
            repo: self.coin.clone(),
            commit: commit.to_owned(),
            slot: slot.to_owned(),
            number,
            name: "coin".into(),
            chain: self.chain,
            warm: None,
        }
    }

    /// Runs a verb of this program as a person would, and returns what it printed as JSON.
    pub fn instar(&self, args: &[&str]) -> Result<Value> {
        let output = std::process::Command::new(&self.program)
            .args(args)
            .arg("--json")
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(text.lines().last().unwrap_or_default()).with_context(|| {
            format!(
                "`instar {}` ended with {}: {}{}",
                args.join(" "),
                output.status,
                text,
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// As [`Self::instar`], with the first validator's node and token.
    pub fn at_node(&self, args: &[&str]) -> Result<Value> {
        let (url, token) = (
            self.validators[0].url(),
            self.validators[0].home.token_file(),
        );
        let token = token.to_string_lossy();
        self.instar(&[args, &["--node", &url, "--token-file", &token]].concat())
    }

    /// Opens a build round for a job; its id.
    pub fn open_round(&self, job: &Job) -> Result<Digest> {
        let repo = job.repo.to_string_lossy();
        let number = job.number.to_string();
        let args = [
            "propose",
            "--open",
            &repo,
            "--rev",
            &job.commit,
            "--slot",
            &job.slot,
            "--number",
            &number,
            "--name",
            &job.name,
        ];
        applied(&self.at_node(&args)?)
    }

    /// Proposes what a round agreed on; the proposal's id.
    pub fn propose(&self, round: &Digest) -> Result<Digest> {
        applied(&self.at_node(&["propose", "--round", &round.to_string()])?)
    }

    pub fn slot(&self, slot: &str) -> Result<Value> {
        self.clients[0].get(&format!("/v1/slots/{slot}"))
    }

    pub fn height(&self) -> Result<u64> {
        Ok(self.clients[0].status()?.height)
    }
}

fn applied(answer: &Value) -> Result<Digest> {
    ensure!(
        answer["receipt"]["receipt"]["outcome"] == "applied",
        "the ledger refused it: {answer}"
    );
    Ok(answer["id"]
        .as_str()
        .context("the answer names no id")?
        .parse()?)
}

/// Tells the story; the report is complete only when everything in it happened.
pub fn tell(args: &Args, talk: &Talk, home: &Path) -> Result<Report> {
    let program = std::env::current_exe()?;
    let mut report = Report {
        validators: VALIDATORS,
        sandbox: crate::verbs::doctor::describe(&instar_sandbox::probe()),
        ..Report::default()
    };
    let coin = home.join("developer").join("coin");

    talk.title("A developer's repository, and version 1 of the coin dapp");
    let v1 = repo::commit_files(
        &coin,
        &crate::embedded::coin(1),
        "coin: Transfer between accounts",
    )?;
    let first = build_first(&program, home, &coin, &v1)?;
    talk.say(format!("built twice, equal: {}", first.root));

    talk.title("Four validators with keys of their own, and a chain");
    let names: Vec<String> = (1..=VALIDATORS).map(|i| format!("val-{i}")).collect();
    let validators = validators::lay_out(&home.join("validators"), &names)?;
    chain::make_keys(&validators)?;
    let checkout = if args.no_node {
        Err(anyhow::anyhow!("--no-node was given"))
    } else {
        node_upgrade::checkout(&program)
    };
    let node_release = node_upgrade::admit_running(&program, home, checkout.as_ref().ok())?;
    let manifest = crate::embedded::coin_manifest()?;
    let admitted = [first, node_release];
    let genesis = chain::genesis(&validators, &admitted, manifest, args.full)?;
    let id = chain::found(&validators, &genesis, &admitted)?;
    talk.say(format!("chain {id}"));

    let runners = validators.iter().map(|v| Runner::of(&program, v)).collect();
    let clients = validators
        .iter()
        .map(Validator::client)
        .collect::<Result<Vec<_>>>()?;
    let mut stage = Stage {
        args,
        talk,
        home: home.to_owned(),
        program,
        validators,
        runners,
        clients,
        chain: id,
        coin,
    };
    start_all(&mut stage, &admitted[1].root)?;
    let traffic = Traffic::start(id, stage.clients.clone(), 0);
    wait::until("the first transfer becoming final", PATIENCE, || {
        Ok((traffic.seen().applied > 0).then_some(()))
    })?;
    talk.say("the first transfer is final");

    // The node's own program is built beside everything else: it takes longest.
    let node_job = match &checkout {
        Ok(checkout) => Some(node_upgrade::start_build(&stage, checkout)?),
        Err(why) => {
            report
                .left_out
                .push(format!("the upgrade of the node's own binary: {why}"));
            None
        }
    };
    report
        .upgrades
        .push(coin_upgrade(&stage, &traffic, &admitted[0].root)?);
    let lonely = lonely_round(&stage)?;
    report.killed = kill(&mut stage)?;
    report.refused.push(disagreeing_dapp(&stage)?);
    report.refused.push(lonely_refusal(&stage, &lonely)?);
    if let Some(job) = node_job {
        report
            .upgrades
            .push(node_upgrade::finish(&stage, job, &admitted[1].root)?);
    }

    talk.title("The last transfers");
    let seen = traffic.finish(DRAIN)?;
    report.transfers = Transfers::from(&seen);
    ensure!(seen.memo.is_some(), "no transfer came back with its memo");
    ensure!(
        report.transfers.sent == report.transfers.applied + report.transfers.rejected,
        "a transfer got lost"
    );
    for upgrade in &mut report.upgrades {
        measure(upgrade, &seen, &stage.clients[0], VALIDATORS)?;
    }
    report.height = stage.height()?;
    if let Some(outside) = validators::listening_outside(&stage.validators)? {
        bail!("{outside} listens outside loopback");
    }
    report.audit = audit::run(&mut stage, &report.upgrades[0].to)?;
    report.seconds = talk.seconds();
    if args.keep {
        keep(&mut stage, &mut report)?;
    }
    Ok(report)
}

fn build_first(program: &Path, home: &Path, coin: &Path, commit: &str) -> Result<Admitted> {
    let out = home.join("developer").join("coin-1");
    let zero = ChainId::from_bytes([0; 32]).to_string();
    let output = std::process::Command::new(program)
        .arg("build")
        .arg(coin)
        .args([
            "--rev",
            commit,
            "--slot",
            "dapps/coin",
            "--number",
            "1",
            "--name",
            "coin",
            "--chain",
            &zero,
            "--out",
        ])
        .arg(&out)
        .output()?;
    ensure!(
        output.status.success(),
        "instar build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    chain::admit_built(&out)
}

fn start_all(stage: &mut Stage, release: &str) -> Result<()> {
    for validator in &mut stage.validators {
        validator.start(&stage.program, release)?;
    }
    for validator in &mut stage.validators {
        validator.wait_ready()?;
    }
    stage.talk.say("all four answer");
    Ok(())
}

fn coin_upgrade(stage: &Stage, traffic: &Traffic, from: &str) -> Result<Upgrade> {
    stage
        .talk
        .title("Version 2 of the coin: transfers carry a memo");
    let start = Instant::now();
    let commit = repo::commit_files(
        &stage.coin,
        &crate::embedded::coin(2),
        "coin: Let a transfer carry a memo",
    )?;
    let job = stage.job("dapps/coin", 2, &commit);
    let before = stage.height()?;
    let round = stage.open_round(&job)?;
    stage.talk.say(format!(
        "commit {}, build round {}",
        &commit[..12],
        &round.to_hex()[..12]
    ));
    runner::all(&stage.runners, &job, &round)?;
    let closed = wait::phase(
        &stage.clients[0],
        &format!("/v1/rounds/{round}"),
        &["agreed"],
        &["failed"],
        PATIENCE,
    )?;
    stage.talk.say(format!(
        "four runners built it twice each, with the same bytes: {}",
        closed["release"].as_str().unwrap_or("?")
    ));
    let proposal = stage.propose(&round)?;
    let live = wait::phase(
        &stage.clients[0],
        &format!("/v1/upgrades/{proposal}"),
        &["activated"],
        &["refused", "void"],
        PATIENCE,
    )?;
    let (block, _) = wait::event(&stage.clients[0], before, "activated", &proposal, PATIENCE)?;
    let height = block.header.height;
    for client in &stage.clients {
        wait::until("every node living at the activation", PATIENCE, || {
            Ok((client.status()?.height >= height).then_some(()))
        })?;
    }
    stage.talk.say(format!(
        "live on all four at height {height}, {:.1} s after the commit",
        start.elapsed().as_secs_f64()
    ));
    traffic.use_memo();
    wait::until("a memo coming back", PATIENCE, || Ok(traffic.seen().memo))?;
    stage.talk.say("a transfer with a memo is final");
    Ok(upgrade_facts(
        &live,
        &closed,
        from,
        height,
        height,
        true,
        start.elapsed(),
    ))
}

/// Reads an upgrade's facts from what the ledger says of its proposal and round.
pub fn upgrade_facts(
    proposal: &Value,
    round: &Value,
    from: &str,
    activated: u64,
    completed: u64,
    hermetic: bool,
    took: Duration,
) -> Upgrade {
    let votes = |choice: &str| {
        proposal["votes"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, v)| v["vote"] == choice)
            .count()
    };
    Upgrade {
        slot: proposal["slot"].as_str().unwrap_or_default().to_owned(),
        from: from.to_owned(),
        to: proposal["release"].as_str().unwrap_or_default().to_owned(),
        builders_matched: round["matched"].as_array().map_or(0, Vec::len),
        hermetic,
        votes: Votes {
            yes: votes("yes"),
            no: votes("no"),
        },
        activated_at: activated,
        completed_at: completed,
        seconds_from_commit: (took.as_secs_f64() * 10.0).round() / 10.0,
        ..Upgrade::default()
    }
}

struct Lonely {
    round: Digest,
}

/// A release that only one builder builds. Its round waits for the others until the deadline.
fn lonely_round(stage: &Stage) -> Result<Lonely> {
    stage.talk.title("A release that only one builder attests");
    let commit = repo::commit_files(
        &stage.coin,
        &[("src/lonely.rs", b"// Nobody else builds this.\n")],
        "coin: Slip something in",
    )?;
    let job = stage.job("dapps/coin", 3, &commit);
    let round = stage.open_round(&job)?;
    let runner = stage.runners[VALIDATORS - 1].clone();
    stage.talk.say(format!(
        "{} alone builds round {}",
        runner.name(),
        &round.to_hex()[..12]
    ));
    // The runner waits for the reveal phase, which comes with the deadline; the story goes on meanwhile.
    std::thread::spawn(move || runner::all(&[runner], &job, &round));
    Ok(Lonely { round })
}

fn lonely_refusal(stage: &Stage, lonely: &Lonely) -> Result<Refused> {
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
fn disagreeing_dapp(stage: &Stage) -> Result<Refused> {
    stage
        .talk
        .title("A release whose dapp answers differently on different nodes");
    let commit = repo::commit_files(
        &stage.coin,
        &crate::embedded::coin(3),
        "coin: Print a map in its own order",
    )?;
    let job = stage.job("dapps/coin", 4, &commit);
    let before = stage.height()?;
    let round = stage.open_round(&job)?;
    runner::all(&stage.runners, &job, &round)?;
    wait::phase(
        &stage.clients[0],
        &format!("/v1/rounds/{round}"),
        &["agreed"],
        &["failed"],
        PATIENCE,
    )?;
    let proposal = stage.propose(&round)?;
    let state = wait::phase(
        &stage.clients[0],
        &format!("/v1/upgrades/{proposal}"),
        &["refused"],
        &["activated"],
        PATIENCE,
    )?;
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

fn kill(stage: &mut Stage) -> Result<Killed> {
    let victim = &stage.validators[VALIDATORS - 2];
    stage
        .talk
        .title(&format!("{} is killed with SIGKILL", victim.name));
    let client = victim.client()?;
    let final_before = client.status()?;
    let key = victim.home.key(instar_attest::Purpose::Consensus)?.public();
    let pid = victim.kill_node()?;
    let start = Instant::now();
    let back = wait::until("the killed node answering again", PATIENCE, || {
        let status = client.status()?;
        Ok((status.pid != pid).then_some(status))
    })?;
    ensure!(
        back.height >= final_before.height,
        "the node came back below what was final for it"
    );
    // Nothing final is lost: the block that was its head is still the trunk's block of that height.
    let same = client.block(final_before.height)?.map(|b| b.id);
    ensure!(
        same == Some(final_before.head),
        "block {} changed",
        final_before.height
    );
    let others = &stage.clients[0];
    let mut height = others.status()?.height;
    wait::until(
        "a certificate with the killed node's precommit",
        PATIENCE,
        || {
            while let Some(block) = others.block(height)? {
                if block
                    .certificate
                    .signatures
                    .iter()
                    .any(|s| s.validator == key)
                {
                    return Ok(Some(()));
                }
                height += 1;
            }
            Ok(None)
        },
    )?;
    let seconds = start.elapsed().as_secs_f64();
    stage.talk.say(format!(
        "it signs again after {seconds:.1} s, nothing final is lost"
    ));
    Ok(Killed {
        validator: stage.validators[VALIDATORS - 2].name.clone(),
        recovered: true,
        seconds: (seconds * 10.0).round() / 10.0,
    })
}

fn keep(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let url = stage.validators[0].url();
    let token = stage.validators[0].home.token_file();
    report.ledger_url = Some(format!("{url}/ledger.git"));
    report.home = Some(stage.home.display().to_string());
    let mut pids = Vec::new();
    for validator in &mut stage.validators {
        pids.extend(validator.release().map(|p| p.to_string()));
    }
    let program = stage.program.display();
    eprintln!("\nThe chain goes on. Try:");
    eprintln!("  {program} chain status --node {url}");
    eprintln!("  {program} chain log --node {url}");
    eprintln!("  {program} upgrade list --node {url}");
    eprintln!("  git clone {url}/ledger.git && git -C ledger log --graph --oneline | head -40");
    eprintln!(
        "  {program} vote PROPOSAL yes --node {url} --token-file {}",
        token.display()
    );
    eprintln!("Stop it with: kill {}", pids.join(" "));
    Ok(())
}
