//! The recipe `cargo-warm`: goes on from what was compiled for a checkout of another commit.
//!
//! Cargo takes a crate as compiled if path, time and settings are those of before. So the commit's tree is mounted at the
//! checkout's own path, files that equal the checkout's get the checkout's times, and a copy of its target folder is
//! mounted where that lies. Only what changed is compiled. The checkout and its target folder are read, never written.
//!
//! This is quick and proves little: what was compiled before is taken on trust. Records say that it is not hermetic and
//! was built once.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use instar_attest::Digest;
use instar_attest::release::{Recipe, Target};
use instar_sandbox::{Job, Mount, Profile, Root, Stream};

use crate::assemble::{Made, assemble};
use crate::build::{BuildOutcome, Built, Prepared, Progress, failed};
use crate::error::{At, BuildError};
use crate::files::set_modified;
use crate::hermetic::{limits, run, system_mounts};
use crate::lock::Lock;
use crate::project::Project;
use crate::record::{
    BuildRecord, RECIPE_CARGO_WARM, RecordFormat, ToolchainFacts, WarmFacts, system_facts,
};
use crate::sbom::sbom;
use crate::source::list_files;
use crate::toolchain::Toolchain;
use crate::vendor::{VendorFacts, read_lock};

/// How many files a target folder may have. Seven hundred crates leave 20,000.
const MAX_TARGET_FILES: usize = 2_000_000;

pub(crate) fn build(
    prepared: &Prepared,
    checkout: &Path,
    target: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<BuildOutcome, BuildError> {
    let request = &prepared.request;
    let tree = prepared.work_tree();
    let unusable = |why: &str| BuildError::Checkout {
        checkout: checkout.to_owned(),
        why: why.to_owned(),
    };
    let checkout = checkout
        .canonicalize()
        .map_err(|_| unusable("there is no such folder"))?;
    // A target folder that isn't there yet has no canonical path; its place is still needed.
    let target = &target
        .canonicalize()
        .or_else(|_| std::path::absolute(target))
        .at("can't find", target)?;
    let project = Project::read(&tree, request.name.as_ref())?;
    let lock = read_lock(&tree)?;
    let toolchain = Toolchain::find(&tree)?;
    let (files_unchanged, files_changed) = take_times(&tree, &checkout)?;

    let work = prepared.work.path();
    let warm = work.join("target");
    let fell_back = match copy_warm(target, &warm) {
        Ok(true) => None,
        Ok(false) => Some(format!("{} holds nothing compiled", target.display())),
        Err(why) => Some(format!("{} can't be copied: {why}", target.display())),
    };
    if let Some(why) = &fell_back {
        progress(Progress::FellBack(why));
        if warm.exists() {
            fs::remove_dir_all(&warm).at("can't remove", &warm)?;
        }
        fs::create_dir_all(&warm).at("can't make", &warm)?;
    }
    progress(Progress::Building(1));
    let log = request.out.join("build-1.log");
    let job = job(prepared, &project, &toolchain, &checkout, target)?;
    let mut compiled = 0u64;
    let ran = run(&job, false, &log, &mut |line| {
        compiled += u64::from(line.trim_start().starts_with("Compiling "));
        progress(Progress::Line(line));
    })?;
    if ran.made.is_none() {
        return Ok(BuildOutcome::Failed(failed(1, &ran)?));
    }
    progress(Progress::Assembling);
    let host = Target::new(toolchain.host.clone())?;
    let program = work.join("out").join("program");
    if !fs::symlink_metadata(&program).is_ok_and(|meta| meta.is_file()) {
        return Err(BuildError::NoProgram(project.bin));
    }
    let made = Made::from([(format!("{host}/{}", project.name), program)]);
    let (targets, sbom) = assemble(&project, &tree, &made, &sbom(&lock)?, &request.out)?;
    let record = BuildRecord {
        format: RecordFormat::V1,
        recipe: Recipe::new(RECIPE_CARGO_WARM)?,
        hermetic: false,
        equal_builds: 1,
        slot: prepared.slot(&project)?,
        number: request.number,
        name: project.name.clone(),
        kind: project.kind,
        source: prepared.commit.source.clone(),
        repository: prepared.commit.repository.clone(),
        reference: prepared.commit.reference.clone(),
        dirty: prepared.commit.dirty,
        source_time_s: prepared.commit.time_s,
        targets,
        sbom,
        cargo_lock: lock.digest,
        toolchain: ToolchainFacts {
            digest: toolchain.digest(&[&toolchain.host], &request.cache)?,
            version: toolchain.version.clone(),
        },
        vendor: locked_facts(&lock),
        system: system_facts()?,
        started_s: ran.started_s,
        finished_s: ran.finished_s,
        warm: Some(WarmFacts {
            compiled,
            files_unchanged,
            files_changed,
            fell_back,
        }),
    };
    record.write(&request.out)?;
    Ok(BuildOutcome::Once(Box::new(Built {
        record,
        out: request.out.clone(),
        wall_ms: vec![ran.wall_ms],
    })))
}

/// Crates that were compiled some time ago can't be looked at, so this digest is over what the lock file says of them,
/// under a name of its own.
fn locked_facts(lock: &Lock) -> VendorFacts {
    let line = |p: &crate::lock::Package| {
        let checksum = p.checksum.map(|c| c.to_hex()).unwrap_or_default();
        format!("{}  {checksum}\n", p.id())
    };
    let lines: String = lock.external().map(line).collect();
    VendorFacts {
        digest: Digest::tagged("instar/vendor-unchecked/v1", lines.as_bytes()),
        crates: lock.external().count() as u64,
        from_source: false,
    }
}

/// Gives every file of the tree that equals the checkout's the checkout's time, and every other one the time of now.
/// Returns how many are of each kind.
fn take_times(tree: &Path, checkout: &Path) -> Result<(u64, u64), BuildError> {
    let now = SystemTime::now();
    let (mut unchanged, mut changed) = (0, 0);
    let mut folders = std::collections::BTreeSet::new();
    for path in list_files(tree)? {
        folders.extend(path.ancestors().skip(1).map(Path::to_owned));
        let own = tree.join(&path);
        if fs::symlink_metadata(&own)
            .at("can't look at", &own)?
            .is_symlink()
        {
            continue;
        }
        let time = same_file(&own, &checkout.join(&path))?;
        unchanged += u64::from(time.is_some());
        changed += u64::from(time.is_none());
        set_modified(&own, time.unwrap_or(now))?;
    }
    for folder in folders {
        let there = fs::metadata(checkout.join(&folder)).and_then(|m| m.modified());
        set_modified(&tree.join(&folder), there.unwrap_or(now))?;
    }
    Ok((unchanged, changed))
}

/// The other file's time, if it is a plain file with the same content and the same executable bit.
fn same_file(own: &Path, other: &Path) -> Result<Option<SystemTime>, BuildError> {
    use std::os::unix::fs::PermissionsExt;
    let meta = fs::symlink_metadata(own).at("can't look at", own)?;
    let Ok(there) = fs::symlink_metadata(other) else {
        return Ok(None);
    };
    let executable = |m: &fs::Metadata| m.permissions().mode() & 0o100;
    if !there.is_file() || there.len() != meta.len() || executable(&there) != executable(&meta) {
        return Ok(None);
    }
    let Ok(file) = fs::File::open(other) else {
        return Ok(None);
    };
    let mut content = Vec::new();
    file.take(meta.len() + 1)
        .read_to_end(&mut content)
        .at("can't read", other)?;
    let same = content == fs::read(own).at("can't read", own)?;
    Ok(if same { there.modified().ok() } else { None })
}

/// Copies what cargo needs of a target folder to go on from it. False if there is nothing compiled.
///
/// Libraries and programs are replaced by the compiler, never written in place, so they are only linked. Everything
/// else (fingerprints, listings, what build scripts made) may be written in place and is copied.
fn copy_warm(target: &Path, warm: &Path) -> std::io::Result<bool> {
    if !target.join("release/.fingerprint").is_dir() {
        return Ok(false);
    }
    fs::create_dir_all(warm)?;
    let info = target.join(".rustc_info.json");
    if info.is_file() {
        fs::copy(&info, warm.join(".rustc_info.json"))?;
    }
    let mut count = 0;
    for part in ["release/.fingerprint", "release/build", "release/deps"] {
        copy_part(
            &target.join(part),
            &warm.join(part),
            part.ends_with("deps"),
            &mut count,
        )?;
    }
    Ok(true)
}

fn copy_part(from: &Path, to: &Path, deps: bool, count: &mut usize) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        *count += 1;
        if *count > MAX_TARGET_FILES {
            return Err(std::io::Error::other(format!(
                "it has more than {MAX_TARGET_FILES} files"
            )));
        }
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_part(&source, &copy, false, count)?;
            continue;
        }
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &copy)?;
            continue;
        }
        let extension = source.extension().and_then(|e| e.to_str());
        let name = entry.file_name();
        let script =
            name.to_string_lossy().starts_with("build_script_") || name == "build-script-build";
        let replaced = deps && matches!(extension, Some("rlib" | "rmeta" | "so"))
            || script && extension.is_none();
        // Finished programs are linked anew in any case, and are the largest files.
        if deps && extension.is_none() {
            continue;
        }
        if replaced && fs::hard_link(&source, &copy).is_ok() {
            continue;
        }
        let modified = entry.metadata()?.modified()?;
        fs::copy(&source, &copy)?;
        fs::File::open(&copy)?.set_modified(modified)?;
    }
    let modified = fs::metadata(from)?.modified()?;
    fs::File::open(to)?.set_modified(modified)
}

fn job(
    prepared: &Prepared,
    project: &Project,
    toolchain: &Toolchain,
    checkout: &Path,
    target: &Path,
) -> Result<Job, BuildError> {
    let work = prepared.work.path();
    let cargo_home = cargo_home(checkout)?;
    for own in ["cargo", "home", "out", "tmp"] {
        let at = work.join(own);
        fs::create_dir(&at).at("can't make", &at)?;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    // The target folder may lie inside the checkout; its place must be there, since the checkout is mounted read-only.
    if let Ok(inside) = target.strip_prefix(checkout) {
        let place = prepared.work_tree().join(inside);
        fs::create_dir_all(&place).at("can't make", &place)?;
    }
    let mut mounts = system_mounts();
    mounts.push(Mount::read_only(
        &toolchain.sysroot,
        text(&toolchain.sysroot),
    ));
    mounts.push(Mount::writable(work.join("cargo"), text(&cargo_home)));
    // Only what building needs: the home of cargo can hold credentials.
    for part in ["registry", "git", "config.toml", "config"] {
        let at = cargo_home.join(part);
        if at.exists() {
            let place = work.join("cargo").join(part);
            if at.is_dir() {
                fs::create_dir_all(&place).at("can't make", &place)?;
            } else {
                fs::write(&place, "").at("can't make", &place)?;
            }
            mounts.push(Mount::read_only(&at, text(&at)));
        }
    }
    mounts.push(Mount::read_only(prepared.work_tree(), text(checkout)));
    mounts.push(Mount::writable(work.join("target"), text(target)));
    for own in ["home", "out", "tmp"] {
        mounts.push(Mount::writable(work.join(own), format!("/build/{own}")));
    }
    let mut env: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| is_setting(name))
        .collect();
    env.extend(
        [
            ("CARGO_HOME", text(&cargo_home)),
            ("CARGO_TARGET_DIR", text(target)),
            ("CARGO_TERM_COLOR", "never".into()),
            ("HOME", "/build/home".into()),
            (
                "PATH",
                format!("{}/bin:/usr/bin:/bin", text(&toolchain.sysroot)),
            ),
            ("TMPDIR", "/build/tmp".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    // Settings of the profile would compile everything anew, so what is linked is stripped afterwards.
    let script = "exec 2>&1; umask 022; program=$1; shift; \"$@\" && \
        { strip -o /build/out/program \"$program\" || cp \"$program\" /build/out/program; }";
    let program = target.join("release").join(&project.bin);
    let mut argv: Vec<String> = ["/bin/sh", "-c", script, "sh", &text(&program)]
        .map(str::to_owned)
        .into();
    argv.extend(["cargo", "build", "--release", "--locked", "--offline"].map(str::to_owned));
    argv.extend(["-p", &project.package, "--bin", &project.bin].map(str::to_owned));
    argv.push(format!("-j{}", prepared.request.jobs));
    if !project.features.is_empty() {
        argv.extend(["--features".to_owned(), project.features.join(",")]);
    }
    Ok(Job {
        root: Root::Empty,
        mounts,
        argv,
        env,
        cwd: text(checkout),
        hostname: "instar".into(),
        limits: limits(),
        profile: Profile::Build,
        stdin: Stream::Null,
        stdout: Stream::Pipe,
        stderr: Stream::Null,
    })
}

/// Settings with which the checkout may have been compiled, so that cargo finds them unchanged. Nothing else of the
/// environment goes in: it can hold secrets.
fn is_setting(name: &str) -> bool {
    const EXACT: [&str; 9] = [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CC",
        "CXX",
        "AR",
        "CFLAGS",
        "CXXFLAGS",
        "LDFLAGS",
    ];
    const PREFIXES: [&str; 3] = [
        "CARGO_PROFILE_RELEASE_",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_TARGET_X86_64_",
    ];
    EXACT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn cargo_home(checkout: &Path) -> Result<PathBuf, BuildError> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    home.filter(|at| at.is_absolute())
        .ok_or_else(|| BuildError::Checkout {
            checkout: checkout.to_owned(),
            why: "neither CARGO_HOME nor HOME says where cargo keeps its crates".into(),
        })
}
