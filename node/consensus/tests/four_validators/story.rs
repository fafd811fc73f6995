//! The story that the four validators live through.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::node::{Schedule, VALIDATORS, chain, key, read_block};

/// Far more than anything takes on a machine that does something else at the same time.
const PATIENCE: Duration = Duration::from_secs(180);

struct Validator {
    index: usize,
    folder: PathBuf,
    process: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Validator {
    fn start(house: &House, index: usize, target: u64, key: usize) -> Self {
        let folder = house.root.path().join(index.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["node", &index.to_string(), folder.to_str().unwrap()])
            .args([&house.ports, &target.to_string(), &house.bytes.to_string()])
            .args([&house.schedule, &key.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            index,
            folder,
            process,
            orders,
            lines,
            seen: Vec::new(),
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// Waits for a line that begins like this.
    fn wait(&mut self, prefix: &str, patience: Duration) -> String {
        let end = Instant::now() + patience;
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    assert!(
                        !line.starts_with("failed"),
                        "validator {}: {line}",
                        self.index
                    );
                    assert!(
                        !line.starts_with("equivocation"),
                        "validator {}: {line}",
                        self.index
                    );
                    self.seen.push(line.clone());
                    if line.starts_with(prefix) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!(
                        "validator {}: no `{prefix}` in {patience:?}; {}",
                        self.index,
                        self.tail()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!(
                        "validator {} ended without `{prefix}`; {}",
                        self.index,
                        self.tail()
                    )
                }
            }
        }
    }

    /// What was said since the last look.
    fn news(&mut self) -> Vec<String> {
        let news: Vec<String> = self.lines.try_iter().collect();
        self.seen.extend(news.iter().cloned());
        news
    }

    fn tail(&self) -> String {
        self.seen[self.seen.len().saturating_sub(12)..].join(" | ")
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

struct House {
    root: tempfile::TempDir,
    ports: String,
    bytes: usize,
    schedule: String,
    validators: Vec<Validator>,
}

impl Drop for House {
    fn drop(&mut self) {
        for validator in &mut self.validators {
            let _ = validator.process.kill();
            let _ = validator.process.wait();
        }
    }
}

impl House {
    fn open(bytes: usize, target: u64) -> Self {
        Self::open_with(VALIDATORS, "1=0123", bytes, target)
    }

    fn open_with(count: usize, schedule: &str, bytes: usize, target: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let listeners: Vec<TcpListener> = (0..count)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports = listeners
            .iter()
            .map(|l| l.local_addr().unwrap().port().to_string());
        let ports = ports.collect::<Vec<_>>().join(",");
        drop(listeners);
        let mut house = Self {
            root,
            ports,
            bytes,
            schedule: schedule.to_owned(),
            validators: Vec::new(),
        };
        for index in 0..count {
            let validator = house.start(index, target);
            house.validators.push(validator);
        }
        house
    }

    fn start(&self, index: usize, target: u64) -> Validator {
        Validator::start(self, index, target, index)
    }

    fn order(&mut self, order: &str) {
        self.validators.iter_mut().for_each(|v| v.order(order));
    }

    fn wait(&mut self, prefix: &str) {
        self.validators
            .iter_mut()
            .for_each(|v| drop(v.wait(prefix, PATIENCE)));
    }

    fn latencies(&self) -> Vec<u64> {
        let said = self.validators.iter().flat_map(|v| &v.seen);
        let mut all: Vec<u64> = said
            .filter_map(|l| l.strip_prefix("latency ")?.parse().ok())
            .collect();
        all.sort_unstable();
        all
    }

    /// Every node has the same blocks, and every certificate verifies offline. Returns how many hold all signatures.
    fn verify(&self, height: u64) -> usize {
        let schedule = Schedule::parse(&self.schedule);
        let mut full = 0;
        for height in 1..=height {
            let mut blocks = Vec::new();
            for validator in &self.validators {
                let (certificate, payload) = read_block(&validator.folder, height)
                    .unwrap_or_else(|| panic!("{} lacks {height}", validator.index));
                let set = schedule.at(height);
                certificate.verify(&chain(), &set).unwrap();
                full += usize::from(certificate.signatures.len() == set.len());
                blocks.push((certificate.block, payload));
            }
            assert!(
                blocks.windows(2).all(|w| w[0] == w[1]),
                "two blocks at height {height}"
            );
        }
        full
    }
}

pub fn main() {
    decide_idle_and_refuse();
    kill_and_return();
    lose_and_follow();
    large_payloads();
    change_validators();
    println!("four validators: all well");
}

fn report(what: &str, latencies: &[u64], seconds: f64) {
    let at =
        |p: usize| latencies[(latencies.len() * p / 100).min(latencies.len() - 1)] as f64 / 1e3;
    let count = latencies.len();
    println!(
        "{what}: {count} decided in {seconds:.2} s, asked to decided p50 {:.1} ms, p99 {:.1} ms",
        at(50),
        at(99)
    );
}

fn decide_idle_and_refuse() {
    let mut house = House::open(1000, 0);
    house.wait("start 0");
    // Everybody is in the first round of height 1, where nobody has anything to propose.
    let began = Instant::now();
    house.order("run 50");
    house.wait("decided 50 ");
    report(
        "50 small blocks",
        &house.latencies(),
        began.elapsed().as_secs_f64(),
    );
    house.wait("idle 50");
    nothing_listens_outside_loopback(&house);

    std::thread::sleep(Duration::from_millis(500));
    house.validators.iter_mut().for_each(|v| drop(v.news()));
    std::thread::sleep(Duration::from_secs(5));
    for validator in &mut house.validators {
        // That its engine lives and a quorum is connected is all that an idle validator says.
        let mut news = validator.news();
        news.retain(|said| said != "alive true");
        assert!(news.is_empty(), "an idle validator said {news:?}");
    }

    let began = Instant::now();
    house.order("run 51");
    house.wait("decided 51 ");
    println!(
        "the first block after idling: {:.1} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
    house.wait("idle 51");

    house.order("bad 52");
    let began = Instant::now();
    house.order("run 53");
    for validator in &mut house.validators {
        let decided = validator.wait("decided 52 ", PATIENCE);
        assert!(
            !decided.starts_with("decided 52 0"),
            "an invalid block was decided"
        );
    }
    println!(
        "an invalid proposal cost {:.0} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
    house.wait("decided 53 ");
    let refused = |v: &&Validator| v.seen.iter().any(|l| l == "refused 52 0");
    assert_eq!(
        house.validators.iter().filter(refused).count(),
        VALIDATORS - 1
    );
    house.verify(53);
}

fn kill_and_return() {
    let mut house = House::open(1000, 0);
    house.wait("start 0");
    house.order("run 10");
    house.wait("decided 10 ");

    house.validators[3].kill();
    let rest = &mut house.validators[..3];
    rest.iter_mut().for_each(|v| v.order("run 30"));
    rest.iter_mut()
        .for_each(|v| drop(v.wait("decided 30 ", PATIENCE)));
    rest.iter_mut()
        .for_each(|v| drop(v.wait("idle 30", PATIENCE)));

    let began = Instant::now();
    house.validators[3] = house.start(3, 0);
    house.validators[3].wait("start 10", PATIENCE);
    house.validators[3].wait("decided 30 ", PATIENCE);
    println!(
        "back after SIGKILL, 20 blocks behind: {:.2} s",
        began.elapsed().as_secs_f64()
    );

    house.order("run 60");
    house.wait("decided 60 ");
    house.wait("idle 60");
    let full = house.verify(60);
    assert!(full > 0, "no certificate ever grew to all four signatures");
    assert!(
        !signs(&house, 31, 59, 3).is_empty(),
        "the one that came back signed nothing"
    );

    // All four at once, in the middle of deciding.
    for turn in 0..3u64 {
        house.order(&format!("run {}", 10_000));
        std::thread::sleep(Duration::from_millis(300 + 70 * turn));
        house.validators.iter_mut().for_each(Validator::kill);
        for index in 0..VALIDATORS {
            house.validators[index] = house.start(index, 10_000);
        }
        let starts = house.validators.iter_mut().map(|v| {
            let line = v.wait("start ", PATIENCE);
            line.trim_start_matches("start ").parse::<u64>().unwrap()
        });
        let height = starts.max().unwrap();
        let began = Instant::now();
        house.wait(&format!("decided {} ", height + 5));
        let seconds = began.elapsed().as_secs_f64();
        println!("all four killed at {height}: five blocks later after {seconds:.2} s");
        house.verify(height + 5);
    }
}

fn signs(house: &House, from: u64, to: u64, index: usize) -> Vec<u64> {
    let key = key(index).public();
    let signed = |h: &u64| {
        // What the others hold: the certificates of the first validator's ledger.
        let (certificate, _) = read_block(&house.validators[0].folder, *h).unwrap();
        certificate.signatures.iter().any(|s| s.validator == key)
    };
    (from..=to).filter(signed).collect()
}

/// A validator whose disk was restored, and one whose mark is gone, follow until they can't contradict themselves.
fn lose_and_follow() {
    let mut house = House::open(1000, 0);
    house.wait("start 0");
    house.order("run 20");
    house.wait("decided 20 ");
    house.wait("idle 20");

    house.validators[3].kill();
    let folder = house.validators[3].folder.clone();
    std::fs::remove_dir_all(folder.join("wal")).unwrap();
    for height in 11..=20 {
        std::fs::remove_file(folder.join(format!("{height}.block"))).unwrap();
    }
    house.validators[3] = house.start(3, 0);
    house.validators[3].wait("start 10", PATIENCE);
    let following = house.validators[3].wait("following", PATIENCE);
    assert_eq!(following, "following Some(21)");
    house.validators[3].wait("decided 20 ", PATIENCE);
    house.order("run 40");
    house.wait("decided 40 ");
    house.wait("idle 40");
    assert!(
        !signs(&house, 21, 39, 3).is_empty(),
        "it never signed again"
    );

    // A write-ahead log that is broken in mid-height: the fourth votes alone, and what it wrote is damaged.
    house.validators[3].order("run 41");
    house.validators[3].wait("nil 41 ", PATIENCE);
    std::thread::sleep(Duration::from_millis(200));
    house.validators[3].kill();
    let path = folder.join("wal/consensus.wal");
    let mut wal = std::fs::read(&path).unwrap();
    *wal.last_mut().unwrap() ^= 1;
    std::fs::write(&path, wal).unwrap();
    house.validators[3] = house.start(3, 0);
    assert_eq!(
        house.validators[3].wait("following", PATIENCE),
        "following Some(42)"
    );
    house.order("run 41");
    house.wait("decided 41 ");
    // It signs again from 42 on, where it is not idle: a new engine always begins a round.
    house.validators[3].wait("round 42 ", PATIENCE);
    assert_eq!(
        signs(&house, 41, 41, 3),
        [0; 0],
        "it signed without knowing its lock"
    );

    house.validators[3].kill();
    std::fs::remove_dir_all(folder.join("marks")).unwrap();
    house.validators[3] = house.start(3, 0);
    house.validators[3].wait("start 41", PATIENCE);
    assert_eq!(
        house.validators[3].wait("following", PATIENCE),
        "following None"
    );
    assert_eq!(
        house.validators[3].wait("following", PATIENCE),
        "following Some(44)"
    );
    house.order("run 60");
    house.wait("decided 60 ");
    house.wait("idle 60");
    assert_eq!(
        signs(&house, 41, 42, 3),
        [0; 0],
        "it signed what it may have signed before"
    );
    assert!(
        !signs(&house, 44, 59, 3).is_empty(),
        "it never signed again"
    );
    // A backup of the whole folder, marks and all, restored over what was signed since.
    let backup = house.root.path().join("backup");
    house.validators[3].kill();
    copy_folder(&folder, &backup);
    house.validators[3] = house.start(3, 0);
    house.order("run 75");
    house.wait("decided 75 ");
    house.wait("idle 75");
    house.validators[3].kill();
    std::fs::remove_dir_all(&folder).unwrap();
    copy_folder(&backup, &folder);
    house.validators[3] = house.start(3, 0);
    house.validators[3].wait("start 60", PATIENCE);
    let first = house.validators[3].wait("following", PATIENCE);
    assert_eq!(first, "following None", "a copied mark was believed");
    assert_eq!(
        house.validators[3].wait("following", PATIENCE),
        "following Some(78)"
    );
    house.order("run 95");
    house.wait("decided 95 ");
    house.wait("idle 95");
    assert_eq!(signs(&house, 76, 77, 3), [0; 0]);
    assert!(
        !signs(&house, 78, 94, 3).is_empty(),
        "it never signed again"
    );
    house.verify(95);
    println!("a restored disk, a lost mark, a restored backup: followed, then signed again");
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

fn large_payloads() {
    let mut house = House::open(1_000_000, 0);
    house.wait("start 0");
    let began = Instant::now();
    house.order("run 20");
    house.wait("decided 20 ");
    report(
        "20 blocks of 1 MB",
        &house.latencies(),
        began.elapsed().as_secs_f64(),
    );
    house.wait("idle 20");
    house.verify(20);
}

/// A fifth joins at 11, the second leaves at 21, the third has another key from 33 on.
fn change_validators() {
    let mut house = House::open_with(5, "1=0123;11=01234;21=0234;33=0734", 1000, 0);
    house.wait("start 0");
    house.order("run 10");
    house.wait("decided 10 ");
    assert_eq!(
        signs(&house, 1, 10, 4),
        [0; 0],
        "it signed before its height"
    );

    // With five, four are needed: without the fourth the chain goes on only with the fifth.
    house.validators[3].kill();
    for index in [0, 1, 2, 4] {
        house.validators[index].order("run 20");
    }
    for index in [0, 1, 2, 4] {
        house.validators[index].wait("decided 20 ", PATIENCE);
    }
    assert_eq!(
        signs(&house, 11, 19, 4).len(),
        9,
        "the fifth is one of four"
    );
    house.validators[3] = house.start(3, 0);
    house.validators[3].wait("decided 20 ", PATIENCE);

    house.order("run 30");
    house.wait("decided 30 ");
    assert_eq!(
        signs(&house, 21, 30, 1),
        [0; 0],
        "it signed after it was gone"
    );
    // Whoever left only follows, so nobody misses it.
    house.validators[1].kill();
    for index in [0, 2, 3, 4] {
        house.validators[index].order("run 32");
    }
    for index in [0, 2, 3, 4] {
        house.validators[index].wait("decided 32 ", PATIENCE);
    }

    // The third's new key has no mark of its own: it follows, and signs after everything that it can have signed.
    house.validators[2].kill();
    house.validators[2] = Validator::start(&house, 2, 0, 7);
    assert_eq!(
        house.validators[2].wait("following", PATIENCE),
        "following None"
    );
    assert_eq!(
        house.validators[2].wait("following", PATIENCE),
        "following Some(35)"
    );
    for index in [0, 2, 3, 4] {
        house.validators[index].order("run 60");
    }
    for index in [0, 2, 3, 4] {
        house.validators[index].wait("decided 60 ", PATIENCE);
    }
    assert_eq!(signs(&house, 33, 34, 7), [0; 0], "it signed too early");
    assert!(
        !signs(&house, 35, 59, 7).is_empty(),
        "the new key never signed"
    );
    assert_eq!(signs(&house, 33, 59, 2), [0; 0], "the old key signed on");
    house.validators.remove(1);
    house.verify(60);
    println!("a fifth joined, one left, one has a new key: the chain went on");
}

/// Reads the kernel's own list of listening sockets.
fn nothing_listens_outside_loopback(house: &House) {
    let mut found = 0;
    for validator in &house.validators {
        let pid = validator.process.id();
        let mut inodes = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten()
        {
            if let Ok(link) = std::fs::read_link(entry.path()) {
                inodes.push(link.to_string_lossy().into_owned());
            }
        }
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let text =
                std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            for line in text.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let listens = table.starts_with("udp") || fields[3] == "0A";
                if listens && inodes.contains(&format!("socket:[{}]", fields[9])) {
                    assert!(
                        fields[1].starts_with("0100007F:"),
                        "{table} listens on {}",
                        fields[1]
                    );
                    found += 1;
                }
            }
        }
    }
    assert_eq!(found, VALIDATORS, "each validator listens once");
}
