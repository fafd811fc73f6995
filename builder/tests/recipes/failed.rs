//! Sources that don't build, and what a build can't reach.

use std::net::TcpListener;

use instar_builder::{BuildOutcome, FailedBuild};

use crate::support::{CARGO, LOCK, MAIN, MAIN_WITH_VALUE, equal, place, with_build_script};

fn failed(outcome: BuildOutcome) -> FailedBuild {
    match outcome {
        BuildOutcome::Failed(failed) => failed,
        other => panic!("{other:#?}"),
    }
}

pub fn a_crate_that_does_not_compile() {
    let place = place();
    let files = [
        ("Cargo.toml", CARGO),
        ("Cargo.lock", LOCK),
        ("src/main.rs", "fn main() { no_such_function(); }\n"),
    ];
    let failed = failed(place.build(&place.repository("source", "sha256", &files), "out"));
    assert_eq!(
        (failed.build, failed.ended.as_str()),
        (1, "ended with code 101")
    );
    assert!(
        failed
            .tail
            .iter()
            .any(|l| l.contains("cannot find function `no_such_function`")),
        "{failed:#?}"
    );
    assert!(
        std::fs::read_to_string(&failed.log)
            .unwrap()
            .contains("no_such_function")
    );
    assert!(!place.path("out/release").exists() && !place.path("out/build.json").exists());
}

pub fn nothing_outside_can_be_reached() {
    let place = place();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let own = place.path("secret");
    std::fs::write(&own, "secret").unwrap();
    // Each line is something that must fail; a build script that manages one of them ends the build.
    let script = with_build_script(&format!(
        "assert!(std::net::TcpStream::connect(\"{}\").is_err(), \"loopback\");\n\
         assert!(std::net::UdpSocket::bind(\"0.0.0.0:0\").and_then(|s| s.send_to(b\"x\", \"192.0.2.1:9\")).is_err(), \"outside\");\n\
         assert!(std::fs::read({own:?}).is_err(), \"a file of the host\");\n\
         assert!(std::fs::write(\"src/main.rs\", \"\").is_err(), \"the source\");\n\
         assert!(std::fs::write(\"/build/toolchain/x\", \"\").is_err(), \"the toolchain\");\n\
         assert!(std::fs::write(\"/usr/x\", \"\").is_err(), \"the system\");\n\
         assert_eq!(std::env::var(\"HOME\").unwrap(), \"/build/home\");\n\
         assert_eq!(std::env::var(\"SOURCE_DATE_EPOCH\").unwrap(), \"1700000000\");\n\
         assert_eq!(std::env::current_dir().unwrap().to_str(), Some(\"/build/src\"));\n\
         assert_eq!(std::fs::read_dir(\"/build/home\").unwrap().count(), 0, \"a clean home\");\n\
         String::new()",
        listener.local_addr().unwrap()
    ));
    let files = [
        ("Cargo.toml", CARGO),
        ("Cargo.lock", LOCK),
        ("src/main.rs", MAIN_WITH_VALUE),
        ("build.rs", &script),
    ];
    equal(place.build(&place.repository("source", "sha256", &files), "out"));
    assert!(listener.accept().is_err(), "somebody connected");
}

pub fn a_lock_file_that_does_not_fit() {
    let place = place();
    let manifest = format!("{CARGO}\n[dependencies]\nother = {{ path = \"other\" }}\n");
    let other = CARGO.replace("tiny", "other");
    let files = [
        ("Cargo.toml", manifest.as_str()),
        ("Cargo.lock", LOCK),
        ("src/main.rs", MAIN),
        ("other/Cargo.toml", &other),
        ("other/src/lib.rs", ""),
    ];
    let failed = failed(place.build(&place.repository("source", "sha256", &files), "out"));
    assert!(
        failed.tail.iter().any(|l| l.contains("--locked")),
        "{failed:#?}"
    );
}
