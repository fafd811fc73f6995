//! The door dapp, in containers: what a device that is cut off answers. A grant counts from the trunk alone, a revocation
//! from wherever it is known.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use instar_chain::{DappEntry, MemoryState};
use serde_json::{Value, json};
use support::{Host, account, ask, build, entry, release};

const DAPP: &str = "door";

fn main() {
    instar_sandbox::init();
    let mut host = Host::new();
    let manifest = include_bytes!("../../dapps/door/dapp.json");
    let release = release(&host.blocks, DAPP, &build(1, DAPP), manifest);
    only_the_owner_grants(&mut host, &release);
    a_grant_counts_from_the_trunk_and_a_revocation_from_anywhere(&mut host, &release);
    println!("test result: ok. 2 tests");
}

fn said(author: u8, nonce: u64, body: Value) -> DappEntry {
    entry(DAPP, account(author), nonce, body)
}

/// The state after these entries, and what became of them.
fn after(
    host: &mut Host,
    release: &str,
    state: &MemoryState,
    entries: Vec<DappEntry>,
) -> (MemoryState, Vec<Option<String>>) {
    let result = host.run(DAPP, release, state, entries).unwrap();
    let mut next = state.clone();
    next.apply(&result.writes);
    (next, result.verdicts.into_iter().map(|v| v.rule).collect())
}

fn only_the_owner_grants(host: &mut Host, release: &str) {
    let member = json!({"op": "grant", "member": account(2)});
    let entries = vec![
        said(1, 0, member.clone()),
        said(1, 1, json!({"op": "claim"})),
        said(2, 0, json!({"op": "claim"})),
        said(2, 1, member.clone()),
        said(1, 2, member),
        said(1, 3, json!({"op": "grant", "member": "somebody"})),
    ];
    let (state, rules) = after(host, release, &MemoryState::default(), entries);
    let rules: Vec<&str> = rules.iter().map(|r| r.as_deref().unwrap_or("")).collect();
    assert_eq!(
        rules,
        [
            "not-the-owner",
            "",
            "has-an-owner",
            "not-the-owner",
            "",
            "unknown-op"
        ]
    );
    assert_eq!(state.iter().count(), 2);
    println!("test only_the_owner_grants ... ok");
}

fn a_grant_counts_from_the_trunk_and_a_revocation_from_anywhere(host: &mut Host, release: &str) {
    let about =
        |op: &str, who: u8, nonce: u64| said(1, nonce, json!({"op": op, "member": account(who)}));
    let begin = vec![
        said(1, 0, json!({"op": "claim"})),
        about("grant", 2, 1),
        about("grant", 3, 2),
    ];
    let (trunk, _) = after(host, release, &MemoryState::default(), begin);
    let unmerged = vec![about("revoke", 2, 3), about("grant", 4, 4)];
    let (known, rules) = after(host, release, &trunk, unmerged);
    assert_eq!(rules, [None, None]);
    let (trunk, known) = (whole(&trunk), whole(&known));
    let mut may = |who: u8, state: &MemoryState, trunk: &MemoryState| {
        let question = json!({"op": "may-enter", "member": account(who)});
        ask(host, DAPP, release, (state, trunk), question).unwrap()["allowed"] == true
    };
    let provisional = [2, 3, 4].map(|who| may(who, &known, &trunk));
    assert_eq!(provisional, [false, true, false]);
    let of_trunk = [2, 3, 4].map(|who| may(who, &trunk, &trunk));
    assert_eq!(of_trunk, [true, true, false]);
    let merged = [2, 3, 4].map(|who| may(who, &known, &known));
    assert_eq!(
        merged,
        [false, true, true],
        "once it is merged a grant counts"
    );
    println!("test a_grant_counts_from_the_trunk_and_a_revocation_from_anywhere ... ok");
}

/// The dapp's own key space as it stands in the whole state.
fn whole(own: &MemoryState) -> MemoryState {
    let mut whole = MemoryState::default();
    for (key, value) in own.iter() {
        whole.insert(format!("d/{DAPP}/{key}"), value);
    }
    whole
}
