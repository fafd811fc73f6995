//! A dapp that misbehaves in the way that its argument names. Without any crate, so that it can also say what no SDK would.

use std::io::{BufRead, Write};

fn main() {
    let way = std::env::args().nth(1).unwrap();
    let stdin = std::io::stdin();
    let mut lines = stdin.lock().lines().map(|line| line.unwrap());
    let begin = lines.next().unwrap();
    assert!(begin.contains("\"begin\""), "{begin}");
    let entries = lines.next().unwrap();
    let ids: Vec<&str> =
        entries.match_indices("\"id\":\"").map(|(at, found)| &entries[at + found.len()..at + found.len() + 64]).collect();
    let out = std::io::stdout();
    let say = |line: &str| {
        let mut out = out.lock();
        // The host stops listening to who misbehaves.
        if out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
    };
    let yes = |id: &str| format!("{{\"type\":\"verdict\",\"id\":\"{id}\",\"ok\":true}}");
    match way.as_str() {
        "polite" => {
            for id in &ids {
                say(&format!("{{\"type\":\"put\",\"key\":\"seen/{id}\",\"value\":\"1\"}}"));
                say(&yes(id));
            }
            assert!(lines.next().unwrap().contains("end"));
            say("{\"type\":\"done\"}");
        }
        "silent_exit" => {}
        "panic" => panic!("it panics"),
        "segfault" => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
        "closes_output" => {
            drop(unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(1) });
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        "endless_line" => loop {
            if out.lock().write_all(&[b'x'; 65536]).is_err() {
                return;
            }
        },
        "endless_lines" => loop {
            say(&format!("{{\"type\":\"put\",\"key\":\"a\",\"value\":\"{}\"}}", "x".repeat(60_000)));
        },
        "endless_questions" => loop {
            say("{\"type\":\"get\",\"key\":\"key/1\"}");
        },
        "reads_everything_again_and_again" => loop {
            say("{\"type\":\"range\",\"prefix\":\"key/\",\"limit\":1000}");
            lines.next();
        },
        "no_json" => say("what?"),
        "deep_json" => say(&"[".repeat(50_000)),
        "unknown_line" => say("{\"type\":\"reboot\"}"),
        "emits" => say("{\"type\":\"emit\",\"topic\":\"coin\",\"body\":{}}"),
        "wrong_entry" => say(&yes(ids[1])),
        "two_verdicts" => ids.iter().chain([&ids[0]]).for_each(|id| say(&yes(id))),
        "done_too_early" => say("{\"type\":\"done\"}"),
        "bad_key" => say("{\"type\":\"put\",\"key\":\"a b\",\"value\":\"1\"}"),
        "long_key" => say(&format!("{{\"type\":\"get\",\"key\":\"{}\"}}", "k".repeat(401))),
        "long_value" => say(&format!("{{\"type\":\"put\",\"key\":\"a\",\"value\":\"{}\"}}", "v".repeat(65_537))),
        "large_output" => {
            let output = "o".repeat(5000);
            say(&format!("{{\"type\":\"verdict\",\"id\":\"{}\",\"ok\":true,\"output\":\"{output}\"}}", ids[0]));
        }
        "float_output" => say(&format!("{{\"type\":\"verdict\",\"id\":\"{}\",\"ok\":true,\"output\":0.5}}", ids[0])),
        "bad_rule" => say(&format!("{{\"type\":\"verdict\",\"id\":\"{}\",\"ok\":false,\"rule\":\"No!\"}}", ids[0])),
        "sleeps" => std::thread::sleep(std::time::Duration::from_secs(600)),
        "spins" => loop {
            std::hint::spin_loop();
        },
        "complains_without_end" => loop {
            eprintln!("{}", "complaint ".repeat(100));
        },
        "eats_memory" => {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            loop {
                eaten.push(vec![1; 1 << 20]);
            }
        }
        "vetoes" => {
            ids.iter().for_each(|id| {
                say("{\"type\":\"put\",\"key\":\"a\",\"value\":\"1\"}");
                say(&yes(id));
            });
            say("{\"type\":\"done\",\"veto\":{\"rule\":\"not-today\",\"detail\":\"it is Saturday\"}}");
        }
        other => panic!("there is no way called {other}"),
    }
    // What was said is read, even if the program is gone by then.
}
