//! One validator builds a release and three do not: they stage it by a delta from the release that they have.

use std::fs;

use instar::demo::stage::{PATIENCE, Stage};
use instar::demo::traffic::{INTERVAL, Traffic};
use instar::demo::{coin, runner, wait};

/// The only builder.
const BUILDER: &str = "val-1";
/// Time for a peer to make the delta; the coin's takes a second or two where compilers share the machine.
const DELTA_PATIENCE_S: u64 = 20;

/// What a node says of the bytes of releases that came from peers.
fn staged(stage: &Stage<'_>, node: usize, came: &str) -> u64 {
    let text = stage.clients[node].find_bytes("/metrics").unwrap().unwrap();
    let text = String::from_utf8(text).unwrap();
    let name = format!("instar_staged_bytes_total{{came=\"{came}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&name))
        .map_or(0, |value| value.parse().unwrap())
}

pub fn comes_as_a_delta() {
    super::with_chain(
        |policy| {
            policy.dapps.builders = 1;
            policy.dapps.builder_names = Some(vec![BUILDER.into()]);
        },
        |stage| {
            super::with_settings(stage, |config| config.delta_patience_s = DELTA_PATIENCE_S);
            let traffic = Traffic::start(stage.chain, stage.clients.clone(), 0, INTERVAL).unwrap();
            let opened = coin::open_second(stage).unwrap();
            let builder = stage.validators.iter().position(|v| v.name == BUILDER);
            let builder = builder.unwrap();
            let runners = &stage.runners[builder..=builder];
            runner::all(runners, &opened.job, &opened.round, 1).unwrap();
            let round = stage.agreed(&opened.round, PATIENCE).unwrap();
            let proposal = stage.propose(&opened.round).unwrap();
            stage
                .proposal(&proposal, "activated", &["refused", "void"], PATIENCE)
                .unwrap();
            // It runs from what the delta made: a transfer with a memo is one that version 1 refuses.
            traffic.use_memo();
            wait::until("a memo coming back", PATIENCE, || Ok(traffic.seen().memo)).unwrap();
            traffic.finish(PATIENCE).unwrap();
            let blocks = |node: usize| staged(stage, node, "Blocks");
            let delta = |node: usize| staged(stage, node, "Delta");
            for node in 0..stage.clients.len() {
                println!(
                    "node {node}: {} bytes of deltas, {} of blocks",
                    delta(node),
                    blocks(node)
                );
            }
            let image = stage.validators[builder].home.images();
            let image = image.join(round["release"].as_str().unwrap());
            let program = fs::metadata(image.join("rootfs/bin/coin")).unwrap().len();
            for node in (0..stage.clients.len()).filter(|n| *n != builder) {
                let log = stage.validators[node].log_tail();
                assert!(delta(node) > 0, "node {node} took no delta\n{log}");
                let came = delta(node) + blocks(node);
                assert!(
                    came * 4 < program,
                    "{came} bytes for a program of {program} bytes"
                );
            }
            assert_eq!(
                (delta(builder), blocks(builder)),
                (0, 0),
                "it built them itself"
            );
        },
    );
}
