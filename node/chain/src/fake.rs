//! A dapp host in memory, for tests: every dapp is a small key-value store, and releases can be told to misbehave.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::host::{DappCall, DappFailure, DappHost, DappResult, Verdict};
use crate::view::StateError;

/// How a release behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// As it should.
    #[default]
    Good,
    /// It ends before it answers.
    Crashes,
    /// It can't take over the state.
    MigrationCrashes,
    /// It writes what differs from node to node, as a program does that prints a hash map in its own order.
    Differs,
    /// It can't be run on this node.
    Abstains,
    /// It writes outside of what keys may be.
    BreaksProtocol,
}

/// A working dapp host. An entry `{"put": {"key": "text", …}}` sets keys; anything else is refused by `unknown-op`.
///
/// Entries of forks set keys below `<chain>/`, where the host is told that its dapps take them.
///
/// A migration notes the number of the release under the key `release`.
#[derive(Debug, Clone, Default)]
pub struct FakeHost {
    behaviours: BTreeMap<String, Behaviour>,
    /// Whether its dapps take entries of forks.
    pub takes_foreign: bool,
    node: u64,
    /// How many calls it had.
    pub calls: usize,
}

impl FakeHost {
    /// The host of one node; nodes differ in nothing but what [`Behaviour::Differs`] writes.
    pub fn of_node(node: u64) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }

    /// Tells a release, by root CID, how to behave.
    pub fn behave(&mut self, release: impl Into<String>, behaviour: Behaviour) {
        self.behaviours.insert(release.into(), behaviour);
    }
}

fn abstain(error: StateError) -> DappFailure {
    DappFailure::Abstain(error.to_string())
}

impl DappHost for FakeHost {
    fn run(&mut self, call: DappCall<'_>) -> Result<DappResult, DappFailure> {
        self.calls += 1;
        let behaviour = self.behaviours.get(call.release).copied();
        let behaviour = behaviour.unwrap_or_default();
        let mut result = DappResult::default();
        match behaviour {
            Behaviour::Crashes => return Err(DappFailure::Crash("exit code 101".into())),
            Behaviour::Abstains => return Err(DappFailure::Abstain("out of memory".into())),
            Behaviour::MigrationCrashes if call.migrate.is_some() => {
                return Err(DappFailure::Crash("exit code 101".into()));
            }
            Behaviour::BreaksProtocol => {
                result.writes.insert("a key with spaces".into(), None);
            }
            Behaviour::Differs => {
                let node = self.node.to_string();
                result
                    .writes
                    .insert("order".into(), Some(node.into_bytes()));
            }
            Behaviour::Good | Behaviour::MigrationCrashes => {}
        }
        if let Some(migration) = &call.migrate {
            let number = migration.to_number.to_string();
            result
                .writes
                .insert("release".into(), Some(number.into_bytes()));
        }
        for entry in &call.entries {
            if entry.chain.is_some() && !self.takes_foreign {
                result.verdicts.push(Verdict::foreign_not_taken());
                continue;
            }
            let prefix = entry.chain.map(|c| format!("{c}/")).unwrap_or_default();
            let Some(members) = entry.body.get("put").and_then(Value::as_object) else {
                result.verdicts.push(Verdict {
                    detail: Some("the one thing to be done here is a put".into()),
                    ok: false,
                    output: None,
                    rule: Some("unknown-op".into()),
                });
                continue;
            };
            for (key, value) in members {
                let text = value.as_str().unwrap_or_default();
                let key = format!("{prefix}{key}");
                result.writes.insert(key, Some(text.into()));
            }
            let release = call.state.get("release").map_err(abstain)?;
            let release = release.map(|r| String::from_utf8_lossy(&r).into_owned());
            result.verdicts.push(Verdict {
                detail: None,
                ok: true,
                output: Some(json!({"release": release})),
                rule: None,
            });
        }
        Ok(result)
    }
}
