//! The coin dapp in its three versions, built from the embedded sources, in containers.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use instar_chain::host::Migration;
use instar_chain::{DappCall, DappEntry, DappHost, MemoryState};
use serde_json::json;
use support::{Host, account, build_coin, context, entry, release};

/// What the build of a dapp may take: four validators build it twice each while a newcomer watches. Measured alone it is
/// a little over one second; this machine may be busy.
const BUILD_LIMIT_S: u64 = 30;

fn main() {
    instar_sandbox::init();
    if std::env::var(support::SITUATION).is_ok() {
        return stories([1, 2, 3].map(|version| std::fs::read(format!("coin-{version}")).unwrap()));
    }
    let start = Instant::now();
    let programs = [1, 2, 3].map(build_coin);
    let took = start.elapsed();
    assert!(
        took.as_secs() < 3 * BUILD_LIMIT_S,
        "{took:?} for three builds"
    );
    println!("three builds in {took:?}");
    let folder = tempfile::tempdir().unwrap();
    for (version, program) in (1..).zip(&programs) {
        std::fs::write(folder.path().join(format!("coin-{version}")), program).unwrap();
    }
    stories(programs);
    support::elsewhere(folder.path());
}

fn stories(programs: [Vec<u8>; 3]) {
    let mut host = Host::new();
    let manifest = instar_runtime::embedded::coin_manifest();
    let program = programs[0].clone();
    let [one, two, three] =
        programs.map(|program| release(&host.blocks, "coin", &program, manifest));

    transfers_move_coins(&mut host, &one);
    refusals_name_their_rule(&mut host, &one);
    a_refused_entry_leaves_no_trace(&mut host, &one);
    large_blocks_are_sent_in_batches(&mut host, &one);
    memos_come_with_the_second_version(&mut host, &one, &two);
    balances_can_be_asked_for(&mut host, &one);
    another_release_is_refused_for_another_topic(&mut host, &one);
    the_image_is_checked_again(&one, &host);
    the_map_s_own_order_shows(&mut host, &three);
    entries_of_forks_are_for_those_that_take_them(&mut host, &one, &program);
    a_warm_container_answers_at_once(&mut host, &two);
    println!("test result: ok. 11 tests");
}

fn done(name: &str) {
    println!("test {name} ... ok");
}

fn balances(list: &[(u8, &str)]) -> MemoryState {
    let mut state = MemoryState::default();
    for (who, balance) in list {
        state.insert(format!("balance/{}", account(*who)), *balance);
    }
    state
}

fn transfer(from: u8, nonce: u64, to: u8, amount: &str) -> DappEntry {
    entry(
        "coin",
        account(from),
        nonce,
        json!({"op": "transfer", "to": account(to), "amount": amount}),
    )
}

fn balance(state: &MemoryState, who: u8) -> String {
    use instar_chain::StateView;
    let value = state.get(&format!("balance/{}", account(who))).unwrap();
    value.map_or("none".to_owned(), |bytes| String::from_utf8(bytes).unwrap())
}

fn transfers_move_coins(host: &mut Host, release: &str) {
    let mut state = balances(&[(1, "100")]);
    // The second one spends what the first one brought.
    let entries = vec![
        transfer(1, 1, 2, "60"),
        transfer(2, 1, 3, "60"),
        transfer(1, 2, 1, "40"),
    ];
    let result = host.run("coin", release, &state, entries).unwrap();
    assert!(
        result.verdicts.iter().all(|verdict| verdict.ok),
        "{result:?}"
    );
    assert_eq!(
        result.verdicts[0].output,
        Some(json!({"amount": "60", "balance": "40", "to": account(2)}))
    );
    state.apply(&result.writes);
    assert_eq!(
        [1, 2, 3].map(|who| balance(&state, who)),
        ["40", "none", "60"]
    );
    // Account 2 had nothing before and has nothing now: no write at all.
    assert_eq!(result.writes.len(), 2, "{result:?}");
    done("transfers_move_coins");
}

fn refusals_name_their_rule(host: &mut Host, release: &str) {
    let state = balances(&[(1, "5"), (2, &u128::MAX.to_string())]);
    let of = |body| entry("coin", account(1), 1, body);
    let to = account(2);
    let cases = [
        (transfer(1, 1, 3, "6"), "insufficient-funds"),
        (transfer(1, 1, 2, "1"), "balance-too-large"),
        (transfer(1, 1, 3, "0"), "bad-amount"),
        (transfer(1, 1, 3, "05"), "bad-amount"),
        (transfer(1, 1, 3, "-1"), "bad-amount"),
        (transfer(1, 1, 3, "1e3"), "bad-amount"),
        (transfer(1, 1, 3, &"9".repeat(60)), "bad-amount"),
        (
            of(json!({"op": "transfer", "to": to, "amount": 5})),
            "bad-amount",
        ),
        (
            of(json!({"op": "transfer", "to": "somebody", "amount": "5"})),
            "bad-recipient",
        ),
        (
            of(json!({"op": "transfer", "to": to, "amount": "5", "memo": "hello"})),
            "unknown-field",
        ),
        (of(json!({"op": "mint"})), "unknown-op"),
        (of(json!({})), "unknown-op"),
    ];
    let (entries, rules): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let result = host.run("coin", release, &state, entries).unwrap();
    let found: Vec<_> = result
        .verdicts
        .iter()
        .map(|verdict| verdict.rule.as_deref().unwrap())
        .collect();
    assert_eq!(found, rules);
    assert!(
        result
            .verdicts
            .iter()
            .all(|verdict| !verdict.ok && verdict.detail.is_some())
    );
    assert!(result.writes.is_empty());
    done("refusals_name_their_rule");
}

fn a_refused_entry_leaves_no_trace(host: &mut Host, release: &str) {
    // The sender's balance is reduced before the recipient's is found to be too large.
    let mut state = balances(&[(1, "5"), (2, &u128::MAX.to_string())]);
    let entries = vec![transfer(1, 1, 2, "5"), transfer(1, 2, 3, "5")];
    let result = host.run("coin", release, &state, entries).unwrap();
    assert_eq!(
        result
            .verdicts
            .iter()
            .map(|verdict| verdict.ok)
            .collect::<Vec<_>>(),
        [false, true]
    );
    state.apply(&result.writes);
    assert_eq!([1, 3].map(|who| balance(&state, who)), ["none", "5"]);
    done("a_refused_entry_leaves_no_trace");
}

fn large_blocks_are_sent_in_batches(host: &mut Host, release: &str) {
    let mut state = balances(&[(1, "1000000")]);
    let entries: Vec<_> = (0..1500)
        .map(|nonce| transfer(1, nonce, 2 + (nonce % 5) as u8, "3"))
        .collect();
    let start = Instant::now();
    let result = host.run("coin", release, &state, entries).unwrap();
    println!("1500 transfers in {:?}", start.elapsed());
    assert!(result.verdicts.len() == 1500 && result.verdicts.iter().all(|verdict| verdict.ok));
    state.apply(&result.writes);
    assert_eq!(
        (balance(&state, 1), balance(&state, 2)),
        ("995500".to_owned(), "900".to_owned())
    );
    done("large_blocks_are_sent_in_batches");
}

fn memos_come_with_the_second_version(host: &mut Host, one: &str, two: &str) {
    let mut state = balances(&[(1, "10")]);
    let body =
        |memo: &str| json!({"op": "transfer", "to": account(2), "amount": "1", "memo": memo});
    let entries = |memo: &str| vec![entry("coin", account(1), 1, body(memo))];
    let first = host.run("coin", one, &state, entries("rent")).unwrap();
    assert_eq!(first.verdicts[0].rule.as_deref(), Some("unknown-field"));
    let migration = Migration {
        from: Some(one.to_owned()),
        from_number: 1,
        to_number: 2,
    };
    let call = DappCall {
        dapp: "coin",
        release: two,
        ctx: context(),
        entries: vec![],
        state: &state,
        migrate: Some(migration),
    };
    assert_eq!(
        host.runtime.run(call).unwrap(),
        instar_chain::DappResult::default()
    );
    let second = host
        .run("coin", two, &state, entries("rent – für März"))
        .unwrap();
    assert_eq!(
        second.verdicts[0].output.as_ref().unwrap()["memo"],
        "rent – für März"
    );
    state.apply(&second.writes);
    let asked = ask(
        host,
        two,
        &state,
        json!({"op": "memo", "account": account(2)}),
    );
    assert_eq!(asked.unwrap(), json!({"memo": "rent – für März"}));
    let long = host
        .run("coin", two, &state, entries(&"x".repeat(141)))
        .unwrap();
    assert_eq!(long.verdicts[0].rule.as_deref(), Some("bad-memo"));
    done("memos_come_with_the_second_version");
}

fn ask(
    host: &mut Host,
    release: &str,
    own: &MemoryState,
    question: serde_json::Value,
) -> Result<serde_json::Value, instar_chain::DappFailure> {
    let mut whole = MemoryState::default();
    for (key, value) in own.iter() {
        whole.insert(format!("d/coin/{key}"), value);
    }
    support::ask(host, "coin", release, (&whole, &whole), question)
}

fn balances_can_be_asked_for(host: &mut Host, release: &str) {
    let state = balances(&[(1, "12")]);
    let mut of = |who| {
        ask(
            host,
            release,
            &state,
            json!({"op": "balance", "account": account(who)}),
        )
        .unwrap()
    };
    assert_eq!(of(1), json!({"balance": "12"}));
    assert_eq!(of(2), json!({"balance": "0"}));
    let refused = ask(host, release, &state, json!({"op": "steal"})).unwrap_err();
    assert!(
        refused.to_string().contains("unknown-question"),
        "{refused}"
    );
    done("balances_can_be_asked_for");
}

fn another_release_is_refused_for_another_topic(host: &mut Host, release: &str) {
    let state = MemoryState::default();
    let error = host.run("door", release, &state, vec![]).unwrap_err();
    assert!(
        matches!(error, instar_chain::DappFailure::Protocol(_)),
        "{error}"
    );
    done("another_release_is_refused_for_another_topic");
}

fn the_image_is_checked_again(release: &str, host: &Host) {
    let folder = host.folder.path();
    let program = folder.join(release).join("rootfs/bin/coin");
    let good = std::fs::read(&program).unwrap();
    let state = balances(&[(1, "1")]);
    for change in ["a flipped byte", "a file too many"] {
        match change {
            "a flipped byte" => {
                let mut bad = good.clone();
                bad[1000] ^= 1;
                // The file itself is being run.
                std::fs::remove_file(&program).unwrap();
                std::fs::write(&program, bad).unwrap();
                std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
            }
            _ => std::fs::write(folder.join(release).join("rootfs/more"), "more").unwrap(),
        }
        // As after a restart: the folder is a cache, and what isn't right in it is taken from the blocks again.
        let mut restarted =
            instar_runtime::Runtime::new(folder, std::sync::Arc::clone(&host.blocks)).unwrap();
        let entries = vec![transfer(1, 1, 2, "1")];
        let call = DappCall {
            dapp: "coin",
            release,
            ctx: context(),
            entries,
            state: &state,
            migrate: None,
        };
        assert!(restarted.run(call).unwrap().verdicts[0].ok, "{change}");
        assert_eq!(std::fs::read(&program).unwrap(), good);
        assert!(!folder.join(release).join("rootfs/more").exists());
    }
    done("the_image_is_checked_again");
}

fn the_map_s_own_order_shows(host: &mut Host, release: &str) {
    let state = balances(&[(1, "1")]);
    let mut answers = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let result = host
            .run("coin", release, &state, vec![transfer(1, 1, 2, "1")])
            .unwrap();
        assert!(result.verdicts[0].ok);
        answers.insert(format!("{:?}", result.writes));
    }
    assert!(
        answers.len() > 1,
        "sixteen keys were walked in the same order four times"
    );
    done("the_map_s_own_order_shows");
}

/// The coin does not take them; the same program with a manifest that says so is asked, whatever it makes of them.
fn entries_of_forks_are_for_those_that_take_them(host: &mut Host, release: &str, program: &[u8]) {
    let state = balances(&[(1, "100")]);
    let fork = instar_attest::ChainId::from_bytes([9; 32]);
    let foreign = |nonce| DappEntry {
        chain: Some(fork),
        topic: format!("foreign/{fork}"),
        ..transfer(1, nonce, 2, "30")
    };
    let refused = |verdict: &instar_chain::Verdict| {
        !verdict.ok && verdict.rule.as_deref() == Some("foreign-not-taken")
    };
    let alone = host.run("coin", release, &state, vec![foreign(1)]).unwrap();
    assert!(refused(&alone.verdicts[0]) && alone.writes.is_empty());
    let beside = vec![transfer(1, 1, 2, "10"), foreign(2), foreign(3)];
    let beside = host.run("coin", release, &state, beside).unwrap();
    assert!(beside.verdicts[0].ok && beside.verdicts[1..].iter().all(refused));
    assert_eq!(beside.writes.len(), 2, "{beside:?}");

    let manifest = json!({"abi": 1, "command": ["/bin/coin"], "foreign": true, "topic": "coin"});
    let taking = support::release(
        &host.blocks,
        "coin",
        program,
        manifest.to_string().as_bytes(),
    );
    let entries = vec![transfer(1, 1, 2, "10"), foreign(2)];
    let taken = host.run("coin", &taking, &state, entries).unwrap();
    assert!(taken.verdicts.iter().all(|v| v.ok), "{taken:?}");
    done("entries_of_forks_are_for_those_that_take_them");
}

fn a_warm_container_answers_at_once(host: &mut Host, release: &str) {
    let state = balances(&[(1, "1000")]);
    let mut times_us: Vec<u128> = (0..20)
        .map(|nonce| {
            // A block comes after the container has had the time to start.
            std::thread::sleep(std::time::Duration::from_millis(50));
            let start = Instant::now();
            assert!(
                host.run("coin", release, &state, vec![transfer(1, nonce, 2, "1")])
                    .unwrap()
                    .verdicts[0]
                    .ok
            );
            start.elapsed().as_micros()
        })
        .collect();
    times_us.sort_unstable();
    println!(
        "one transfer in a warm container: {} us in the middle, {} at most",
        times_us[10], times_us[19]
    );
    done("a_warm_container_answers_at_once");
}
