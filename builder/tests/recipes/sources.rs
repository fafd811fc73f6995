//! Where sources come from, and what else can be asked of a build.

use std::process::Command;

use instar_builder::{BuildOutcome, BuildRequest, Claimed, bring, build, verify_rebuild};

use crate::support::{CARGO, LOCK, MAIN, cache, commit, equal, git, place, quiet, write};

const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", CARGO),
    ("Cargo.lock", LOCK),
    ("src/main.rs", MAIN),
];
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn says(built: &instar_builder::Built) -> String {
    let program = built.out.join(format!("release/{TARGET}/tiny"));
    String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap()
}

pub fn a_work_tree_is_built_only_when_asked_and_marked() {
    let place = place();
    let repository = place.repository("source", "sha256", FILES);
    let index = std::fs::read(repository.join(".git/index")).unwrap();
    let dirty = |out: &str| BuildRequest {
        allow_dirty: true,
        slot: None,
        name: None,
        ..place.request(&repository, out)
    };
    // Nothing was changed, so it is the commit.
    let clean = equal(build(&dirty("clean"), &mut quiet).unwrap());
    assert!(!clean.record.dirty);
    assert_eq!(clean.record.slot.as_str(), "node");
    assert_eq!(clean.record.name.to_string(), "tiny");
    write(
        &repository,
        &[
            ("src/word.rs", "pub const WORD: &str = \"new\";"),
            (
                "src/main.rs",
                "mod word; fn main() { println!(\"{}\", word::WORD); }",
            ),
        ],
    );
    write(
        &repository,
        &[(".gitignore", "ignored\n"), ("ignored", "x")],
    );
    let changed = equal(build(&dirty("changed"), &mut quiet).unwrap());
    assert!(changed.record.dirty);
    assert_eq!(changed.record.source.commit, clean.record.source.commit);
    assert_ne!(changed.record.source.tree, clean.record.source.tree);
    assert_eq!(says(&changed), "new\n");
    assert_eq!(
        std::fs::read(repository.join(".git/index")).unwrap(),
        index,
        "the index is the user's"
    );
    let committed = equal(place.build(&repository, "committed"));
    assert_eq!(says(&committed), "hello from src/main.rs\n");
}

pub fn a_submodule_is_built_at_its_pinned_commit() {
    let place = place();
    let lib = place.repository(
        "lib",
        "sha256",
        &[("word.rs", "pub const WORD: &str = \"pinned\";")],
    );
    let main = "#[path = \"../lib/word.rs\"] mod word; fn main() { println!(\"{}\", word::WORD); }";
    let files = [
        ("Cargo.toml", CARGO),
        ("Cargo.lock", LOCK),
        ("src/main.rs", main),
    ];
    let repository = place.repository("source", "sha256", &files);
    let add = [
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "add",
        "-q",
        lib.to_str().unwrap(),
        "lib",
    ];
    git(&repository, &add);
    commit(&repository);
    // What the submodule's own branch, and its checkout, say by now takes no part.
    write(&lib, &[("word.rs", "pub const WORD: &str = \"later\";")]);
    commit(&lib);
    write(&repository, &[("lib/word.rs", "this is no Rust")]);
    let built = equal(place.build(&repository, "out"));
    assert_eq!(says(&built), "pinned\n");
    // A clone that has not brought it says what to do.
    let bare = place.path("bare.git");
    git(
        place.dir.path(),
        &[
            "clone",
            "-q",
            "--bare",
            repository.to_str().unwrap(),
            bare.to_str().unwrap(),
        ],
    );
    let refused = build(&place.request(&bare, "out-2"), &mut quiet)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("git submodule update"), "{refused}");
}

pub fn a_url_is_brought_and_brought_again() {
    let place = place();
    let repository = place.repository("source", "sha256", FILES);
    let url = format!("file://{}", repository.display());
    let at = bring(&url, cache()).unwrap();
    let first = equal(place.build(&at, "out"));
    assert_eq!(first.record.repository.as_deref(), Some(url.as_str()));
    assert!(
        first
            .record
            .reference
            .as_deref()
            .unwrap()
            .starts_with("refs/heads/")
    );
    write(
        &repository,
        &[("src/main.rs", &MAIN.replace("hello", "HELLO"))],
    );
    commit(&repository);
    assert_eq!(bring(&url, cache()).unwrap(), at);
    assert_eq!(
        says(&equal(place.build(&at, "again"))),
        "HELLO from src/main.rs\n"
    );
    assert!(bring("file:///nowhere/at/all.git", cache()).is_err());
}

pub fn debug_information_lies_beside_the_release() {
    let place = place();
    let mut files = FILES.to_vec();
    files.push(("instar.toml", "[release]\ndebug-info = true\n"));
    let repository = place.repository("source", "sha256", &files);
    let built = equal(place.build(&repository, "out"));
    let release = std::fs::read(built.out.join(format!("release/{TARGET}/tiny"))).unwrap();
    let debug = std::fs::read(built.out.join(format!("debug/{TARGET}/tiny.debug"))).unwrap();
    let has = |file: &[u8], section: &str| {
        use object::Object;
        object::File::parse(file)
            .unwrap()
            .section_by_name(section)
            .is_some()
    };
    assert!(has(&debug, ".debug_line") && !has(&release, ".debug_line"));
    assert!(!has(&release, ".symtab"));
    assert_eq!(
        built.record.targets[0].files.len(),
        1,
        "it is not part of the release"
    );
    assert_eq!(says(&built), "hello from src/main.rs\n");
}

pub fn two_targets_in_one_run() {
    let place = place();
    let mut files = FILES.to_vec();
    let toml = format!(
        "[release]\ntargets = [\"{TARGET}\", \"{TARGET}.x86-64-v2\", \"riscv64gc-unknown-none\"]\n"
    );
    files.push(("instar.toml", &toml));
    let repository = place.repository("source", "sha256", &files);
    let mut left_out = Vec::new();
    let outcome = build(&place.request(&repository, "out"), &mut |p| {
        if let instar_builder::Progress::TargetLeftOut(target) = p {
            left_out.push(target.to_string());
        }
    });
    let built = equal(outcome.unwrap());
    assert_eq!(left_out, ["riscv64gc-unknown-none"]);
    let names: Vec<String> = built
        .record
        .targets
        .iter()
        .map(|t| t.target.to_string())
        .collect();
    assert_eq!(names, [TARGET.to_owned(), format!("{TARGET}.x86-64-v2")]);
    let log = std::fs::read_to_string(built.out.join("build-1.log")).unwrap();
    assert_eq!(log.matches("Finished").count(), 2, "{log}");
    // Somebody's record is checked like a release.
    let request = place.request(&repository, "again");
    let claimed = Claimed::from(&built.record);
    equal(verify_rebuild(&claimed, &built.out.join("release"), &request, &mut quiet).unwrap());
    let mut lied = claimed;
    lied.targets[1].files[0].sha256 = instar_attest::Digest::of(b"other bytes");
    let request = place.request(&repository, "third");
    match verify_rebuild(&lied, &built.out.join("release"), &request, &mut quiet).unwrap() {
        BuildOutcome::Different(found) => assert!(found.files[0].path.contains("v2"), "{found:#?}"),
        wrong => panic!("{wrong:#?}"),
    }
}
