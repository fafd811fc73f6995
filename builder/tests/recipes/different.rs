//! Sources that can't be reproduced, each for one reason.

use instar_builder::{BuildOutcome, Cause, FileDifference};

use crate::support::{CARGO, LOCK, MAIN_WITH_VALUE, place, with_build_script};

fn difference(value: &str) -> FileDifference {
    let place = place();
    let script = with_build_script(value);
    let files = [
        ("Cargo.toml", CARGO),
        ("Cargo.lock", LOCK),
        ("src/main.rs", MAIN_WITH_VALUE),
        ("build.rs", &script),
    ];
    let repository = place.repository("source", "sha256", &files);
    match place.build(&repository, "out") {
        BuildOutcome::Different(mut found) => {
            assert_eq!(found.files.len(), 1, "{found:#?}");
            let [one, two] = found
                .kept
                .map(|folder| std::fs::read(folder.join(&found.files[0].path)).unwrap());
            assert_ne!(one, two, "both outputs are kept");
            assert!(
                !place.path("out/release").exists(),
                "nothing that could be released is left"
            );
            found.files.remove(0)
        }
        other => panic!("{other:#?}"),
    }
}

pub fn a_time_stamp_is_found() {
    let now = "std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string()";
    let found = difference(now);
    assert_eq!(found.cause, Cause::Time, "{found:#?}");
    assert!(found.mend.contains("SOURCE_DATE_EPOCH"));
    assert!(found.section.is_some() && found.first_offset.is_some());
}

pub fn a_date_is_found() {
    // Two builds within a minute would agree on the day, if the second one's clock didn't go ahead.
    let day = "String::from_utf8(std::process::Command::new(\"date\").arg(\"+built on %Y-%m-%d\").output().unwrap().stdout).unwrap()";
    let found = difference(day);
    assert_eq!(found.cause, Cause::Time, "{found:#?}");
    assert!(found.evidence.unwrap()[0].contains("built on 20"));
}

pub fn a_host_name_is_found() {
    let found = difference(
        "format!(\"built on the machine {}\", std::fs::read_to_string(\"/proc/sys/kernel/hostname\").unwrap())",
    );
    assert_eq!(found.cause, Cause::HostName, "{found:#?}");
}

pub fn the_order_of_a_map_is_found() {
    let found = difference(
        "let names: std::collections::HashSet<String> = (10..40).map(|n| format!(\"name-{n}\")).collect(); \
         names.into_iter().collect::<Vec<_>>().join(\",\")",
    );
    assert_eq!(found.cause, Cause::Order, "{found:#?}");
}
