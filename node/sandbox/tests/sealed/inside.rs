//! What a command sees and may do.

use instar_sandbox::{Job, Root};

use super::*;

pub fn the_probe_says_that_everything_mandatory_holds() {
    let report = probe();
    assert!(report.usable(), "{report:?}");
    let situation = std::env::var(SITUATION).unwrap_or_default();
    let root = nix::unistd::geteuid().is_root() && situation.is_empty();
    assert_eq!(
        report.mode == instar_sandbox::Mode::Root,
        root,
        "{report:?}"
    );
    if situation.starts_with("user") {
        // Whoever runs these tests as root has not handed cgroups to a user that doesn't exist.
        assert!(
            !report.cgroup_memory
                && report
                    .missing
                    .iter()
                    .all(|missing| !missing.allow.is_empty()),
            "{report:?}"
        );
    }
}

pub fn a_refusal_says_how_to_allow_it() {
    let report = probe();
    assert!(!report.usable());
    let missing = report
        .missing
        .iter()
        .find(|missing| missing.mandatory)
        .unwrap();
    assert!(missing.what.contains("user namespaces"), "{missing:?}");
    assert!(
        missing.allow.contains("user.max_user_namespaces"),
        "{missing:?}"
    );
    let error = spawn(&shell("true")).unwrap_err().to_string();
    assert!(error.contains("user.max_user_namespaces"), "{error}");
    assert!(
        report.to_string().contains("user.max_user_namespaces"),
        "{report}"
    );
}

pub fn a_command_talks_over_its_streams() {
    let mut job = shell("read line; echo \"got $line\"; echo bad >&2; exit 3");
    job.stdin = Stream::Pipe;
    let mut running = spawn(&job).unwrap();
    assert_eq!(
        running.wait_timeout(Duration::from_millis(20)).unwrap(),
        None
    );
    running
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"hello\n")
        .unwrap();
    let (exit, out, err) = finish(running);
    assert_eq!(
        (exit.status, out.as_str(), err.as_str()),
        (Status::Exited(3), "got hello\n", "bad\n")
    );
}

fn assert_no_rights(job: &Job) {
    let (exit, status, err) = run(job);
    assert!(exit.success(), "{exit:?} {err}");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is missing in {status}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000")),
            "{set} in {status}"
        );
    }
    assert!(status.contains("Uid:\t0\t0\t0\t0"), "{status}");
}

pub fn the_status_shows_no_rights() {
    assert_no_rights(&shell("cat /proc/self/status"));
}

pub fn a_build_shows_no_rights_either() {
    let mut job = shell("cat /proc/self/status");
    job.profile = Profile::Build;
    assert_no_rights(&job);
}

pub fn every_namespace_is_its_own() {
    let list = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done";
    let inside = output_of(list);
    let outside = Command::new("sh").args(["-c", list]).output().unwrap();
    let outside = String::from_utf8(outside.stdout).unwrap();
    assert_eq!((inside.lines().count(), outside.lines().count()), (7, 7));
    for (inside, outside) in inside.lines().zip(outside.lines()) {
        assert_ne!(inside, outside);
    }
    assert_eq!(output_of("uname -n"), "sealed\n");
    // The command is the first process, so nothing of the host can be seen.
    assert_eq!(
        output_of("echo $$; ls -d /proc/[0-9]* | wc -l")
            .lines()
            .next(),
        Some("1")
    );
}

pub fn there_is_no_network() {
    let devices = output_of("tail -n +3 /proc/self/net/dev");
    assert!(
        devices.lines().all(|line| line.trim().starts_with("lo:")),
        "{devices}"
    );
    // Not even to itself: lo is down, and the profiles refuse internet sockets anyway.
    for profile in [Profile::Dapp, Profile::Build] {
        let mut job = shell("exec 3<>/dev/tcp/127.0.0.1/9");
        job.argv[0] = "/bin/bash".to_owned();
        job.profile = profile;
        let (exit, _, err) = run(&job);
        assert!(!exit.success());
        assert!(
            err.contains("not permitted") || err.contains("not implemented"),
            "{err}"
        );
    }
}

pub fn the_root_is_read_only() {
    for path in [
        "/file",
        "/usr/file",
        "/proc/sys/kernel/hostname",
        "/dev/../file",
    ] {
        let mut job = shell(&format!("echo x > {path}"));
        if path.starts_with("/proc/sys") {
            // Dapps have none.
            job.profile = Profile::Build;
        }
        let (exit, _, err) = run(&job);
        assert!(!exit.success(), "{path} could be written");
        assert!(
            err.contains("Read-only file system") || err.contains("denied"),
            "{err}"
        );
    }
    let (exit, _, err) = run(&shell("mount -o remount,rw /"));
    assert!(!exit.success(), "{err}");
    assert_eq!(output_of("echo x > /tmp/file; cat /tmp/file"), "x\n");
    // The small memory is small.
    let (exit, _, _) = run(&shell(
        "head -c 900000 /dev/zero > /tmp/a && head -c 900000 /dev/zero > /tmp/b",
    ));
    assert!(!exit.success());
}

pub fn only_the_output_folder_is_writable() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    std::fs::create_dir(&source).unwrap();
    std::fs::create_dir(&out).unwrap();
    std::fs::write(source.join("text"), "source").unwrap();
    let mut job = shell("cat /work/source/text > /work/out/copy; echo x > /work/source/text");
    job.profile = Profile::Build;
    job.mounts.push(Mount::read_only(&source, "/work/source"));
    job.mounts.push(Mount::writable(&out, "/work/out"));
    let (exit, _, err) = run(&job);
    assert!(
        !exit.success() && err.contains("Read-only file system"),
        "{err}"
    );
    assert_eq!(std::fs::read_to_string(out.join("copy")).unwrap(), "source");
    assert_eq!(
        std::fs::read_to_string(source.join("text")).unwrap(),
        "source"
    );
    // What a build made belongs to who asked for it, so that it can be moved and removed.
    std::fs::remove_file(out.join("copy")).unwrap();
}

pub fn the_image_is_the_root() {
    let image = tempfile::tempdir().unwrap();
    std::fs::create_dir(image.path().join("bin")).unwrap();
    std::fs::write(image.path().join("note"), "from the image").unwrap();
    std::os::unix::fs::symlink("note", image.path().join("link")).unwrap();
    let mut job = shell("cat /link; ls /");
    job.root = Root::Folder(image.path().to_path_buf());
    job.mounts.retain(|mount| mount.target != "/bin");
    job.mounts.push(Mount::read_only("/bin/sh", "/bin/sh"));
    // The image has a folder `bin` of its own, so the shell's mount point would have to be made in it.
    assert!(spawn(&job).is_err());
    std::fs::write(image.path().join("bin/sh"), "").unwrap();
    let (exit, out, err) = run(&job);
    assert!(exit.success(), "{err}");
    assert!(
        out.starts_with("from the image") && out.contains("note"),
        "{out}"
    );
    assert_eq!(
        std::fs::read_dir(image.path()).unwrap().count(),
        3,
        "the image was changed"
    );
}

pub fn a_link_on_the_way_to_a_mount_is_refused() {
    let image = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", image.path().join("way")).unwrap();
    let mut job = shell("true");
    job.root = Root::Folder(image.path().to_path_buf());
    job.mounts.push(Mount::tmpfs("/way/out", MIB));
    let error = spawn(&job).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
}

pub fn no_namespaces_are_made_inside() {
    for profile in [Profile::Dapp, Profile::Build] {
        for flag in ["-r", "-n", "-m", "-p"] {
            let mut job = shell(&format!("unshare {flag} true"));
            job.profile = profile;
            let (exit, _, err) = run(&job);
            assert!(!exit.success(), "{profile:?} {flag} {err}");
        }
    }
}

pub fn a_missing_program_is_told() {
    let mut job = shell("true");
    job.argv[0] = "/bin/there-is-no-such-program".to_owned();
    let (exit, _, err) = run(&job);
    assert_eq!(exit.status, Status::Exited(127));
    assert!(err.contains("there-is-no-such-program"), "{err}");
}

pub fn a_job_that_can_t_be_sandboxed_is_refused() {
    let with = |change: fn(&mut Job)| {
        let mut job = shell("true");
        change(&mut job);
        spawn(&job).unwrap_err().to_string()
    };
    assert!(with(|job| job.argv.clear()).contains("no command"));
    assert!(with(|job| job.argv[0] = "sh".to_owned()).contains("absolute"));
    assert!(with(|job| job.mounts.push(Mount::tmpfs("/proc/x", 1))).contains("sandbox's own"));
    assert!(with(|job| job.mounts.push(Mount::tmpfs("/a/../b", 1))).contains("no place"));
    assert!(with(|job| job.limits.wall_ms = 0).contains("zero"));
    assert!(
        with(|job| job.mounts.push(Mount::read_only("/there/is/none", "/none")))
            .contains("/there/is/none")
    );
}

pub fn a_dapp_sees_nothing_of_the_machine() {
    let seen = output_of("ls /proc | grep -v '^[0-9]'");
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["self", "thread-self"]
    );
}
