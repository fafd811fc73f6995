//! The demo's story, in order.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::report::{Killed, Report, Transfers, measure};
use super::stage::{PATIENCE, Setup, Stage};
use super::traffic::{INTERVAL, SLOW_INTERVAL, Traffic};
use super::{Args, Talk, VALIDATORS, audit, chain, coin, node_upgrade, validators, wait};

/// How long the last transfers may take to become final.
const DRAIN: Duration = Duration::from_secs(40);

/// Tells the story; the report is complete only when everything in it happened.
pub fn tell(args: &Args, talk: &Talk, home: &Path) -> Result<Report> {
    let program = std::env::current_exe()?;
    let mut report = Report {
        validators: VALIDATORS,
        sandbox: crate::verbs::doctor::describe(&instar_sandbox::probe()),
        ..Report::default()
    };
    let checkout = if args.no_node {
        Err(anyhow::anyhow!("--no-node was given"))
    } else {
        node_upgrade::checkout(&program)
    };
    let mut stage = Stage::found(
        talk,
        &Setup {
            program: &program,
            home,
            policy: chain::policy(args.full),
            accounts: chain::FUNDED,
            validators: VALIDATORS,
            outlive: args.keep,
            checkout: checkout.as_ref().ok(),
        },
    )?;
    let interval = if args.full { SLOW_INTERVAL } else { INTERVAL };
    let traffic = Traffic::start(stage.chain, stage.clients.clone(), 0, interval)?;
    wait::until("the first transfer becoming final", PATIENCE, || {
        Ok((traffic.seen().applied > 0).then_some(()))
    })?;
    talk.say("the first transfer is final");

    if let Err(why) = &checkout {
        report
            .left_out
            .push(format!("the upgrade of the node's own binary: {why}"));
    }
    // From the warm target folder the node's own program is built beside everything else. Four hermetic builds would
    // take the processors from the dapps' rounds, which have deadlines, so they come last.
    let node_build = match &checkout {
        Ok(checkout) if !args.full => Some(node_upgrade::start_build(&stage, checkout, false)?),
        _ => None,
    };
    let second = coin::open_second(&stage)?;
    let lonely = coin::open_lonely(&stage)?;
    report
        .upgrades
        .push(coin::upgrade(&stage, &second, &traffic)?);
    coin::build_lonely(&stage, &lonely);
    report.killed = kill(&stage)?;
    report.refused.push(coin::disagreeing(&stage)?);
    if let Some(build) = node_build {
        report.upgrades.push(node_upgrade::finish(&stage, build)?);
    }
    report.refused.push(coin::lonely_refusal(&stage, &lonely)?);
    if args.full
        && let Ok(checkout) = &checkout
    {
        let build = node_upgrade::start_build(&stage, checkout, true)?;
        report.upgrades.push(node_upgrade::finish(&stage, build)?);
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
    report.audit = audit::run(&mut stage, &report.upgrades[0].to, args.keep)?;
    report.seconds = talk.seconds();
    if args.keep {
        keep(&mut stage, &mut report)?;
    }
    Ok(report)
}

fn kill(stage: &Stage<'_>) -> Result<Killed> {
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

fn keep(stage: &mut Stage<'_>, report: &mut Report) -> Result<()> {
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
