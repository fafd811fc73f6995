//! The upgrade of the node's own binary: another commit of the checkout that this program was built from.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use instar_attest::ChainId;

use super::report::{Upgrade, upgrade_facts};
use super::runner::Job;
use super::stage::Stage;
use super::{VALIDATORS, repo, runner, wait};
use crate::founding::{Admitted, admit};

/// The file whose change a person sees in `instar chain status`.
const CODENAME_FILE: &str = "node/cli/src/codename.txt";
/// What the upgraded node calls itself.
const NEW_CODENAME: &str = "second instar";
/// How long a build of the node's program may take from a warm target folder, and how long the rollout may take.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long four hermetic builds, twice each, may take.
const PATIENCE_FULL: Duration = Duration::from_secs(4 * 3600);
/// How many runners build six hundred crates at the same time: they share this machine's memory.
const RUNNERS_AT_ONCE: usize = 2;

/// The checkout that the running program was built in, clean at a commit.
pub struct Checkout {
    pub root: PathBuf,
    pub commit: String,
}

/// Finds the checkout: the folder above `target/` that holds this project's sources.
pub fn checkout(program: &Path) -> Result<Checkout> {
    let root = program
        .ancestors()
        .find(|dir| dir.join(CODENAME_FILE).is_file() && dir.join("Cargo.lock").is_file())
        .ok_or_else(|| anyhow!("this program does not stand in a checkout of its sources"))?
        .to_owned();
    let commit = repo::git(&root, &["-c", "safe.directory=*", "rev-parse", "HEAD"])
        .context("the sources are no git checkout, so there is no other commit to build")?;
    Ok(Checkout { root, commit })
}

/// The running program as the node release that the chain starts with.
pub fn admit_running(program: &Path, home: &Path, checkout: Option<&Checkout>) -> Result<Admitted> {
    let dir = home.join("developer").join("node-1");
    let source = match checkout {
        Some(c) => instar_builder::source::resolve(&c.root, &c.commit)?.source,
        None => crate::release::unknown_source(),
    };
    let release = crate::release::of_program(program, &dir, ChainId::from_bytes([0; 32]), source)?;
    admit(release, dir)
}

/// A build that runs while the story goes on.
pub struct Building {
    job: Job,
    start: Instant,
    round: instar_attest::Digest,
    thread: JoinHandle<Result<()>>,
    full: bool,
}

/// Commits the change in a clone of the checkout, opens the round, and starts building.
pub fn start_build(stage: &Stage<'_>, checkout: &Checkout, full: bool) -> Result<Building> {
    stage
        .talk
        .title("The node's own binary: another commit of this checkout");
    let start = Instant::now();
    let clone = stage.home.join("developer").join("node");
    let (root, clone_text) = (checkout.root.to_string_lossy(), clone.to_string_lossy());
    repo::git(
        &stage.home,
        &[
            "-c",
            "safe.directory=*",
            "clone",
            "--quiet",
            "--no-hardlinks",
            &root,
            &clone_text,
        ],
    )?;
    repo::git(
        &clone,
        &["checkout", "--quiet", "-B", "main", &checkout.commit],
    )?;
    let commit = repo::commit_files(
        &clone,
        &[(CODENAME_FILE, NEW_CODENAME.as_bytes())],
        "cli: Change the codename",
    )?;
    let job = Job {
        repo: clone,
        commit: commit.clone(),
        slot: "node".into(),
        number: 2,
        name: "instar".into(),
        chain: stage.chain,
        warm: (!full).then(|| checkout.root.clone()),
    };
    let round = stage.open_round(&job)?;
    let runners = if full {
        stage.runners.clone()
    } else {
        stage.runners[..1].to_vec()
    };
    stage.talk.say(format!(
        "commit {}, build round {}; {}",
        &commit[..12],
        &round.to_hex()[..12],
        if full {
            "four runners build it hermetically"
        } else {
            "one runner builds it from the warm target folder, and its attestation says so"
        }
    ));
    let job_for_thread = job.clone();
    let thread =
        std::thread::spawn(move || runner::all(&runners, &job_for_thread, &round, RUNNERS_AT_ONCE));
    Ok(Building {
        job,
        start,
        round,
        thread,
        full,
    })
}

/// Waits for the build, proposes it, and follows the rollout to its end.
pub fn finish(stage: &Stage<'_>, building: Building) -> Result<Upgrade> {
    stage
        .talk
        .title("The node's own binary goes live, one validator after the other");
    let patience = if building.full {
        PATIENCE_FULL
    } else {
        PATIENCE
    };
    let round = building.round;
    building
        .thread
        .join()
        .map_err(|_| anyhow!("the runner's thread panicked"))??;
    let closed = stage.agreed(&round, patience)?;
    let release = closed["release"]
        .as_str()
        .context("an agreed round names its release")?
        .to_owned();
    stage.talk.say(format!(
        "built from {}: {release}",
        &building.job.commit[..12]
    ));
    let before = stage.height()?;
    let old: Vec<_> = stage
        .clients
        .iter()
        .map(|c| c.status())
        .collect::<Result<_>>()?;
    let proposal = stage.propose(&round)?;
    let live = stage.proposal(
        &proposal,
        "activated",
        &["refused", "halted", "void"],
        patience,
    )?;
    let (started, _) = wait::event(
        &stage.clients[0],
        before,
        "rollout-started",
        &proposal,
        patience,
    )?;
    let (done, _) = wait::event(&stage.clients[0], before, "activated", &proposal, patience)?;
    for (client, old) in stage.clients.iter().zip(&old) {
        let now = wait::until("every node answering after the rollout", patience, || {
            client.status().map(Some)
        })?;
        ensure!(now.pid != old.pid, "{} was not restarted", now.name);
        if now.codename != NEW_CODENAME || now.release.as_deref() != Some(&release) {
            bail!(
                "{} runs \"{}\" from {:?}, not the new release",
                now.name,
                now.codename,
                now.release
            );
        }
        stage.talk.say(format!(
            "{}: \"{}\" is now \"{}\", pid {} → {}",
            now.name, old.codename, now.codename, old.pid, now.pid
        ));
    }
    ensure!(
        stage.clients.len() == VALIDATORS,
        "all validators were asked"
    );
    Ok(upgrade_facts(
        &live,
        &closed,
        &stage.first_node,
        started.header.height,
        done.header.height,
        building.full,
        building.start.elapsed(),
    ))
}
