//! Releases: what is chosen for each file, and that only the wanted root comes out.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::path::Path;

use instar_chunks::Cid;
use instar_delta::release::{Choice, MAGIC, ReleaseError, apply_release, make_release};
use support::{noise, program};

fn write(root: &Path, files: &[(&str, &[u8])]) {
    for (path, bytes) in files {
        let place = root.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, bytes).unwrap();
    }
}

struct Case {
    dir: tempfile::TempDir,
    object: Vec<u8>,
    root: Cid,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<u64> = (0..150).collect();
        let fewer: Vec<u64> = (0..150).filter(|n| n % 9 != 0).collect();
        let notes = noise(5, 3000);
        let old = [
            ("linux/amd64/node", program(&fewer)),
            ("notes", notes.clone()),
            ("gone", noise(6, 100)),
            ("turned", noise(7, 4000)),
        ];
        let new = [
            ("linux/amd64/node", program(&all)),
            ("docs/notes", notes),
            ("release.json", vec![b' '; 2000]),
            ("turned", noise(9, 4000)),
        ];
        for (name, files) in [("old", old), ("new", new)] {
            let files: Vec<(&str, &[u8])> = files.iter().map(|(p, b)| (*p, b.as_slice())).collect();
            write(&dir.path().join(name), &files);
        }
        let made = make_release(&dir.path().join("old"), &dir.path().join("new")).unwrap();
        let choices: Vec<&str> = made
            .list
            .files
            .iter()
            .map(|f| Choice::of(f).name())
            .collect();
        assert_eq!(choices, ["same", "delta", "whole", "whole"]);
        let root = made.list.new.parse().unwrap();
        Self {
            dir,
            object: made.object,
            root,
        }
    }

    fn apply(&self, object: &[u8], wanted: Option<&Cid>) -> Result<(), ReleaseError> {
        let place = self.dir.path().join("object");
        fs::write(&place, object).unwrap();
        let out = self.dir.path().join("out");
        let result = apply_release(
            &self.dir.path().join("old"),
            &File::open(place).unwrap(),
            wanted,
            &out,
        );
        assert_eq!(result.is_ok(), out.exists(), "what is there is whole");
        let left: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.starts_with('.'))
            .collect();
        assert!(left.is_empty(), "{left:?} was left behind");
        result.map(drop)
    }

    /// The object with its list's text changed.
    fn forged(&self, from: &str, to: &str) -> Vec<u8> {
        let len = u64::from_le_bytes(self.object[8..16].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&self.object[16..16 + len]).unwrap();
        assert!(text.contains(from), "{text}");
        let text = text.replacen(from, to, 1);
        let mut out = MAGIC.to_vec();
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
        out.extend(&self.object[16 + len..]);
        out
    }
}

#[test]
fn a_release_comes_out_whole_and_with_its_modes() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new();
    let binary = case.dir.path().join("old/linux/amd64/node");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    case.apply(&case.object, Some(&case.root)).unwrap();
    for path in ["linux/amd64/node", "docs/notes", "release.json", "turned"] {
        let [new, out] =
            ["new", "out"].map(|n| fs::read(case.dir.path().join(n).join(path)).unwrap());
        assert!(new == out, "{path}");
    }
    assert!(!case.dir.path().join("out/gone").exists());
    let mode = fs::metadata(case.dir.path().join("out/linux/amd64/node"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
    let again = case.apply_over();
    assert!(matches!(again, Err(ReleaseError::Unfit { .. })));
}

impl Case {
    /// Applies where something is already.
    fn apply_over(&self) -> Result<(), ReleaseError> {
        let object = File::open(self.dir.path().join("object")).unwrap();
        apply_release(
            &self.dir.path().join("old"),
            &object,
            None,
            &self.dir.path().join("out"),
        )
        .map(drop)
    }
}

#[test]
fn a_single_file_is_a_release_too() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n);
    fs::write(at("a"), program(&[1, 2, 3])).unwrap();
    fs::write(at("b"), program(&[1, 2, 3, 4])).unwrap();
    let made = make_release(&at("a"), &at("b")).unwrap();
    fs::write(at("object"), &made.object).unwrap();
    let list = apply_release(&at("a"), &File::open(at("object")).unwrap(), None, &at("c")).unwrap();
    assert_eq!(list.new, list.files[0].cid);
    assert!(fs::read(at("b")).unwrap() == fs::read(at("c")).unwrap());
}

#[test]
fn another_release_than_the_wanted_one() {
    let case = Case::new();
    let other = instar_chunks::block::cid_of(instar_chunks::block::RAW, b"other");
    let error = case.apply(&case.object, Some(&other)).unwrap_err();
    assert!(
        matches!(error, ReleaseError::OtherRelease { .. }),
        "{error}"
    );
}

#[test]
fn a_list_that_does_not_make_the_root_it_promises() {
    let case = Case::new();
    for (from, to) in [
        ("\"docs/notes\"", "\"../notes\""),
        ("\"docs/notes\"", "\"/etc/notes\""),
        ("\"docs/notes\"", "\"docs//notes\""),
        ("\"docs/notes\"", "\"release.json\""),
        ("\"docs/notes\"", "\"docs/other\""),
        ("\"size\":3000", "\"size\":10737418240"),
        ("\"size\":3000", "\"size\":3000,\"sparse\":true"),
        ("\"files\":[", "\"files\":[[],"),
    ] {
        let error = case
            .apply(&case.forged(from, to), Some(&case.root))
            .unwrap_err();
        assert!(
            matches!(error, ReleaseError::Malformed(_) | ReleaseError::Tree(_)),
            "{to}: {error}"
        );
    }
}

#[test]
fn paths_that_lead_out_of_the_old_release() {
    let case = Case::new();
    fs::write(case.dir.path().join("secret"), noise(5, 3000)).unwrap();
    for to in ["../secret", "/etc/passwd", "a/../../secret", "."] {
        let forged = case.forged("\"from\":\"notes\"", &format!("\"from\":\"{to}\""));
        let error = case.apply(&forged, Some(&case.root)).unwrap_err();
        let ReleaseError::File { source, .. } = &error else {
            panic!("{error}")
        };
        assert!(source.to_string().contains("leads out of"), "{source}");
    }
}

#[test]
fn an_old_release_that_is_another_one() {
    let case = Case::new();
    for (path, bytes) in [
        ("notes", noise(8, 3000)),
        ("notes", noise(5, 2999)),
        ("linux/amd64/node", program(&[1, 2])),
    ] {
        let place = case.dir.path().join("old").join(path);
        let was = fs::read(&place).unwrap();
        fs::write(&place, bytes).unwrap();
        assert!(matches!(
            case.apply(&case.object, None),
            Err(ReleaseError::File { .. })
        ));
        fs::write(&place, was).unwrap();
    }
    case.apply(&case.object, None).unwrap();
}

#[test]
fn every_cut_of_an_object() {
    let case = Case::new();
    for len in [
        0,
        7,
        8,
        15,
        16,
        100,
        case.object.len() / 2,
        case.object.len() - 1,
    ] {
        assert!(
            case.apply(&case.object[..len], Some(&case.root)).is_err(),
            "{len}"
        );
    }
    let mut longer = case.object.clone();
    longer.push(0);
    assert!(case.apply(&longer, Some(&case.root)).is_err());
    let mut claims = case.object.clone();
    claims[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(
        case.apply(&claims, None),
        Err(ReleaseError::Bound(_))
    ));
}
