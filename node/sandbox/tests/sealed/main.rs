//! What holds inside a container, seen from inside, in each situation in which a node may run: as root, as an ordinary
//! user, and inside `unshare -rn`.
//!
//! It has its own `main`, because a helper is this very program, executed again: see `instar_sandbox::init`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod inside;
mod life;
mod limits;
mod shared;
mod support;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use instar_sandbox::{Exit, Mount, Profile, Running, Sandbox, Status, Stream, probe, spawn};

use support::{MIB, finish, output_of, run, shell};

/// Set for the runs in other situations, so that they don't start further ones.
const SITUATION: &str = "INSTAR_SANDBOX_SITUATION";

/// The argument with which this program holds a container until it is killed.
const HOLD: &str = "--hold";

/// Where the kernel gives no user namespaces.
const REFUSED: &str = "refused";

/// An id that no account has.
const ORDINARY_USER: u32 = 54321;

/// Tests with their names.
macro_rules! tests {
    ($($room:ident::$test:ident),* $(,)?) => {
        [$((stringify!($test), $room::$test as fn())),*]
    };
}

fn main() {
    instar_sandbox::init();
    if let Some(nap) = std::env::args()
        .skip_while(|argument| argument != HOLD)
        .nth(1)
    {
        life::hold(&nap);
    }
    let situation = std::env::var(SITUATION);
    if situation.as_deref() == Ok(REFUSED) {
        inside::a_refusal_says_how_to_allow_it();
        println!("test {REFUSED}::a_refusal_says_how_to_allow_it ... ok");
        return;
    }
    let tests: &[(&str, fn())] = &tests![
        inside::the_probe_says_that_everything_mandatory_holds,
        inside::a_command_talks_over_its_streams,
        inside::the_status_shows_no_rights,
        inside::a_build_shows_no_rights_either,
        inside::every_namespace_is_its_own,
        inside::there_is_no_network,
        inside::the_root_is_read_only,
        inside::only_the_output_folder_is_writable,
        inside::the_image_is_the_root,
        inside::a_link_on_the_way_to_a_mount_is_refused,
        inside::a_dapp_sees_nothing_of_the_machine,
        inside::no_namespaces_are_made_inside,
        inside::a_missing_program_is_told,
        inside::a_job_that_can_t_be_sandboxed_is_refused,
        limits::processes_are_limited,
        limits::memory_of_a_process_is_limited,
        limits::memory_of_all_processes_is_limited,
        limits::the_wall_clock_ends_it,
        limits::the_wall_clock_can_be_armed_anew,
        limits::processor_time_is_limited,
        limits::the_size_of_a_file_is_limited,
        life::exit_codes_and_signals_are_told_apart,
        life::nothing_survives_a_killed_helper,
        life::a_killed_forker_takes_nothing_with_it,
        life::nothing_survives_a_killed_caller,
        life::nothing_survives_a_dropped_handle,
        shared::nothing_is_handed_on_to_the_next_command,
        shared::commands_at_once_see_nothing_of_each_other,
        shared::what_could_carry_words_between_commands_is_refused,
        shared::one_more_than_fits_waits_for_its_turn,
        shared::an_out_of_memory_is_told_of_the_command_that_had_it,
        shared::a_killed_helper_ends_all_and_is_told,
        shared::many_commands_leave_nothing_in_the_helper,
        life::no_cgroups_are_left,
    ];
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let name = situation.clone().unwrap_or_else(|_| "here".to_owned());
    for (test, run) in tests.iter().filter(|(test, _)| test.contains(&filter)) {
        let start = Instant::now();
        run();
        println!(
            "test {name}::{test} ... ok ({} ms)",
            start.elapsed().as_millis()
        );
    }
    if situation.is_err() {
        elsewhere(&filter);
        println!("test result: ok. {} tests, in each situation", tests.len());
    }
}

/// Runs everything again where a node may also have to run. The copy stands where everybody can read it.
fn elsewhere(filter: &str) {
    let folder = tempfile::Builder::new()
        .prefix("instar-sandbox-")
        .tempdir()
        .unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("sealed");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let run = |situation: &str, command: &mut Command| {
        let status = command
            .arg(filter)
            .env(SITUATION, situation)
            .env_remove("TMPDIR")
            .current_dir("/")
            .status();
        assert!(status.unwrap().success(), "it failed as {situation}");
    };
    if nix::unistd::geteuid().is_root() {
        run(
            "user",
            Command::new(&copy).uid(ORDINARY_USER).gid(ORDINARY_USER),
        );
        run(
            "user_unshared",
            Command::new("unshare")
                .arg("-rn")
                .arg(&copy)
                .uid(ORDINARY_USER)
                .gid(ORDINARY_USER),
        );
    }
    run("unshared", Command::new("unshare").arg("-rn").arg(&copy));
    // The setting is a user namespace's own, so the machine's stays as it is.
    let refuse = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\"";
    run(
        REFUSED,
        Command::new("unshare")
            .args(["-r", "sh", "-c", refuse])
            .arg(&copy),
    );
}
