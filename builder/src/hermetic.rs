//! One build in the sandbox: what it sees, and what it may do.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use instar_attest::release::Target;
use instar_sandbox::{Job, Limits, Mount, Profile, Root, Status, Stream};

use crate::conditions::Conditions;
use crate::error::{At, BuildError};
use crate::files::{copy_tree, write_atomic};
use crate::project::triple_and_cpu;
use crate::toolchain::Toolchain;

/// Memory of all processes of a build together, and address space of each. Linking a large program takes 4 GiB.
pub const MAX_BUILD_MEMORY_BYTES: u64 = 16 << 30;
/// Compilers map far more than they touch.
pub const MAX_BUILD_ADDRESS_BYTES: u64 = 256 << 30;
/// Processes and threads of a build; each compiler has a dozen.
pub const MAX_BUILD_PIDS: u32 = 4096;
/// How long one build may take. A thousand crates take half an hour on two slow processors.
pub const MAX_BUILD_MS: u64 = 3 * 60 * 60 * 1000;
/// The largest file that a build may write.
pub const MAX_BUILD_FILE_BYTES: u64 = 8 << 30;
/// Open files of one process of a build: a linker opens every library.
pub const MAX_BUILD_OPEN_FILES: u64 = 4096;
/// How much of a build's output is kept. What comes after it is read and dropped.
pub const MAX_LOG_BYTES: u64 = 64 << 20;
/// How much of a line is handed on in one piece.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// What is built, the same for both builds.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub source: &'a Path,
    /// Crates that are not part of the source.
    pub vendor: Option<&'a Path>,
    pub toolchain: &'a Toolchain,
    pub epoch_s: u64,
    pub package: &'a str,
    pub bin: &'a str,
    pub features: &'a [String],
    pub targets: &'a [Target],
    /// Whether debug information is made, to be taken out into a file of its own.
    pub debug_info: bool,
    /// The library that moves the clock, for conditions that ask for it.
    pub clock: Option<&'a Path>,
}

/// How one build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// The folder with what was built, if it ended well.
    pub made: Option<PathBuf>,
    /// How it ended, for people.
    pub ended: String,
    pub log: PathBuf,
    pub started_s: u64,
    pub finished_s: u64,
    pub wall_ms: u64,
}

/// Builds under these conditions, in a folder of its own below `work`; the whole output goes to `log`.
pub(crate) fn build(
    inputs: &Inputs<'_>,
    conditions: &Conditions,
    work: &Path,
    log: &Path,
    line: &mut dyn FnMut(&str),
) -> Result<Ran, BuildError> {
    let outside = work.join(conditions.outside);
    fs::create_dir_all(&outside).at("can't make", &outside)?;
    copy_tree(inputs.source, &outside.join("src"), conditions.order)?;
    for own in ["cargo", "home", "target", "tmp"] {
        let at = outside.join(own);
        fs::create_dir(&at).at("can't make", &at)?;
    }
    if inputs.vendor.is_some() {
        let config = "[source.crates-io]\nreplace-with = \"instar\"\n[source.instar]\ndirectory = \"/build/vendor\"\n";
        write_atomic(&outside.join("cargo/config.toml"), config.as_bytes())?;
    }
    let job = Job {
        root: Root::Empty,
        mounts: mounts(inputs, conditions, &outside),
        argv: argv(inputs, conditions),
        env: environment(inputs, conditions),
        cwd: "/build/src".into(),
        hostname: conditions.hostname.into(),
        limits: limits(),
        profile: Profile::Build,
        stdin: Stream::Null,
        stdout: Stream::Pipe,
        stderr: Stream::Null,
    };
    let mut ran = run(&job, conditions.one_processor, log, line)?;
    ran.made = ran.made.map(|_| outside.join("target"));
    Ok(ran)
}

pub(crate) fn limits() -> Limits {
    Limits {
        memory_bytes: MAX_BUILD_MEMORY_BYTES,
        address_space_bytes: Some(MAX_BUILD_ADDRESS_BYTES),
        pids: MAX_BUILD_PIDS,
        cpu_s: None,
        cpu_percent: None,
        wall_ms: MAX_BUILD_MS,
        file_bytes: MAX_BUILD_FILE_BYTES,
        open_files: MAX_BUILD_OPEN_FILES,
    }
}

/// The compilers and libraries of the system, read-only, as they lie.
pub(crate) fn system_mounts() -> Vec<Mount> {
    let mut mounts = vec![Mount::read_only("/usr", "/usr")];
    for folder in ["/bin", "/lib", "/lib32", "/lib64", "/sbin"] {
        let at = Path::new(folder);
        match fs::read_link(at) {
            Ok(to) => mounts.push(Mount::symlink(folder, to.to_string_lossy())),
            Err(_) if at.is_dir() => mounts.push(Mount::read_only(folder, folder)),
            Err(_) => {}
        }
    }
    // Where the distribution says which compiler `cc` is, and where the loader finds libraries.
    for file in ["/etc/alternatives", "/etc/ld.so.cache"] {
        if Path::new(file).exists() {
            mounts.push(Mount::read_only(file, file));
        }
    }
    mounts.push(Mount::tmpfs("/tmp", 256 << 20));
    mounts
}

fn mounts(inputs: &Inputs<'_>, conditions: &Conditions, outside: &Path) -> Vec<Mount> {
    let mut mounts = system_mounts();
    mounts.push(Mount::read_only(
        &inputs.toolchain.sysroot,
        "/build/toolchain",
    ));
    mounts.push(Mount::read_only(outside.join("src"), "/build/src"));
    if let Some(vendor) = inputs.vendor {
        mounts.push(Mount::read_only(vendor, "/build/vendor"));
    }
    for own in ["cargo", "home", "target", "tmp"] {
        mounts.push(Mount::writable(outside.join(own), format!("/build/{own}")));
    }
    if let (Some(clock), true) = (inputs.clock, conditions.ahead_s != 0) {
        mounts.push(Mount::read_only(clock, "/build/clock.so"));
    }
    mounts
}

/// One call of cargo: what is compiled for one processor, for all triples at once.
struct Call {
    cpu: Option<String>,
    triples: Vec<String>,
}

fn calls(targets: &[Target]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for target in targets {
        let (triple, cpu) = triple_and_cpu(target);
        match calls.iter_mut().find(|c| c.cpu == cpu) {
            Some(call) => call.triples.push(triple),
            None => calls.push(Call {
                cpu,
                triples: vec![triple],
            }),
        }
    }
    calls
}

/// Where a target's program is made, below the target folder.
pub(crate) fn made_at(target: &Target, bin: &str) -> String {
    match triple_and_cpu(target) {
        (triple, None) => format!("{triple}/release/{bin}"),
        (triple, Some(cpu)) => format!("cpu/{cpu}/{triple}/release/{bin}"),
    }
}

fn argv(inputs: &Inputs<'_>, conditions: &Conditions) -> Vec<String> {
    // Only a shell can set the umask; it also joins both streams, so that the log keeps their order. Targets consist of
    // letters, digits, `_`, `-` and `.`, so they stand in the script as they are; all else comes as arguments.
    let mut script = format!("umask {}; exec 2>&1", conditions.umask);
    for call in calls(inputs.targets) {
        script.push_str("; ");
        if let Some(cpu) = &call.cpu {
            script.push_str(&format!(
                "CARGO_TARGET_DIR=/build/target/cpu/{cpu} \
                 CARGO_ENCODED_RUSTFLAGS=\"$CARGO_ENCODED_RUSTFLAGS\u{1f}-Ctarget-cpu={cpu}\" "
            ));
        }
        script.push_str("\"$@\"");
        for triple in &call.triples {
            script.push_str(&format!(" --target {triple}"));
        }
        script.push_str(" || exit");
    }
    if inputs.debug_info {
        for target in inputs.targets {
            let made = format!("/build/target/{}", made_at(target, inputs.bin));
            script.push_str(&format!(
                "; objcopy --only-keep-debug {made} {made}.debug && objcopy --strip-all {made} || exit"
            ));
        }
    }
    let mut argv: Vec<String> = [
        "/bin/sh",
        "-c",
        &script,
        "sh",
        "/build/toolchain/bin/cargo",
        "build",
        "--release",
        "--locked",
        "--offline",
        "-p",
        inputs.package,
        "--bin",
        inputs.bin,
    ]
    .map(str::to_owned)
    .into();
    argv.push(format!("-j{}", conditions.jobs));
    if !inputs.features.is_empty() {
        argv.extend(["--features".to_owned(), inputs.features.join(",")]);
    }
    argv
}

fn environment(inputs: &Inputs<'_>, conditions: &Conditions) -> Vec<(String, String)> {
    // Paths are fixed anyway; mapped to names that say what they are, they also equal those of a build elsewhere.
    let rust_flags = [
        "--remap-path-prefix=/build/src=/src",
        "--remap-path-prefix=/build/vendor=/vendor",
        "--remap-path-prefix=/build/cargo=/cargo",
        "--remap-path-prefix=/build/target=/target",
        "--remap-path-prefix=/build/toolchain=/toolchain",
        "-Ctarget-feature=+crt-static",
    ];
    let c_flags = "-ffile-prefix-map=/build=";
    let mut env: Vec<(String, String)> = [
        ("CARGO_ENCODED_RUSTFLAGS", rust_flags.join("\u{1f}")),
        ("CARGO_HOME", "/build/cargo".into()),
        ("CARGO_INCREMENTAL", "0".into()),
        (
            "CARGO_PROFILE_RELEASE_STRIP",
            if inputs.debug_info { "none" } else { "symbols" }.into(),
        ),
        ("CARGO_TARGET_DIR", "/build/target".into()),
        ("CARGO_TERM_COLOR", "never".into()),
        ("CFLAGS", c_flags.into()),
        ("CXXFLAGS", c_flags.into()),
        ("HOME", "/build/home".into()),
        ("LANG", conditions.locale.into()),
        ("LC_ALL", conditions.locale.into()),
        ("LOGNAME", conditions.user.into()),
        ("PATH", "/build/toolchain/bin:/usr/bin:/bin".into()),
        ("RUSTC", "/build/toolchain/bin/rustc".into()),
        ("SOURCE_DATE_EPOCH", inputs.epoch_s.to_string()),
        ("TMPDIR", "/build/tmp".into()),
        ("TZ", conditions.zone.into()),
        ("USER", conditions.user.into()),
        ("ZERO_AR_DATE", "1".into()),
    ]
    .map(|(name, value): (&str, String)| (name.to_owned(), value))
    .into();
    if inputs.clock.is_some() && conditions.ahead_s != 0 {
        env.push(("LD_PRELOAD".into(), "/build/clock.so".into()));
        env.push(("INSTAR_AHEAD_S".into(), conditions.ahead_s.to_string()));
    }
    if inputs.debug_info {
        env.push((
            "CARGO_PROFILE_RELEASE_DEBUG".into(),
            "line-tables-only".into(),
        ));
    }
    if conditions.reversed_env {
        env.reverse();
    }
    env
}

/// Keeps what a build prints in `kept`, which is the file `log`, bounded, until it prints no more; each line is also given
/// to `line`.
pub(crate) fn keep_log(
    output: impl Read,
    mut kept: fs::File,
    log: &Path,
    line: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let mut reader = BufReader::new(output);
    let (mut text, mut written) = (Vec::new(), 0u64);
    loop {
        text.clear();
        // A line without an end is handed on in pieces.
        let got = (&mut reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut text)
            .at("can't read the output for", log)?;
        if got == 0 {
            return Ok(());
        }
        if written < MAX_LOG_BYTES {
            kept.write_all(&text).at("can't write", log)?;
            written += got as u64;
        }
        line(String::from_utf8_lossy(&text).trim_end());
    }
}

/// Runs the job and keeps its output, bounded; each line is also given to `line`.
pub(crate) fn run(
    job: &Job,
    one_processor: bool,
    log: &Path,
    line: &mut dyn FnMut(&str),
) -> Result<Ran, BuildError> {
    let kept = fs::File::create(log).at("can't make", log)?;
    let started = Instant::now();
    let started_s = now_s();
    let mut running = if one_processor {
        on_one_processor(job)?
    } else {
        instar_sandbox::spawn(job)?
    };
    let stdout = running.stdout.take().expect("the job asks for a pipe");
    keep_log(stdout, kept, log, line)?;
    let exit = running.wait()?;
    let ended = match exit.status {
        Status::Exited(code) => format!("ended with code {code}"),
        Status::Signaled(signal) => format!("was ended by signal {signal}"),
        Status::WallClock => format!("took longer than {} s", job.limits.wall_ms / 1000),
        Status::CpuTime => "used up its processor time".into(),
        Status::OutOfMemory => format!(
            "needed more memory than {} MiB",
            job.limits.memory_bytes >> 20
        ),
        Status::Killed => "was ended from outside".into(),
    };
    Ok(Ran {
        made: exit.success().then(PathBuf::new),
        ended,
        log: log.to_owned(),
        started_s,
        finished_s: now_s(),
        wall_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Starts the job while this thread may run on one processor only; what it starts inherits that.
fn on_one_processor(job: &Job) -> Result<instar_sandbox::Running, BuildError> {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let this = nix::unistd::Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this) else {
        return Ok(instar_sandbox::spawn(job)?);
    };
    // Not always the first: several builders on one machine would all wait for the same one.
    let processors: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    let chosen = processors.get(std::process::id() as usize % processors.len().max(1));
    let mut one = CpuSet::new();
    if chosen.is_some_and(|cpu| one.set(*cpu).is_ok()) {
        // Where it is refused the build still differs in everything else.
        let _ = sched_setaffinity(this, &one);
    }
    let started = instar_sandbox::spawn(job);
    let _ = sched_setaffinity(this, &allowed);
    Ok(started?)
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
