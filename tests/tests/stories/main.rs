//! Stories of whole chains: four validators as processes, with containers, consensus and git, and something that goes
//! wrong. A build's sandbox takes this very program as its helper, so the stories have a `main` of their own.

// Clippy knows tests by their attribute, which a harness of our own does not use.
#![allow(clippy::unwrap_used)]

mod forked;
mod governed;
mod held;
mod hostile;
mod late;
mod liars;
mod loopback;
mod merged;
mod operators;
mod outside;
mod site;
mod staged;
mod stores;
mod work_tree;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

type Story = (&'static str, fn());

const STORIES: &[Story] = &[
    (
        "four_stores_say_the_same_and_a_falsified_balance_is_named",
        stores::falsified_balance,
    ),
    (
        "a_byte_flipped_in_one_work_tree_matches_nobody",
        work_tree::flipped_byte,
    ),
    ("a_held_network_shows", held::held_network),
    (
        "a_peer_that_hands_over_what_is_forged_is_not_listened_to",
        hostile::hostile_peer,
    ),
    (
        "a_release_comes_as_a_delta_to_who_did_not_build_it",
        staged::comes_as_a_delta,
    ),
    (
        "four_operators_begin_a_chain_with_the_programs_verbs",
        operators::four_operators,
    ),
    (
        "a_chain_is_governed_and_a_device_said_two_things",
        governed::governed,
    ),
    ("a_chain_is_forked_and_goes_its_own_way", forked::forked),
    (
        "a_fork_is_merged_back_and_its_entries_count_again",
        merged::merged,
    ),
    (
        "a_fifth_node_comes_late_by_a_snapshot_and_becomes_a_validator",
        late::comes_late,
    ),
    (
        "a_chain_is_checked_from_outside",
        outside::checked_from_outside,
    ),
];

fn main() -> ExitCode {
    instar_sandbox::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == held::INSIDE) {
        held::inside();
        return ExitCode::SUCCESS;
    }
    // What `cargo test -- NAME` and tools that list tests pass to any harness.
    if arguments.iter().any(|a| a == "--list") {
        STORIES
            .iter()
            .for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let chosen: Vec<&Story> = STORIES
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| name.contains(*w)))
        .collect();
    println!("\nrunning {} tests", chosen.len());
    let mut failed = Vec::new();
    for (name, story) in &chosen {
        let start = Instant::now();
        let told = catch_unwind(story).is_ok();
        println!(
            "test {name} ... {} ({:.0} s)",
            if told { "ok" } else { "FAILED" },
            start.elapsed().as_secs_f64()
        );
        if !told {
            failed.push(name);
        }
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
        failed.len(),
        STORIES.len() - chosen.len()
    );
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// A chain of four with the coin, in a temporary folder, as `adjust` wants its policy.
fn with_chain<T>(
    adjust: impl FnOnce(&mut instar::demo::chain::Policy),
    story: impl FnOnce(&mut instar::demo::stage::Stage<'_>) -> T,
) -> T {
    with_accounts(instar::demo::chain::FUNDED, adjust, story)
}

/// As [`with_chain`], with that many accounts in the state.
fn with_accounts<T>(
    accounts: usize,
    adjust: impl FnOnce(&mut instar::demo::chain::Policy),
    story: impl FnOnce(&mut instar::demo::stage::Stage<'_>) -> T,
) -> T {
    let home = tempfile::tempdir().unwrap();
    let talk = instar::demo::Talk::default();
    let mut policy = instar::demo::chain::policy(false);
    adjust(&mut policy);
    let setup = instar::demo::stage::Setup {
        program: &instar_tests::instar(),
        home: &home.path().canonicalize().unwrap(),
        policy,
        accounts,
        validators: instar::demo::VALIDATORS,
        outlive: false,
        checkout: None,
    };
    let mut stage = instar::demo::stage::Stage::found(&talk, &setup).unwrap();
    story(&mut stage)
}

/// Changes the settings of every validator's node, and starts them again.
fn with_settings(
    stage: &mut instar::demo::stage::Stage<'_>,
    change: impl Fn(&mut instar_node::home::NodeConfig),
) {
    stage.validators.iter_mut().for_each(|v| v.stop());
    let (program, release) = (stage.program.clone(), stage.first_node.clone());
    for validator in &mut stage.validators {
        let mut config = validator.home.config().unwrap();
        change(&mut config);
        validator.home.write_config(&config).unwrap();
        validator.start(&program, &release).unwrap();
    }
    for validator in &mut stage.validators {
        validator.wait_ready().unwrap();
    }
}
