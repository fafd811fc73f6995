//! Sources that can be reproduced.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use instar_attest::release::{Activation, ChunkProfile, Release, ReleaseHead, Slot};
use instar_attest::{ChainId, Digest};
use instar_builder::{
    BuildOutcome, BuildRecord, Built, Claimed, Kind, Prepared, RECIPE_CARGO, verify_rebuild,
};
use object::Object;

use crate::support::{CARGO, LOCK, MAIN, Place, cache, equal, git, place, quiet, write};

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn tiny(place: &Place, name: &str, format: &str) -> std::path::PathBuf {
    place.repository(
        name,
        format,
        &[
            ("Cargo.toml", CARGO),
            ("Cargo.lock", LOCK),
            ("src/main.rs", MAIN),
            ("dapp.json", "{\"topic\":\"tiny\"}"),
        ],
    )
}

pub fn a_dapp_is_reproducible() {
    let place = place();
    let repository = tiny(&place, "source", "sha256");
    // What is not committed is not built.
    write(&repository, &[("src/main.rs", "this is no Rust")]);
    let built = equal(place.build(&repository, "out"));

    let record = BuildRecord::read(&built.out).unwrap();
    assert_eq!(record, built.record);
    assert_eq!(
        (record.kind, record.recipe.as_str()),
        (Kind::Dapp, RECIPE_CARGO)
    );
    assert_eq!((record.hermetic, record.equal_builds), (true, 2));
    assert_eq!(record.source.commit.len(), 64);
    assert_eq!(record.source_time_s, 1_700_000_000);
    let files = &record.targets[0].files;
    let paths: Vec<String> = files.iter().map(|f| f.path.to_string()).collect();
    assert_eq!(
        paths,
        [
            format!("{TARGET}/dapp.json"),
            format!("{TARGET}/rootfs/bin/tiny")
        ]
    );
    for (file, mode) in files.iter().zip([0o644, 0o755]) {
        let at = built.out.join("release").join(file.path.as_str());
        assert_eq!(Digest::of(&std::fs::read(&at).unwrap()), file.sha256);
        assert_eq!(at.metadata().unwrap().permissions().mode() & 0o7777, mode);
        assert_eq!(file.mode.bits(), mode);
    }
    let program = built.out.join("release").join(&paths[1]);
    let said = Command::new(&program).env_clear().output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "hello from src/main.rs\n"
    );
    // A static program needs no interpreter, so it runs in an image that holds nothing else.
    let elf = std::fs::read(&program).unwrap();
    let elf = object::File::parse(&*elf).unwrap();
    assert!(
        elf.section_by_name(".text").is_some() && elf.section_by_name(".interp").is_none(),
        "it is not static"
    );
    assert!(
        elf.section_by_name(".symtab").is_none(),
        "it is not stripped"
    );
    assert!(built.out.join("build-1.log").is_file() && built.out.join("build-2.log").is_file());
    assert_eq!(
        std::fs::read_dir(cache().join("work")).unwrap().count(),
        0,
        "work folders go away"
    );
}

pub fn both_object_formats_give_the_same_bytes() {
    let place = place();
    let one = equal(place.build(&tiny(&place, "a", "sha256"), "out-a"));
    let two = equal(place.build(&tiny(&place, "b", "sha1"), "out-b"));
    assert_eq!(two.record.source.commit.len(), 40);
    assert_eq!(one.record.targets, two.record.targets);
    assert_eq!(one.record.sbom, two.record.sbom);
    assert_eq!(one.record.toolchain, two.record.toolchain);
}

pub fn a_flipped_byte() {
    let place = place();
    let repository = tiny(&place, "source", "sha256");
    let honest = equal(place.build(&repository, "honest"));
    let prepared = Prepared::new(&place.request(&repository, "flipped"), &mut quiet).unwrap();
    let file = prepared.work_tree().join("src/main.rs");
    let mut text = std::fs::read(&file).unwrap();
    let at = text.windows(5).position(|w| w == b"hello").unwrap();
    text[at] ^= 1;
    std::fs::write(&file, text).unwrap();
    let flipped = equal(prepared.build(&mut quiet).unwrap());
    assert_eq!(
        honest.record.source, flipped.record.source,
        "both name the same commit"
    );
    let program = |built: &Built| built.record.targets[0].files[1].sha256;
    assert_ne!(program(&honest), program(&flipped));
}

pub fn a_release_is_verified_by_rebuilding() {
    let place = place();
    let repository = tiny(&place, "source", "sha256");
    let built = equal(place.build(&repository, "out"));
    let release = |built: &Built| {
        let head = ReleaseHead {
            activation: Activation::Dapp,
            chain: ChainId::from_bytes([7; 32]),
            chunk_profile: ChunkProfile::new("instar-cdc-v1").unwrap(),
            name: built.record.name.clone(),
            number: built.record.number,
            protocol: 1,
            slot: Slot::new("dapps/tiny").unwrap(),
            source: built.record.source.clone(),
        };
        let targets: BTreeMap<_, _> = built
            .record
            .targets
            .iter()
            .map(|t| (t.target.clone(), t.files.clone()))
            .collect();
        Release::assemble(head, &targets, built.record.sbom.clone()).unwrap()
    };
    let good = release(&built);
    let request = place.request(&repository, "again");
    let folder = built.out.join("release");
    equal(verify_rebuild(&Claimed::from(&good), &folder, &request, &mut quiet).unwrap());

    // Somebody reveals what the next commit makes, under the name of this one.
    write(
        &repository,
        &[("src/main.rs", &MAIN.replace("hello", "HELLO"))],
    );
    git(
        &repository,
        &[
            "-c",
            "user.name=d",
            "-c",
            "user.email=d@example.org",
            "commit",
            "-qam",
            "other",
        ],
    );
    let mut other = equal(place.build(&repository, "other"));
    other.record.source = built.record.source.clone();
    let request = place.request(&repository, "third");
    match verify_rebuild(
        &Claimed::from(&release(&other)),
        &other.out.join("release"),
        &request,
        &mut quiet,
    )
    .unwrap()
    {
        BuildOutcome::Different(found) => {
            assert_eq!(found.files.len(), 1);
            assert!(found.files[0].path.ends_with("bin/tiny"));
            assert!(found.files[0].first_offset.is_some() && found.files[0].section.is_some());
        }
        wrong => panic!("{wrong:#?}"),
    }
}
