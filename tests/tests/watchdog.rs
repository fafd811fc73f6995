//! A node that is really stuck: its threads are held, all but the watchdog's, as a debugger holds them.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use instar_attest::{Purpose, keyfile};
use instar_chain::{Policy, SlotPolicy};
use instar_ledger::{Genesis, GenesisValidator, Keys};
use instar_node::core::open::create;
use instar_node::home::{AutoVoteSetting, Home, NodeConfig, STATES_KEPT};
use instar_node::watchdog::EXIT_STUCK;

const PATIENCE: Duration = Duration::from_secs(60);
/// Short for a test, and long enough for a machine that is busy with other tests.
const STUCK_S: u64 = 20;
const WATCHDOG: &str = "watchdog";
const PURPOSES: [Purpose; 4] = [
    Purpose::Account,
    Purpose::Builder,
    Purpose::Consensus,
    Purpose::Lane,
];

/// A chain of one.
fn found(dir: &Path) -> (Home, SocketAddr) {
    let home = Home::new(dir.join("ann"));
    home.create().unwrap();
    let [account, builder, consensus, lane] = PURPOSES.map(|purpose| {
        let file = home.key_file(purpose);
        keyfile::generate(&file, purpose).unwrap().public()
    });
    let slot = SlotPolicy {
        builders: 1,
        ..SlotPolicy::default()
    };
    let policy = Policy {
        dapps: slot.clone(),
        node: slot,
        ..Policy::default()
    };
    let validator = GenesisValidator {
        keys: Keys {
            account,
            builder,
            consensus,
            lane,
        },
        name: "ann".into(),
        operator: "ann-ltd".into(),
        power: 1,
    };
    let genesis = Genesis {
        accounts: Default::default(),
        chain_name: "alone".into(),
        dapps: Vec::new(),
        fork: None,
        kernel: 1,
        operators: Vec::new(),
        policy: serde_json::to_value(policy).unwrap(),
        protocol: 1,
        releases: Vec::new(),
        time_ms: 1_795_262_400_000,
        validators: vec![validator],
    };
    create(&home, &genesis).unwrap();
    let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let [http, consensus, data] = held.map(|l| l.local_addr().unwrap());
    let config = NodeConfig {
        auto_vote: AutoVoteSetting::Off,
        name: "ann".into(),
        http,
        consensus: format!("/ip4/127.0.0.1/tcp/{}", consensus.port()),
        data: format!("/ip4/127.0.0.1/tcp/{}", data.port()),
        delta_patience_s: 0,
        dht: None,
        stuck_after_s: STUCK_S,
        peers: Vec::new(),
        follow: Vec::new(),
        states_kept: STATES_KEPT,
        history_kept: None,
        snapshot_every: 0,
    };
    home.write_config(&config).unwrap();
    (home, http)
}

/// The threads of a process, with their names.
fn threads(pid: libc::pid_t) -> Vec<(libc::pid_t, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let thread = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let id = task.file_name().to_str().unwrap().parse().unwrap();
        (id, name.trim().to_owned())
    };
    tasks.map(|task| thread(task.unwrap())).collect()
}

/// Holds a thread until this one ends, or the process does.
fn hold(thread: libc::pid_t) {
    // SAFETY: plain system calls on a child of this process; no memory is handed over.
    unsafe {
        let none = std::ptr::null_mut::<libc::c_void>();
        assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, thread, none, none), 0);
        assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none), 0);
    }
    wait(thread);
}

/// Waits for a child or one of its threads to stop or end.
fn wait(thread: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let waited = unsafe { libc::waitpid(thread, &mut status, libc::__WALL) };
    assert_eq!(waited, thread, "{}", std::io::Error::last_os_error());
    status
}

/// A child that does not outlive a test that fails.
struct Child(libc::pid_t);

impl Drop for Child {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // SAFETY: a plain system call; the child has not been reaped where the test failed.
            unsafe { libc::kill(self.0, libc::SIGKILL) };
        }
    }
}

#[test]
fn a_node_whose_threads_stand_still_ends_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (home, http) = found(dir.path());
    let log = dir.path().join("log");
    let file = fs::File::create(&log).unwrap();
    // Whoever traces a child has to reap its threads, so its status is asked for below, and not through `child`.
    #[expect(clippy::zombie_processes, reason = "it is reaped by `wait` below")]
    let child = Command::new(instar_tests::instar())
        .args(["node", "run", "--home"])
        .arg(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .unwrap();
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let _child = Child(pid);
    let text = || fs::read_to_string(&log).unwrap();
    let start = Instant::now();
    let watched = || threads(pid).iter().any(|(_, name)| name == WATCHDOG);
    while TcpStream::connect(http).is_err() || !watched() {
        assert!(start.elapsed() < PATIENCE, "{}", text());
        std::thread::sleep(Duration::from_millis(50));
    }

    let mut held = Vec::new();
    for (thread, name) in threads(pid) {
        if name != WATCHDOG {
            hold(thread);
            held.push(thread);
        }
    }
    // The watchdog ends the process, and with it the threads that are held.
    for thread in held.iter().filter(|t| **t != pid) {
        wait(*thread);
    }
    let status = wait(pid);
    assert!(libc::WIFEXITED(status), "status {status:#x}: {}", text());
    assert_eq!(libc::WEXITSTATUS(status), EXIT_STUCK, "{}", text());
    assert!(text().contains("fatal: the node is stuck: "), "{}", text());
}
