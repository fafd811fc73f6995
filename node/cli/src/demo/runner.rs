//! A validator's runner: the commands that its GitLab job runs, one after the other, as processes of their own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use instar_attest::{ChainId, Digest, Purpose};

use super::validators::Validator;

/// Between two looks at a running command.
const POLL: Duration = Duration::from_millis(50);

/// What is to be built.
#[derive(Clone)]
pub struct Job {
    /// The git repository.
    pub repo: PathBuf,
    /// The commit.
    pub commit: String,
    /// What it replaces.
    pub slot: String,
    /// Its number.
    pub number: u64,
    /// The program's name.
    pub name: String,
    /// The chain it is for.
    pub chain: ChainId,
    /// A checkout whose warm target folder may be used; such a build is not hermetic and says so.
    pub warm: Option<PathBuf>,
}

/// Where a runner works and what it may use; all it needs of a validator, so that it can run on a thread of its own.
#[derive(Clone)]
pub struct Runner {
    program: PathBuf,
    name: String,
    dir: PathBuf,
    url: String,
    token_file: PathBuf,
    builder_key: PathBuf,
    /// Whether the stage is being taken down: running commands are ended then.
    over: Arc<AtomicBool>,
}

impl Runner {
    /// The runner of a validator.
    pub fn of(program: &Path, validator: &Validator, over: &Arc<AtomicBool>) -> Self {
        Self {
            program: program.to_owned(),
            name: validator.name.clone(),
            dir: validator.home.path().join("runner"),
            url: validator.url(),
            token_file: validator.home.token_file(),
            builder_key: validator.home.key_file(Purpose::Builder),
            over: Arc::clone(over),
        }
    }

    /// The validator's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where a job's outputs lie.
    pub fn out(&self, job: &Job) -> PathBuf {
        self.dir
            .join(format!("{}-{}", job.slot.replace('/', "-"), job.number))
    }

    /// The log of a job.
    pub fn log(&self, job: &Job) -> PathBuf {
        self.out(job).with_extension("log")
    }

    fn command(&self, job: &Job, args: &[&str]) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(job))?;
        // Compilers stand back: in earnest a validator's runner is another machine, here it shares two cores with nodes.
        let mut child = Command::new("nice")
            .args(["-n", "19"])
            .arg(&self.program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} can't be started", self.program.display()))?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let asked = super::stop::check().err();
            if asked.is_some() || self.over.load(Ordering::Relaxed) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(asked.unwrap_or_else(|| anyhow::anyhow!("the story is over")));
            }
            std::thread::sleep(POLL);
        };
        if !status.success() {
            let text = fs::read(self.log(job)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let tail: Vec<&str> = text.lines().rev().take(15).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!(
                "{}: `instar {}` ended with {status}\n{}",
                self.name,
                args.first().unwrap_or(&""),
                tail.join("\n")
            );
        }
        Ok(())
    }

    /// `instar build`.
    pub fn build(&self, job: &Job) -> Result<PathBuf> {
        let out = self.out(job);
        let (repo, out_text) = (job.repo.to_string_lossy(), out.to_string_lossy());
        let (number, chain) = (job.number.to_string(), job.chain.to_string());
        let mut args = vec![
            "build",
            &repo,
            "--rev",
            &job.commit,
            "--slot",
            &job.slot,
            "--number",
            &number,
            "--name",
            &job.name,
            "--chain",
            &chain,
            "--out",
            &out_text,
        ];
        let warm = job.warm.as_ref().map(|w| w.to_string_lossy().into_owned());
        if let Some(warm) = &warm {
            args.extend(["--recipe", "cargo-warm", "--warm", warm]);
        }
        self.command(job, &args)?;
        Ok(out)
    }

    /// `instar attest`, then `instar pin`.
    pub fn attest_and_pin(&self, job: &Job, round: &Digest) -> Result<()> {
        let out = self.out(job);
        let (out, round) = (out.to_string_lossy(), round.to_string());
        let (token, key) = (
            self.token_file.to_string_lossy(),
            self.builder_key.to_string_lossy(),
        );
        let node = ["--node", &self.url, "--token-file", &token];
        self.command(
            job,
            &[
                &["attest", &out, "--round", &round, "--key", &key][..],
                &node[..],
            ]
            .concat(),
        )?;
        self.command(
            job,
            &[&["pin", &out, "--round", &round][..], &node[..]].concat(),
        )
    }
}

/// Every runner does the whole job, each in its own home, all at the same time but for the builds: at most `at_once` of
/// them run together. (An attestation waits until every builder has committed, so it must hold nobody up.)
pub fn all(runners: &[Runner], job: &Job, round: &Digest, at_once: usize) -> Result<()> {
    let places: Vec<Mutex<()>> = (0..at_once).map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = runners
            .iter()
            .zip(places.iter().cycle())
            .map(|(runner, place)| {
                scope.spawn(move || {
                    {
                        let _mine = place.lock().unwrap_or_else(PoisonError::into_inner);
                        runner.build(job)?;
                    }
                    runner.attest_and_pin(job, round)
                })
            })
            .collect();
        for handle in running {
            handle
                .join()
                .map_err(|_| anyhow::anyhow!("a runner's thread panicked"))??;
        }
        Ok(())
    })
}
