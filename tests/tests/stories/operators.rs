//! Four operators begin a chain with nothing but the program's verbs: keys, public files, one genesis, four nodes, a
//! transfer.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 4] = ["ada", "ben", "cy", "di"];

struct Nodes(Vec<Child>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(super) fn instar(args: &[&str]) -> Output {
    Command::new(instar_tests::instar())
        .args(args)
        .output()
        .unwrap()
}

pub(super) fn done(args: &[&str]) -> Value {
    let output = instar(args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or(Value::Null)
}

pub(super) fn ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    held.iter()
        .map(|l| l.local_addr().unwrap().port())
        .collect()
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn four_operators() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let ports = ports(NAMES.len() * 3);
    let mut files = Vec::new();
    for (name, ports) in NAMES.iter().zip(ports.chunks(3)) {
        let address = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}");
        let (consensus, data) = (address(ports[1]), address(ports[2]));
        let public = done(&[
            "key",
            "new",
            "--home",
            text(&at(name)),
            "--name",
            name,
            "--consensus",
            &consensus,
            "--data",
            &data,
        ]);
        let file = at(&format!("{name}.json"));
        fs::write(&file, serde_json::to_string_pretty(&public).unwrap()).unwrap();
        files.push(file);
    }

    // The developer's first release, and an account that has something to send.
    let coin = at("coin");
    for (path, bytes) in instar::embedded::coin(1) {
        let full = coin.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, bytes).unwrap();
    }
    for args in [
        &["init", "--quiet", "."][..],
        &["add", "--all", "--force", "."],
        &[
            "-c",
            "user.name=dev",
            "-c",
            "user.email=dev@example.invalid",
            "commit",
            "--quiet",
            "-m",
            "coin",
        ],
    ] {
        assert!(
            Command::new("git")
                .args(args)
                .current_dir(&coin)
                .status()
                .unwrap()
                .success()
        );
    }
    let release = at("coin-1");
    done(&[
        "build",
        text(&coin),
        "--rev",
        "HEAD",
        "--slot",
        "dapps/coin",
        "--number",
        "1",
        "--name",
        "coin",
        "--out",
        text(&release),
        "--json",
    ]);
    let account = at("account.json");
    let key = done(&["key", "new", "account", "-o", text(&account), "--json"]);
    let key = key["public"].as_str().unwrap();
    let plan = at("plan.json");
    let content = json!({"chain_name": "four-operators", "time_ms": 1_795_262_400_000u64, "accounts": {"coin": {"balance": {key: "100"}}}});
    fs::write(&plan, serde_json::to_string_pretty(&content).unwrap()).unwrap();

    // Each names the files in an order of its own, and all get one id.
    let mut id = String::new();
    for (i, (name, ports)) in NAMES.iter().zip(ports.chunks(3)).enumerate() {
        let http = format!("127.0.0.1:{}", ports[0]);
        let home = at(name);
        let known = id.clone();
        let mut args = vec![
            "chain",
            "init",
            "--json",
            "--home",
            text(&home),
            "--plan",
            text(&plan),
        ];
        args.extend(["--release", text(&release), "--http", &http, "--validator"]);
        files.rotate_left(i);
        args.extend(files.iter().map(|f| text(f)));
        if i > 0 {
            // One who was given another plan notices before anything is written.
            let other = at("other-plan.json");
            let mut changed = content.clone();
            changed["accounts"]["coin"]["balance"][key] = json!("101");
            fs::write(&other, changed.to_string()).unwrap();
            let mut wrong = args.clone();
            wrong[6] = text(&other);
            wrong.extend(["--id", &known]);
            let refused = instar(&wrong);
            assert_eq!(refused.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&refused.stderr).contains("differ from the others"));
            args.extend(["--id", &known]);
        }
        let made = done(&args);
        assert_eq!(made["validator"], *name);
        id = made["chain"].as_str().unwrap().to_owned();
        let again = instar(&args);
        assert!(String::from_utf8_lossy(&again.stderr).contains("has a chain already"));
    }

    let program = instar_tests::instar();
    let nodes: Vec<Child> = NAMES
        .iter()
        .map(|name| {
            let log = fs::File::create(at(&format!("{name}.log"))).unwrap();
            Command::new(&program)
                .args(["node", "run", "--home", text(&at(name))])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap()
        })
        .collect();
    let _nodes = Nodes(nodes);
    let url = |i: usize| format!("http://127.0.0.1:{}", ports[i * 3]);
    let start = Instant::now();
    while !instar(&["chain", "status", "--node", &url(0)])
        .status
        .success()
    {
        assert!(
            start.elapsed() < PATIENCE,
            "{}",
            fs::read_to_string(at("ada.log")).unwrap()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let body = json!({"op": "transfer", "to": "ab".repeat(32), "amount": "30"}).to_string();
    let sent = done(&[
        "send",
        "coin",
        &body,
        "--key",
        text(&account),
        "--node",
        &url(0),
        "--json",
    ]);
    assert_eq!(sent["receipt"]["outcome"], "applied", "{sent}");

    // Another operator's node has it too.
    let height = sent["height"].as_u64().unwrap();
    let question = json!({"op": "balance", "account": key}).to_string();
    loop {
        let status = done(&["chain", "status", "--node", &url(2), "--json"]);
        assert_eq!(status["chain"], *id);
        if status["height"].as_u64().unwrap() >= height {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{status}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let answer = done(&[
        "dapp",
        "query",
        "coin",
        &question,
        "--node",
        &url(2),
        "--json",
    ]);
    assert_eq!(answer["answer"]["balance"], "70", "{answer}");
}
