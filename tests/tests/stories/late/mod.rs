//! A fifth node comes when the chain is some hundred blocks old: by a snapshot, killed on the way, past sources that
//! lie; it follows, answers as the others do, and becomes a validator.

mod joins;
mod prunes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use instar::client::Client;
use instar::demo::stage::Stage;
use instar::demo::traffic::{INTERVAL, Traffic, account_key};
use instar::demo::wait;
use instar_attest::Purpose;
use instar_node::home::{Home, MIN_STATES_KEPT};
use instar_node::snapshots::Offer;
use serde_json::{Value, json};

use super::operators::{done, instar, ports, text};
use joins::{
    BEFORE_THE_KILL, joins_from_a_checkpoint, joins_past_a_kill_and_liars, others_who_lie_are_named,
};
use prunes::{KEPT, PRUNES, what_is_old_is_gone_where_little_is_kept};

/// Enough for a state of several chunks.
const ACCOUNTS: usize = 10_000;
/// Blocks between two snapshots of this chain.
const EVERY: u64 = 32;
/// The chain is this long before somebody joins: a snapshot is worth it from 256 blocks on.
const LONG: u64 = 300;
/// A chain of hundreds of blocks takes its time where compilers share the machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// A height that nobody keeps who keeps no more than it must.
const LONG_AGO: u64 = 100;
/// Blocks that the new node follows.
const FOLLOWED: u64 = 20;

struct Late {
    home: Home,
    dir: PathBuf,
    url: String,
    http: String,
    node: Option<Child>,
}

impl Drop for Late {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Late {
    fn new(dir: &Path) -> Self {
        let http = format!("127.0.0.1:{}", ports(1)[0]);
        Self {
            home: Home::new(dir.join("late")),
            dir: dir.to_owned(),
            url: format!("http://{http}"),
            http,
            node: None,
        }
    }

    fn join(&self, stage: &Stage<'_>, home: &Path, urls: &[&str]) -> Command {
        let mut command = Command::new(instar_tests::instar());
        command
            .args(["chain", "join", "--json", "--id", &stage.chain.to_string()])
            .args(["--name", "late", "--http", &self.http, "--home"])
            .arg(home)
            .args(urls);
        command
    }

    fn start(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("late.log"))
            .unwrap();
        let child = Command::new(instar_tests::instar())
            .args(["node", "run", "--home", text(self.home.path())])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.node = Some(child);
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.node.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("late.log")).unwrap_or_default()
    }

    fn client(&self) -> Client {
        Client::new(&self.url, None)
    }

    /// A node proves a key to somebody who trusts the chain's id and nothing else.
    fn proves(&self, stage: &Stage<'_>, url: &str, key: &str) {
        let chain = stage.chain.to_string();
        let file = self.dir.join("proof.json");
        let asked = ["chain", "prove", key, "--chain", &chain, "--node", url];
        let proven = instar(&[&asked[..], &["-o", text(&file)]].concat());
        let why = String::from_utf8_lossy(&proven.stderr).into_owned();
        assert!(proven.status.success(), "{why}");
        let check = ["chain", "check-proof", text(&file), "--chain", &chain];
        let shown = done(&[&check[..], &["--json"]].concat());
        assert!(shown["value"].is_string(), "{shown}");
    }

    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .current_dir(&self.dir)
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "git {args:?}: {said}{complaint}");
        said + &complaint
    }
}

fn facts(output: &Output) -> Value {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn comes_late() {
    super::with_accounts(
        ACCOUNTS,
        |_| {},
        |stage| {
            let dir = tempfile::tempdir().unwrap();
            let offer = grow(stage);
            assert!(offer.chunks > BEFORE_THE_KILL as u64 + 2, "{offer:?}");
            let mut late = Late::new(dir.path());
            what_is_old_is_gone_where_little_is_kept(stage, &late);
            joins_past_a_kill_and_liars(stage, &late, &offer);
            joins_from_a_checkpoint(stage, &late, &offer);
            others_who_lie_are_named(stage, &late, &offer);
            late.start();
            follows(stage, &late, &offer);
            has_no_history(stage, &late, &offer);
            becomes_a_validator(stage, &late);
            late.stop();
            late.start();
            wait::until("it is there again", PATIENCE, || {
                Ok(late.client().status().is_ok().then_some(()))
            })
            .unwrap_or_else(|e| panic!("{e}\n{}", late.log()));
        },
    );
}

/// Lets the validators make snapshots often, and the chain grow; the newest snapshot when it rests.
fn grow(stage: &mut Stage<'_>) -> Offer {
    super::with_settings(stage, |config| {
        config.snapshot_every = EVERY;
        if config.name == PRUNES {
            config.states_kept = MIN_STATES_KEPT;
            config.history_kept = Some(KEPT);
        }
    });
    let traffic = Traffic::start(stage.chain, stage.clients.clone(), 0, INTERVAL).unwrap();
    let newest = |client: &Client| -> anyhow::Result<Option<Offer>> {
        let offers: Vec<Offer> = client.get("/v1/snapshots")?;
        Ok(offers.into_iter().next())
    };
    wait::until("the chain is long", PATIENCE, || {
        Ok((stage.height()? > LONG).then_some(()))
    })
    .unwrap();
    traffic.finish(PATIENCE).unwrap();
    // All have made the same one, byte for byte, while blocks came.
    let offer = wait::until("everybody has a snapshot", PATIENCE, || {
        let height = stage.height()?;
        let mut offers = Vec::new();
        for client in &stage.clients {
            offers.extend(newest(client)?.filter(|o| o.height == height - height % EVERY));
        }
        let all = offers.len() == stage.clients.len();
        let same = offers.iter().all(|o| *o == offers[0]);
        assert!(same, "{offers:?}");
        Ok(all.then(|| offers.remove(0)))
    })
    .unwrap();
    println!(
        "height {}: a snapshot of height {} in {} chunks, {} bytes",
        stage.height().unwrap(),
        offer.height,
        offer.chunks,
        offer.bytes
    );
    offer
}

fn follows(stage: &Stage<'_>, late: &Late, offer: &Offer) {
    let client = late.client();
    let catches_up = || {
        wait::until("the new node catching up", PATIENCE, || {
            let (here, there) = (client.status(), stage.height()?);
            Ok(here.is_ok_and(|s| s.height >= there).then_some(there))
        })
        .unwrap_or_else(|e| panic!("{e}\n{}", late.log()))
    };
    let before = catches_up();
    let status = client.status().unwrap();
    assert_eq!(status.history_from, offer.height + 1);
    assert_eq!(status.states_from, offer.height);
    let traffic = Traffic::start(stage.chain, stage.clients.clone(), before, INTERVAL).unwrap();
    wait::until("blocks to follow", PATIENCE, || {
        Ok((stage.height()? > before + FOLLOWED).then_some(()))
    })
    .unwrap();
    let seen = traffic.finish(PATIENCE).unwrap();
    assert!(seen.applied > 0 && seen.rejected.is_empty());
    let height = catches_up();
    // Every root on the way was computed here, or the block would not have been taken.
    let (here, there) = (
        client.block(height).unwrap(),
        stage.clients[0].block(height).unwrap(),
    );
    let (here, there) = (here.unwrap(), there.unwrap());
    assert_eq!((here.id, &here.header), (there.id, &there.header));
    for at in [0, 1, 7, ACCOUNTS - 1] {
        let account = account_key(at).public();
        let question = json!({"account": account, "op": "balance"}).to_string();
        let ask = |node: &str| {
            let words = [
                "dapp", "query", "coin", &question, "--final", "--json", "--node", node,
            ];
            done(&words)["answer"].clone()
        };
        let (here, there) = (ask(&late.url), ask(&stage.validators[0].url()));
        assert!(here.is_object() && here == there, "{here} {there}");
        // Proven by the new node alone, to somebody who trusts the chain's id.
        late.proves(stage, &late.url, &format!("d/coin/balance/{account}"));
    }
}

/// What a node without the beginning says when it is asked about it, and that stock git is content.
fn has_no_history(stage: &Stage<'_>, late: &Late, offer: &Offer) {
    let says = |path: &str| {
        let error = late.client().find_bytes(path).expect_err(path);
        let text = format!("{error:#}");
        assert!(
            text.contains("410") && text.contains("archive"),
            "{path}: {text}"
        );
    };
    says("/v1/sync/1");
    says(&format!("/v1/sync/{}", offer.height));
    says("/v1/blocks/5");
    says("/v1/headers/5");
    let words = instar(&["chain", "status", "--node", &late.url]);
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    let expected = format!("history  from block {} on", offer.height + 1);
    assert!(words.contains(&expected), "{words}");
    let later = offer.height + 2;
    assert!(
        late.client()
            .find_bytes(&format!("/v1/sync/{later}"))
            .unwrap()
            .is_some()
    );

    let clone = late.dir.join("clone");
    let ledger = format!("{}/ledger.git", late.url);
    let git = |args: &[&str]| late.git(args);
    git(&["clone", "-q", &ledger, text(&clone)]);
    assert_eq!(
        git(&["-C", text(&clone), "fsck", "--strict", "--no-progress"]),
        ""
    );
    let blocks = git(&[
        "-C",
        text(&clone),
        "rev-list",
        "--first-parent",
        "--count",
        "origin/trunk",
    ]);
    let blocks: u64 = blocks.trim().parse().unwrap();
    assert!(
        blocks < stage.height().unwrap() - offer.height + 3,
        "{blocks} blocks were replayed"
    );
    let work = late.dir.join("verify");
    let verify = ["chain", "verify", &ledger, "--work", text(&work), "--json"];
    let output = instar(&verify);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("clone-shallow"), "{said}");
}

fn becomes_a_validator(stage: &Stage<'_>, late: &Late) {
    let chain = stage.chain.to_string();
    let home = text(late.home.path());
    let made = instar(&[
        "validator",
        "apply",
        "--home",
        home,
        "--name",
        "late",
        "--chain",
        &chain,
    ]);
    let file = late.dir.join("late.application");
    fs::write(&file, made.stdout).unwrap();
    let at = |i: usize, words: &[&str]| {
        let validator = &stage.validators[i];
        let (url, token) = (validator.url(), validator.home.token_file());
        let more = ["--json", "--node", &url, "--token-file", text(&token)];
        done(&[words, &more].concat())
    };
    let moved = at(0, &["validator", "add", text(&file), "--delay", "3"]);
    let id = moved["id"].as_str().unwrap().to_owned();
    let url = stage.validators[0].url();
    let phase = || done(&["motion", "show", &id, "--json", "--node", &url])["phase"].clone();
    // Three of four are enough, and what has passed takes no more votes.
    for i in 0..stage.validators.len() - 1 {
        at(i, &["motion", "vote", &id, "yes"]);
    }
    let traffic = Traffic::start(
        stage.chain,
        stage.clients.clone(),
        stage.height().unwrap(),
        INTERVAL,
    )
    .unwrap();
    wait::until("the motion taking effect", PATIENCE, || {
        Ok((phase() == "done").then_some(()))
    })
    .unwrap();
    let from = stage.height().unwrap();
    let key = late.home.key(Purpose::Consensus).unwrap().public();
    let mut looked_at = from;
    wait::until("its precommit standing in a certificate", PATIENCE, || {
        while looked_at < stage.height()? {
            looked_at += 1;
            let block = stage.clients[0].block(looked_at)?;
            let mut signers = block.iter().flat_map(|b| &b.certificate.signatures);
            if signers.any(|s| s.validator == key) {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
    .unwrap_or_else(|e| panic!("{e}\n{}", late.log()));
    traffic.finish(PATIENCE).unwrap();
    let status = late.client().status().unwrap();
    assert_eq!(status.role.to_string(), "validator");
    println!(
        "it signed block {looked_at}, {} after its admission",
        looked_at - from
    );
}
