//! Files, folders and streams in, the same out again, under both profiles.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use instar_chunks::car::{CarError, CarReader, write_car};
use instar_chunks::import::{Content, ImportError, ImportOptions, only_cid};
use instar_chunks::{
    BlockStore, Blocks, Cid, DagError, Limits, Links, MemoryBlocks, Profile, add_file, export,
    export_with,
};

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn options(profile: Profile) -> ImportOptions {
    ImportOptions {
        profile,
        hidden: true,
    }
}

fn folder(dir: &Path) {
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    fs::create_dir_all(dir.join("empty")).unwrap();
    fs::write(dir.join("a/b/c/large"), noise(9_500_000)).unwrap();
    fs::write(dir.join("a/none"), b"").unwrap();
    for i in 0..300 {
        fs::write(dir.join(format!("a/b/{i}")), noise(i * 37)).unwrap();
    }
    fs::write(dir.join(".hidden"), b"x").unwrap();
    symlink("b/c/large", dir.join("a/link")).unwrap();
    symlink("../../a", dir.join("a/b/up")).unwrap();
}

fn same(a: &Path, b: &Path) {
    let mut names: Vec<_> = fs::read_dir(a)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    let mut others: Vec<_> = fs::read_dir(b)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    others.sort();
    assert_eq!(names, others, "{}", a.display());
    for name in names {
        let (a, b) = (a.join(&name), b.join(&name));
        let kind = a.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            same(&a, &b);
        } else if kind.is_symlink() {
            assert_eq!(fs::read_link(&a).unwrap(), fs::read_link(&b).unwrap());
        } else {
            assert!(
                fs::read(&a).unwrap() == fs::read(&b).unwrap(),
                "{}",
                a.display()
            );
        }
    }
}

#[test]
fn a_folder_goes_in_and_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    folder(&from);
    for profile in Profile::ALL {
        let path = dir.path().join(format!("{profile}.redb"));
        let store = BlockStore::open(&path).unwrap();
        let options = options(profile);
        let added = store
            .import(Content::Path(&from), &options, Some("all"))
            .unwrap();
        assert_eq!((added.files, added.folders, added.links), (303, 5, 2));
        assert_eq!(only_cid(Content::Path(&from), &options).unwrap(), added);
        assert_eq!(store.pins().unwrap(), [("all".to_owned(), added.cid)]);
        let out = dir.path().join(format!("{profile}-out"));
        export(&store, &added.cid, None, &out, &Limits::default()).unwrap();
        same(&from, &out);
        let again = store.import(Content::Path(&out), &options, None).unwrap();
        assert_eq!(again, added, "neither time nor order plays a part");
    }
}

#[test]
fn a_stream_is_cut_as_a_slice_is() {
    for profile in Profile::ALL {
        for len in [0, 1, 8191, 131_073, 1_048_576, 1_048_577, 5_000_000] {
            let content = noise(len);
            let mut slice = content.as_slice();
            let slow = add_file(profile, &mut content.as_slice(), &mut |_, _| Ok(())).unwrap();
            let fast = only_cid(Content::Stream(&mut slice), &options(profile)).unwrap();
            assert_eq!(
                (fast.cid, fast.dag_size),
                (slow.cid, slow.dag_size),
                "{profile} {len}"
            );
        }
    }
}

#[test]
fn what_repeats_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlockStore::open(&dir.path().join("s.redb")).unwrap();
    // Within a buffer, over the border of two, in runs and one by one.
    let mut content = noise(300_000).repeat(30);
    content.resize(content.len() + 30_000_000, 0);
    content.extend_from_slice(&noise(900_000));
    let mut stream = content.as_slice();
    let added = store
        .import(
            Content::Stream(&mut stream),
            &ImportOptions::default(),
            None,
        )
        .unwrap();
    let stat = store.stat().unwrap();
    assert!(stat.stored_bytes < 1_500_000, "{}", stat.stored_bytes);
    assert!(store.verify(&mut |_| ()).unwrap().corrupt.is_empty());
    let out = dir.path().join("out");
    export(&store, &added.cid, None, &out, &Limits::default()).unwrap();
    assert!(fs::read(&out).unwrap() == content);
    // Again: nothing is written.
    let mut stream = content.as_slice();
    store
        .import(
            Content::Stream(&mut stream),
            &ImportOptions::default(),
            None,
        )
        .unwrap();
    assert_eq!(store.stat().unwrap(), stat);
}

#[test]
fn hidden_names_count_as_the_profile_has_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".x"), b"x").unwrap();
    let cid = |profile, hidden| {
        let options = ImportOptions { profile, hidden };
        only_cid(Content::Path(dir.path()), &options).unwrap().cid
    };
    let with = cid(Profile::InstarCdcV1, false);
    assert_eq!(cid(Profile::UnixfsV1_2025, true), with);
    assert_ne!(cid(Profile::UnixfsV1_2025, false), with);
}

#[test]
fn what_no_dag_can_hold_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d/".repeat(40));
    fs::create_dir_all(&deep).unwrap();
    let refused = |path: &Path| only_cid(Content::Path(path), &ImportOptions::default());
    let error = refused(dir.path()).unwrap_err().to_string();
    assert!(error.contains("32 folders deep"), "{error}");
    let gone = refused(&dir.path().join("gone")).unwrap_err();
    assert!(matches!(gone, ImportError::Read { .. }), "{gone}");
    let pipe = dir.path().join("pipe");
    fs::create_dir(&pipe).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(pipe.join("socket")).unwrap();
    let error = refused(&pipe).unwrap_err().to_string();
    assert!(error.contains("neither a file"), "{error}");
    let many = dir.path().join("many");
    fs::create_dir(&many).unwrap();
    for i in 0..7000 {
        fs::write(many.join(i.to_string()), b"").unwrap();
    }
    let large = only_cid(Content::Path(&many), &options(Profile::UnixfsV1_2025));
    let error = large.unwrap_err().to_string();
    assert!(
        error.contains("too large") && error.contains("262144"),
        "{error}"
    );
    assert!(refused(&many).is_ok(), "the other profile has room for it");
}

#[test]
fn a_link_that_leads_outside_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    for (name, target) in [
        ("absolute", "/etc"),
        ("up", "../x"),
        ("through", "a/../../x"),
    ] {
        let from = dir.path().join(name);
        fs::create_dir(&from).unwrap();
        symlink(target, from.join("link")).unwrap();
        let store = BlockStore::open(&dir.path().join(format!("{name}.redb"))).unwrap();
        let added = store
            .import(Content::Path(&from), &ImportOptions::default(), None)
            .unwrap();
        let out = dir.path().join(format!("{name}-out"));
        let limits = Limits::default();
        let error = export(&store, &added.cid, None, &out, &limits).unwrap_err();
        assert!(matches!(error, DagError::LeadsOutside { .. }), "{error}");
        assert!(out.symlink_metadata().is_err(), "nothing is left");
        export_with(
            &store,
            &added.cid,
            None,
            &out,
            &limits,
            Links::UnsafeAnywhere,
        )
        .unwrap();
        assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new(target));
    }
}

fn archive(store: &BlockStore, roots: &[Cid]) -> Vec<u8> {
    let mut car = Vec::new();
    write_car(store, roots, &Limits::default(), &mut car).unwrap();
    car
}

fn read_all(bytes: &[u8]) -> Result<(Vec<Cid>, MemoryBlocks), CarError> {
    let mut car = CarReader::new(bytes)?;
    let blocks = MemoryBlocks::default();
    while let Some((cid, bytes)) = car.next_block()? {
        blocks.put(&cid, &bytes).unwrap();
    }
    Ok((car.roots().to_vec(), blocks))
}

#[test]
fn archives_carry_everything_and_are_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    folder(&from);
    let store = BlockStore::open(&dir.path().join("s.redb")).unwrap();
    let all = store
        .import(Content::Path(&from), &ImportOptions::default(), None)
        .unwrap();
    let part = store
        .import(
            Content::Path(&from.join("a")),
            &ImportOptions::default(),
            None,
        )
        .unwrap();
    let car = archive(&store, &[all.cid]);
    assert_eq!(car, archive(&store, &[all.cid]));
    let (roots, blocks) = read_all(&car).unwrap();
    assert_eq!(roots, [all.cid]);
    let out = dir.path().join("out");
    export(&blocks, &all.cid, None, &out, &Limits::default()).unwrap();
    same(&from, &out);
    // A second root adds nothing that was written already.
    let two = archive(&store, &[all.cid, part.cid]);
    assert_eq!(read_all(&two).unwrap().1.len(), blocks.len());
    // Version 2 around it, with padding before and an index behind.
    let mut v2 = b"\x0a\xa1gversion\x02".to_vec();
    v2.extend_from_slice(&[0; 16]);
    v2.extend_from_slice(&60_u64.to_le_bytes());
    v2.extend_from_slice(&(car.len() as u64).to_le_bytes());
    v2.extend_from_slice(&(60 + car.len() as u64).to_le_bytes());
    v2.resize(60, 0);
    v2.extend_from_slice(&car);
    v2.extend_from_slice(b"index");
    let (roots, inner) = read_all(&v2).unwrap();
    assert_eq!((roots, inner.len()), (vec![all.cid], blocks.len()));
    v2[27] = 10;
    assert!(
        read_all(&v2).is_err(),
        "the inner archive begins in the header"
    );
}

#[test]
fn hostile_archives_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlockStore::open(&dir.path().join("s.redb")).unwrap();
    let mut content = b"content".as_slice();
    let added = store
        .import(
            Content::Stream(&mut content),
            &ImportOptions::default(),
            None,
        )
        .unwrap();
    let car = archive(&store, &[added.cid]);
    assert!(read_all(&car).is_ok());
    let header = 1 + usize::from(car[0]);
    for end in 0..car.len() {
        // Cut off anywhere but between blocks.
        assert_eq!(read_all(&car[..end]).is_ok(), end == header, "{end}");
    }
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut car = car.clone();
        change(&mut car);
        read_all(&car).unwrap_err().to_string()
    };
    assert!(with(&|car| *car.last_mut().unwrap() ^= 1).contains("refused"));
    assert!(with(&|car| car[header - 1] = 3).contains("version"));
    assert!(with(&|car| car[1] = 0xa3).contains("header"));
    assert!(with(&|car| car.push(0)).contains("no address"));
    // A length of two gibibytes, of which nothing follows, costs no memory.
    let claim = [0x80, 0x80, 0x80, 0x80, 0x08];
    assert!(with(&|car| car.extend_from_slice(&claim)).contains("longer"));
    assert!(read_all(&claim).unwrap_err().to_string().contains("longer"));
    // More roots than anybody has.
    let many = vec![added.cid; 1025];
    assert!(
        read_all(&archive(&store, &many))
            .unwrap_err()
            .to_string()
            .contains("roots")
    );
}
