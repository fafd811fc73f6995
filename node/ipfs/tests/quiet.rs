//! What a peer doesn't do: burn a processor when idle, or listen where it wasn't told to. One test
//! alone in its process, because both are measured on the process.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use support::mesh;

fn cpu_time() -> Duration {
    // SAFETY: `usage` is a plain struct that the call fills; RUSAGE_SELF needs no other argument.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    let seconds = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
    };
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Local addresses of this process's sockets that listen (TCP) or are bound (UDP), as the kernel
/// prints them.
fn listening() -> Vec<String> {
    let own: HashSet<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut addresses = Vec::new();
    for (table, listening_only) in [
        ("tcp", true),
        ("tcp6", true),
        ("udp", false),
        ("udp6", false),
    ] {
        for line in fs::read_to_string(format!("/proc/self/net/{table}"))
            .unwrap_or_default()
            .lines()
            .skip(1)
        {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if own.contains(fields[9]) && (!listening_only || fields[3] == "0A") {
                addresses.push(format!("{table} {}", fields[1]));
            }
        }
    }
    addresses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_peers_cost_nothing_and_listen_on_loopback_alone() {
    let nodes = mesh(4).await;
    let addresses = listening();
    assert_eq!(addresses.len(), 4, "{addresses:?}");
    for address in &addresses {
        assert!(
            address.starts_with("tcp 0100007F:"),
            "{address} is not 127.0.0.1"
        );
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cpu_time();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let used = cpu_time() - before;
    eprintln!("four idle peers used {used:?} in 4 s");
    assert!(
        used < Duration::from_millis(80),
        "four idle peers used {used:?} in 4 s"
    );
    // A peer that is told to reach somebody who isn't there stays quiet too.
    nodes[0]
        .peer
        .connect("/ip4/127.0.0.1/tcp/1".parse().unwrap());
    let before = cpu_time();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let used = cpu_time() - before;
    assert!(
        used < Duration::from_millis(120),
        "dialling in vain used {used:?} in 3 s"
    );
}
