//! Whole builds in the sandbox. The sandbox's helper is this very program, so the tests have a `main` of their own.

// Clippy knows tests by their attribute, which a harness of our own does not use.
#![allow(clippy::unwrap_used)]

mod support;

mod different;
mod equal;
mod failed;
mod sources;
mod vendored;
mod warm;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("a_dapp_is_reproducible", equal::a_dapp_is_reproducible),
    (
        "both_object_formats_give_the_same_bytes",
        equal::both_object_formats_give_the_same_bytes,
    ),
    (
        "a_flipped_byte_in_the_work_tree_gives_another_release",
        equal::a_flipped_byte,
    ),
    (
        "a_release_is_verified_by_rebuilding",
        equal::a_release_is_verified_by_rebuilding,
    ),
    (
        "a_work_tree_is_built_only_when_asked_and_marked",
        sources::a_work_tree_is_built_only_when_asked_and_marked,
    ),
    (
        "a_submodule_is_built_at_its_pinned_commit",
        sources::a_submodule_is_built_at_its_pinned_commit,
    ),
    (
        "a_url_is_brought_and_brought_again",
        sources::a_url_is_brought_and_brought_again,
    ),
    (
        "debug_information_lies_beside_the_release",
        sources::debug_information_lies_beside_the_release,
    ),
    ("two_targets_in_one_run", sources::two_targets_in_one_run),
    ("a_time_stamp_is_found", different::a_time_stamp_is_found),
    ("a_date_is_found", different::a_date_is_found),
    ("a_host_name_is_found", different::a_host_name_is_found),
    (
        "the_order_of_a_map_is_found",
        different::the_order_of_a_map_is_found,
    ),
    (
        "a_crate_that_does_not_compile_is_failed",
        failed::a_crate_that_does_not_compile,
    ),
    (
        "nothing_outside_can_be_reached",
        failed::nothing_outside_can_be_reached,
    ),
    (
        "a_lock_file_that_does_not_fit_is_failed",
        failed::a_lock_file_that_does_not_fit,
    ),
    (
        "vendored_crates_are_used",
        vendored::vendored_crates_are_used,
    ),
    (
        "a_changed_vendored_file_is_refused",
        vendored::a_changed_file,
    ),
    (
        "an_unlisted_vendored_file_is_refused",
        vendored::an_unlisted_file,
    ),
    ("another_checksum_is_refused", vendored::another_checksum),
    (
        "a_warm_build_compiles_only_what_changed",
        warm::compiles_only_what_changed,
    ),
    (
        "a_warm_build_without_a_target_folder_says_so",
        warm::falls_back,
    ),
];

fn main() -> std::process::ExitCode {
    instar_sandbox::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // What `cargo test -- NAME` and tools that list tests pass to any harness.
    if arguments.iter().any(|a| a == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return std::process::ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let chosen = TESTS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| name.contains(*w)));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in chosen {
        let started = std::time::Instant::now();
        let ok = std::panic::catch_unwind(test).is_ok();
        println!(
            "test {name} ... {} ({} ms)",
            if ok { "ok" } else { "FAILED" },
            started.elapsed().as_millis()
        );
        if ok { passed += 1 } else { failed += 1 }
    }
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed",
        if failed == 0 { "ok" } else { "FAILED" }
    );
    if failed == 0 {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}
