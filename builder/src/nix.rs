//! The recipe `nix`: a flake attribute or a `.nix` file becomes the same release folder.
//!
//! Nix does what the cargo recipe does by hand: it pins every input by its hash and builds in a sandbox of its own. The
//! second build is `nix-store --realise --check`. Evaluation is pure or restricted to the source, and may build nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use instar_attest::Digest;
use instar_attest::release::{Recipe, Target};

use crate::assemble::{Made, assemble};
use crate::build::{BuildOutcome, Built, DifferentBuild, Prepared, Progress, failed};
use crate::compare::compare;
use crate::error::{At, BuildError};
use crate::explain::Clues;
use crate::hermetic::{Ran, keep_log, now_s};
use crate::lock::{LOCK_FILE, Lock, MAX_LOCK_BYTES};
use crate::project::{MAX_PROJECT_BYTES, Project, read_file};
use crate::record::{BuildRecord, RECIPE_NIX, RecordFormat, SystemFacts, ToolchainFacts};
use crate::sbom::sbom;
use crate::vendor::VendorFacts;

/// What must hold whatever the machine's own configuration says; its substituters and paths stay as they are.
const SETTINGS: &str = "experimental-features = nix-command flakes\nsandbox = true\nsandbox-fallback = false\n\
                        allow-import-from-derivation = false\naccept-flake-config = false\n";
/// The most that is read of what a query prints.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// What stands for the lock file of a source that has none.
const NO_LOCK: &[u8] = b"version = 4\n";

pub(crate) fn build(
    prepared: &Prepared,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<BuildOutcome, BuildError> {
    let request = &prepared.request;
    let tree = prepared.work_tree();
    let project = Project::read(&tree, request.name.as_ref())?;
    let lock = read_file(&tree, LOCK_FILE, MAX_LOCK_BYTES)?;
    let lock = Lock::parse(lock.as_deref().unwrap_or(NO_LOCK))?;
    let [target] = project.targets.as_slice() else {
        let why = "the recipe nix builds one target; name it alone in `targets`";
        return Err(crate::error::project(crate::project::PROJECT_FILE, why));
    };
    let derivation = instantiate(&tree, &project, target)?;
    let closure = ask("nix-store", &["--query", "--requisites", &derivation])?;
    let output = ask("nix-store", &["--query", "--outputs", &derivation])?;
    let output = PathBuf::from(output.lines().next().unwrap_or_default());

    let mut ran = Vec::with_capacity(2);
    for (number, check) in [(1u32, false), (2, true)] {
        progress(Progress::Building(number));
        let log = request.out.join(format!("build-{number}.log"));
        let mut args = vec!["--realise", &derivation];
        if check {
            // Kept, so that a difference can be shown: it lies beside the output as `<output>.check`.
            args.extend(["--check", "--keep-failed"]);
        }
        let one = run(&args, &log, &mut |line| progress(Progress::Line(line)))?;
        if one.made.is_none() {
            let other = PathBuf::from(format!("{}.check", output.display()));
            if check && other.exists() {
                let both = [
                    made_in(&output, &project, target)?,
                    made_in(&other, &project, target)?,
                ];
                ran.push(one);
                return different(request.out.as_path(), &both, &ran);
            }
            return Ok(BuildOutcome::Failed(failed(number, &one)?));
        }
        ran.push(one);
    }
    progress(Progress::Assembling);
    let made = made_in(&output, &project, target)?;
    let (targets, sbom) = assemble(&project, &tree, &made, &sbom(&lock)?, &request.out)?;
    let flake_lock = read_file(&tree, "flake.lock", MAX_PROJECT_BYTES)?;
    let record = BuildRecord {
        format: RecordFormat::V1,
        recipe: Recipe::new(RECIPE_NIX)?,
        hermetic: true,
        equal_builds: 2,
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
            digest: closure_digest(&closure),
            version: ask("nix", &["--version"])?.trim().to_owned(),
        },
        vendor: VendorFacts {
            digest: Digest::tagged("instar/flake-lock/v1", &flake_lock.unwrap_or_default()),
            crates: lock.external().count() as u64,
            from_source: true,
        },
        system: SystemFacts {
            cc: None,
            files: Vec::new(),
        },
        started_s: ran[0].started_s,
        finished_s: ran[1].finished_s,
        warm: None,
    };
    record.write(&request.out)?;
    Ok(BuildOutcome::Equal(Box::new(Built {
        record,
        out: request.out.clone(),
        wall_ms: ran.iter().map(|r| r.wall_ms).collect(),
    })))
}

/// Evaluates the source to one derivation; nothing is built by that.
fn instantiate(tree: &Path, project: &Project, target: &Target) -> Result<String, BuildError> {
    let root = tree.display().to_string();
    let said = if let Some(file) = &project.nix_file {
        let at = format!("{root}/{file}");
        let mut args = vec!["--option", "restrict-eval", "true", "-I", &root, &at];
        if let Some(attribute) = &project.nix_attribute {
            args.extend(["-A", attribute]);
        }
        ask("nix-instantiate", &args)?
    } else {
        let system = match target.as_str().split('-').next() {
            Some(processor) => format!("{processor}-linux"),
            None => return Err(command("nix", "the target names no processor")),
        };
        let attribute = project.nix_attribute.clone();
        let attribute = attribute.unwrap_or_else(|| format!("packages.{system}.default"));
        let installable = format!("path:{root}#{attribute}.drvPath");
        ask(
            "nix",
            &["eval", "--raw", "--no-write-lock-file", &installable],
        )?
    };
    let path = said.trim();
    // `drv!out` names an output of it; the store's path comes first.
    let path = path.split('!').next().unwrap_or_default();
    if !path.starts_with("/nix/store/") || !path.ends_with(".drv") {
        return Err(command("nix", &format!("{path:.200?} is no derivation")));
    }
    Ok(path.to_owned())
}

/// Over the names of everything that goes into the build: a name in Nix's store is itself a digest.
fn closure_digest(closure: &str) -> Digest {
    let mut lines: Vec<&str> = closure.lines().collect();
    lines.sort_unstable();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Digest::tagged("instar/nix-closure/v1", text.as_bytes())
}

fn made_in(output: &Path, project: &Project, target: &Target) -> Result<Made, BuildError> {
    let program = output.join("bin").join(&project.bin);
    // A link would lead to another path of the store, which is not released with it.
    if !fs::symlink_metadata(&program).is_ok_and(|meta| meta.is_file()) {
        return Err(BuildError::NoProgram(format!(
            "plain file {}",
            program.display()
        )));
    }
    let path = crate::assemble::program_path(project);
    Ok(Made::from([(format!("{target}/{path}"), program)]))
}

fn different(out: &Path, both: &[Made; 2], ran: &[Ran]) -> Result<BuildOutcome, BuildError> {
    let time = |r: &Ran| (r.started_s, r.finished_s);
    let clues = Clues {
        times: [time(&ran[0]), time(&ran[1])],
        texts: Vec::new(),
    };
    let files = compare(&both[0], &both[1], &clues)?;
    let mut kept = Vec::new();
    for (number, made) in (1..).zip(both) {
        let folder = out.join(format!("different-{number}"));
        copy(made, &folder)?;
        kept.push(folder);
    }
    let [first, second] = kept.try_into().expect("two folders were copied");
    Ok(BuildOutcome::Different(DifferentBuild {
        files,
        diffoscope: None,
        kept: [first, second],
        logs: [ran[0].log.clone(), ran[1].log.clone()],
    }))
}

fn copy(made: &BTreeMap<String, PathBuf>, folder: &Path) -> Result<(), BuildError> {
    for (path, built) in made {
        let at = folder.join(path);
        let parent = at.parent().expect("release paths are joined to a folder");
        fs::create_dir_all(parent).at("can't make", parent)?;
        fs::copy(built, &at).at("can't copy to", &at)?;
    }
    Ok(())
}

fn nix(program: &str) -> Command {
    let mut command = Command::new(program);
    let own = std::env::var("NIX_CONFIG").unwrap_or_default();
    command
        .env("NIX_CONFIG", format!("{own}\n{SETTINGS}"))
        .env_remove("NIX_PATH")
        .stdin(Stdio::null());
    command
}

/// What a command of Nix prints, bounded.
fn ask(program: &str, args: &[&str]) -> Result<String, BuildError> {
    let done = nix(program)
        .args(args)
        .output()
        .map_err(|e| command(program, &format!("{e}; install nix (Debian: nix-bin)")))?;
    if !done.status.success() || done.stdout.len() as u64 > MAX_ANSWER_BYTES {
        return Err(command(
            program,
            String::from_utf8_lossy(&done.stderr).trim(),
        ));
    }
    String::from_utf8(done.stdout).map_err(|_| command(program, "its answer is not UTF-8"))
}

/// Runs a build; its words go to the log.
fn run(args: &[&str], log: &Path, line: &mut dyn FnMut(&str)) -> Result<Ran, BuildError> {
    let kept = fs::File::create(log).at("can't make", log)?;
    let (started, started_s) = (Instant::now(), now_s());
    let mut child = nix("nix-store")
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| command("nix-store", &e.to_string()))?;
    let stderr = child.stderr.take().expect("a pipe was asked for");
    keep_log(stderr, kept, log, line)?;
    let status = child.wait().at("can't wait for the build of", log)?;
    Ok(Ran {
        made: status.success().then(PathBuf::new),
        ended: status.to_string(),
        log: log.to_owned(),
        started_s,
        finished_s: now_s(),
        wall_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn command(program: &str, why: &str) -> BuildError {
    BuildError::Nix {
        program: program.to_owned(),
        why: why.chars().take(4000).collect(),
    }
}
