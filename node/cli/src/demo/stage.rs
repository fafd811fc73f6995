//! The stage that the story plays on: four validators of one new chain, their runners, and a developer's repository.
//!
//! Tests that need a whole chain of processes set up the same one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use instar_attest::{ChainId, Digest};
use instar_chain::Policy;
use serde_json::Value;

use super::chain;
use super::node_upgrade::{self, Checkout};
use super::runner::{self, Job, Runner};
use super::validators::{self, Validator};
use super::{Talk, repo, wait};
use crate::client::Client;
use crate::founding::{self, Admitted};

/// How long one step of an upgrade may take before the demo gives up.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// What a chain starts from.
pub struct Setup<'a> {
    /// The `instar` program that every process runs.
    pub program: &'a Path,
    /// The folder of everything: new, or empty.
    pub home: &'a Path,
    /// The rules of the chain.
    pub policy: Policy,
    /// How many accounts have something to spend.
    pub accounts: usize,
    /// How many validators there are.
    pub validators: usize,
    /// Whether the validators go on when this process ends.
    pub outlive: bool,
    /// The checkout that the program was built in, if it stands in one.
    pub checkout: Option<&'a Checkout>,
}

/// All that the steps share.
pub struct Stage<'a> {
    /// Where progress goes.
    pub talk: &'a Talk,
    /// The folder of everything.
    pub home: PathBuf,
    /// The `instar` program.
    pub program: PathBuf,
    /// The validators, running.
    pub validators: Vec<Validator>,
    /// A runner for each validator.
    pub runners: Vec<Runner>,
    /// A client of each validator's node.
    pub clients: Vec<Client>,
    /// The chain.
    pub chain: ChainId,
    /// The developer's repository of the coin dapp.
    pub coin: PathBuf,
    /// Runners at work beside the story.
    background: Mutex<Vec<JoinHandle<Result<()>>>>,
    over: Arc<AtomicBool>,
    /// Root CID of the coin's version 1.
    pub first_coin: String,
    /// Root CID of the node's release that the chain started with.
    pub first_node: String,
}

impl<'a> Stage<'a> {
    /// Makes keys, a chain that has the coin dapp, and its running validators.
    pub fn found(talk: &'a Talk, setup: &Setup<'_>) -> Result<Self> {
        let (home, program) = (setup.home, setup.program);
        talk.title("A developer's repository, and version 1 of the coin dapp");
        let coin = home.join("developer").join("coin");
        let v1 = repo::commit_files(
            &coin,
            &crate::embedded::coin(1),
            "coin: Transfer between accounts",
        )?;
        let first = build_first(program, home, &coin, &v1)?;
        talk.say(format!("built twice, equal: {}", first.root));

        talk.title(&format!(
            "{} validators with keys of their own, and a chain",
            setup.validators
        ));
        let mut validators =
            validators::lay_out(&home.join("validators"), &chain::names(setup.validators))?;
        validators
            .iter_mut()
            .for_each(|v| v.outlive = setup.outlive);
        let public = validators
            .iter()
            .map(Validator::public)
            .collect::<Result<Vec<_>>>()?;
        let writing = || format!("the new chain can't be written to {}", home.display());
        let node_release =
            node_upgrade::admit_running(program, home, setup.checkout).with_context(writing)?;
        let admitted = [first, node_release];
        let plan = chain::plan(setup.policy.clone(), setup.accounts)?;
        let genesis = founding::genesis(&plan, &public, &admitted)?;
        let id = genesis.chain_id()?;
        for validator in &validators {
            let made =
                founding::found(&validator.home, &genesis, &admitted).with_context(writing)?;
            ensure!(made == id, "one genesis made two chains");
        }
        talk.say(format!("chain {id}"));
        let [first_coin, first_node] = admitted.map(|a| a.root);
        let over = Arc::new(AtomicBool::new(false));
        let mut stage = Self {
            talk,
            home: home.to_owned(),
            program: program.to_owned(),
            runners: validators
                .iter()
                .map(|v| Runner::of(program, v, &over))
                .collect(),
            clients: validators
                .iter()
                .map(Validator::client)
                .collect::<Result<_>>()?,
            validators,
            chain: id,
            coin,
            background: Mutex::default(),
            over,
            first_coin,
            first_node,
        };
        for validator in &mut stage.validators {
            validator.start(program, &stage.first_node)?;
        }
        for validator in &mut stage.validators {
            validator.wait_ready()?;
        }
        talk.say("all answer");
        Ok(stage)
    }

    /// Lets one runner do a job beside the story; what becomes of it is read from the ledger.
    pub fn build_beside(&self, runner: &Runner, job: &Job, round: &Digest) {
        let (runner, job, round) = (runner.clone(), job.clone(), *round);
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(std::thread::spawn(move || {
                runner::all(&[runner], &job, &round, 1)
            }));
    }

    /// A job of the coin's repository.
    pub fn job(&self, number: u64, commit: &str) -> Job {
        Job {
            repo: self.coin.clone(),
            commit: commit.to_owned(),
            slot: "dapps/coin".into(),
            number,
            name: "coin".into(),
            chain: self.chain,
            warm: None,
        }
    }

    /// Lets the developer commit one of the coin's versions over the last one; the commit's id.
    pub fn commit_coin(&self, version: u32, message: &str) -> Result<String> {
        repo::commit_files(&self.coin, &crate::embedded::coin(version), message)
    }

    /// Lets runners build, attest and pin a job, and waits until the round has agreed on its release.
    pub fn build(&self, runners: &[Runner], job: &Job, round: &Digest) -> Result<Value> {
        runner::all(runners, job, round, runners.len())?;
        self.agreed(round, PATIENCE)
    }

    /// Waits until a round has agreed on its release; what the ledger says of it.
    pub fn agreed(&self, round: &Digest, patience: Duration) -> Result<Value> {
        let path = format!("/v1/rounds/{round}");
        wait::phase(&self.clients[0], &path, &["agreed"], &["failed"], patience)
    }

    /// Waits until a proposal is in the phase `good`, at most `patience`; what the ledger says of it.
    pub fn proposal(
        &self,
        id: &Digest,
        good: &str,
        bad: &[&str],
        patience: Duration,
    ) -> Result<Value> {
        let path = format!("/v1/upgrades/{id}");
        wait::phase(&self.clients[0], &path, &[good], bad, patience)
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

    /// What a slot holds.
    pub fn slot(&self, slot: &str) -> Result<Value> {
        self.clients[0].get(&format!("/v1/slots/{slot}"))
    }

    /// Height of the first validator's newest final block.
    pub fn height(&self) -> Result<u64> {
        Ok(self.clients[0].status()?.height)
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // A story that ends early leaves no runner behind.
        self.over.store(true, Ordering::Relaxed);
        let background = self.background.get_mut();
        for runner in background.unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = runner.join();
        }
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
    founding::admit_built(&out)
}
