//! The simulation: that its invariants hold for thousands of seeds, and that it notices when something is broken.

use std::time::Instant;

use instar_tests::sim::{Broken, Invariant, Options, run};

/// As many as take about a minute of one core. A longer run is a command: `tests/bench/sim --seeds N --from S`.
const SEEDS: u64 = 2_000;
/// Seeds that a broken variant has to be noticed within.
const SEEDS_BROKEN: u64 = 300;

#[test]
fn invariants_hold_for_thousands_of_seeds() {
    let begin = Instant::now();
    let (mut heights, mut cuts, mut rounds) = (0, 0, 0);
    for seed in 0..SEEDS {
        match run(seed, Options::default()) {
            Ok(summary) => {
                heights += summary.heights;
                cuts += summary.cuts;
                rounds += summary.late_rounds;
            }
            Err(_) => {
                // The same run once more, this time written down.
                let options = Options {
                    trace: true,
                    ..Options::default()
                };
                let failure = run(seed, options).expect_err("the same seed makes the same run");
                panic!("{failure}");
            }
        }
    }
    let per_second = SEEDS as f64 / begin.elapsed().as_secs_f64();
    println!(
        "{SEEDS} seeds, {per_second:.1} a second: {heights} heights, {cuts} power cuts, {rounds} later rounds"
    );
    assert!(
        heights > SEEDS && cuts > SEEDS / 2 && rounds > SEEDS,
        "the plan has become tame"
    );
}

#[test]
fn a_seed_makes_the_same_run_again() {
    for seed in [3, 17, 40] {
        let traced = Options {
            trace: true,
            ..Options::default()
        };
        let first = run(seed, Options::default()).expect("the seed holds");
        assert_eq!(
            run(seed, Options::default()).expect("the seed holds"),
            first
        );
        let again = run(seed, traced).expect("the seed holds");
        assert_eq!(again, first, "a trace changes nothing");
    }
}

/// The first seed at which a broken variant is noticed, and by which invariant.
fn notices(broken: Broken, invariant: Invariant) {
    let options = Options {
        broken: Some(broken),
        trace: false,
    };
    let failure = (0..SEEDS_BROKEN).find_map(|seed| run(seed, options).err());
    let failure = failure.unwrap_or_else(|| panic!("{broken:?} is not noticed"));
    assert_eq!(failure.violation.invariant, invariant, "{failure}");
    println!("{broken:?}: seed {}: {}", failure.seed, failure.violation);
}

#[test]
fn two_liars_break_agreement() {
    notices(Broken::TwoLiars, Invariant::Agreement);
}

#[test]
fn a_merge_test_that_is_left_out_breaks_validity() {
    notices(Broken::MergeTestLeftOut, Invariant::Validity);
}

#[test]
fn a_final_block_that_is_not_durable_is_lost() {
    notices(Broken::FinalNotDurable, Invariant::FinalKept);
}

#[test]
fn a_disk_that_lies_about_marks_and_log_lets_a_validator_sign_twice() {
    notices(Broken::LyingDisk, Invariant::SignedOnce);
}

#[test]
fn a_lane_that_is_left_out_is_never_receipted() {
    notices(Broken::LaneLeftOut, Invariant::Receipted);
}

#[test]
fn without_value_sync_a_node_stays_behind() {
    notices(Broken::SyncLeftOut, Invariant::Progress);
}
