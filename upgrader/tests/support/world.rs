//! Homes, releases and supervisors for the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use instar_attest::Digest;
use instar_chunks::{Profile, add_file};
use instar_upgrader::{Layout, Release, Status, Swap, history, status};

/// How long anything may take on a busy machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` finds something.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn kill(pid: u32, signal: &str) {
    let done = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(pid.to_string())
        .status()
        .unwrap();
    assert!(done.success());
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}

pub struct World {
    _folder: Option<tempfile::TempDir>,
    home: PathBuf,
    first: PathBuf,
}

impl World {
    pub fn new(mode: &str) -> Self {
        Self::in_folder(mode, "")
    }

    pub fn in_folder(mode: &str, below: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self::at(mode, &folder.path().join(below));
        world._folder = Some(folder);
        world
    }

    /// A world in a folder that somebody else cleans up.
    pub fn at(mode: &str, folder: &Path) -> Self {
        let home = folder.join("home");
        fs::create_dir_all(&home).unwrap();
        let world = Self {
            _folder: None,
            home,
            first: folder.join("node"),
        };
        fs::write(&world.first, world.script(mode, "first")).unwrap();
        fs::set_permissions(&world.first, fs::Permissions::from_mode(0o755)).unwrap();
        world
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    fn script(&self, mode: &str, name: &str) -> String {
        let exe = std::env::current_exe().unwrap();
        format!(
            "#!/bin/sh\n# {name}\nexec '{}' --child {mode} '{}'\n",
            exe.display(),
            self.home.display()
        )
    }

    /// Stages a release of this mode and makes the request for it.
    pub fn stage(&self, generation: u64, mode: &str) -> Swap {
        let script = self.script(mode, "release");
        let summary = add_file(Profile::InstarCdcV1, &mut script.as_bytes(), &mut |_, _| {
            Ok(())
        })
        .unwrap();
        let target = Release {
            file: summary.cid.to_string(),
            protocol: 1,
            release: format!("bafy{mode}").replace('-', ""),
            sha256: Digest::from_bytes(summary.sha256),
        };
        Layout::new(&self.home)
            .stage(&target.release, "node", &mut script.as_bytes())
            .unwrap();
        Swap { generation, target }
    }

    pub fn supervise_unchecked(&self) -> Supervisor {
        let child = Command::new(env!("CARGO_BIN_EXE_instar-upgrader"))
            .args(["run", "--home"])
            .arg(&self.home)
            .arg("--first")
            .arg(&self.first)
            .args([
                "--grace-ms",
                "300",
                "--probation-ms",
                "3000",
                "--max-starts",
                "2",
                "--silence-ms",
                "500",
            ])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Supervisor {
            child,
            home: self.home.clone(),
        }
    }

    /// Starts a supervisor and waits until its program has noted its start: from then on it takes signals in its own way.
    pub fn supervise(&self) -> Supervisor {
        let supervisor = self.supervise_unchecked();
        wait_until("the program's note", || {
            let its = format!(" {}", supervisor.pid_now()?);
            self.runs()
                .iter()
                .any(|run| run.ends_with(&its))
                .then_some(())
        });
        supervisor
    }

    pub fn steady(&self) -> Option<Status> {
        status(&self.home)
            .ok()
            .filter(|s| s.phase == "steady" && s.pid.is_some())
    }

    /// The status once the swap of a generation is over.
    pub fn ended(&self, generation: u64) -> Option<Status> {
        self.steady().filter(|s| {
            s.outcome
                .as_ref()
                .is_some_and(|o| o.generation == generation)
        })
    }

    pub fn phase_on_disk(&self) -> String {
        let bytes = fs::read(Layout::new(&self.home).state()).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        state["phase"]["name"].as_str().unwrap().to_owned()
    }

    /// What the programs noted, one line a start.
    pub fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.home.join("runs")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn check_no_overlap(&self) {
        let runs = self.runs();
        assert!(
            !runs.iter().any(|run| run.starts_with("overlap")),
            "two programs at once: {runs:?}"
        );
    }

    /// These events stand in the history, in this order.
    pub fn check_history(&self, expected: &[&str]) {
        let lines = history(&self.home).unwrap();
        let events: Vec<String> = lines
            .iter()
            .map(|line| {
                serde_json::to_value(&line.event).unwrap()["event"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        let mut rest = events.iter();
        for event in expected {
            assert!(
                rest.any(|found| found == event),
                "{event} is missing in {events:?}"
            );
        }
    }

    pub fn command(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_instar-upgrader"))
            .args(args)
            .arg("--home")
            .arg(&self.home)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

pub struct Supervisor {
    child: Child,
    home: PathBuf,
}

impl Supervisor {
    /// The program's process id, if it runs.
    pub fn pid_now(&self) -> Option<u32> {
        status(&self.home).ok()?.pid
    }

    pub fn pid(&self) -> u32 {
        wait_until("a process", || self.pid_now())
    }

    pub fn signal(&self, signal: &str) {
        kill(self.child.id(), signal);
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub fn stop(mut self) {
        self.signal("TERM");
        assert!(self.wait().success());
    }

    /// Limits the size of files that the supervisor can write, as a full disk does.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let limit = libc::rlimit {
            rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY),
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the limit is a valid structure that outlives the call, and the old one is not asked for.
        let done = unsafe {
            libc::prlimit(
                pid,
                libc::RLIMIT_FSIZE,
                &raw const limit,
                std::ptr::null_mut(),
            )
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
