//! The protocol between the supervisor and the program: one JSON object a line, one answer for each request.
//!
//! The supervisor stays what it was while the program is swapped, so both must get on with older and newer ones:
//! members that a side does not know are ignored, an operation that it does not know is answered with
//! [`Refusal::UNKNOWN`], and `hello` settles which version is spoken.

use serde::{Deserialize, Serialize};

use crate::state::{Outcome, Quarantined, Release};

/// The versions of this protocol that are spoken here.
pub const PROTOCOLS: &[u32] = &[1];

/// The longest line, in bytes. A status with a full quarantine has about 100 kB.
pub const MAX_LINE_BYTES: u64 = 512 * 1024;

/// The environment variable that tells the program where the socket is.
pub const SOCKET_VARIABLE: &str = "INSTAR_UPGRADER_SOCKET";

/// A swap that is asked for. The bytes stand staged at `releases/<release>/<exe>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// A number that only goes up, so that a late or repeated request can be told.
    pub generation: u64,
    /// What to swap in.
    #[serde(flatten)]
    pub target: Release,
}

/// What one side asks of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// First in a connection: which versions the program speaks.
    Hello {
        /// Best first.
        protocols: Vec<u32>,
    },
    /// The program's health. Only the supervised program may tell it.
    Health {
        /// The highest height that it committed.
        height: u64,
        /// With how many peers it is connected.
        peers: u32,
    },
    /// Swap the program. Answered once the bytes were checked and the intent is on disk.
    Swap(Swap),
    /// What runs and what is under way.
    Status,
    /// Go back to the last good program, or to the one before it.
    Revert {
        /// Why, for the history.
        #[serde(default)]
        reason: String,
        /// Whether the bytes are never to be swapped in again.
        #[serde(default = "yes")]
        quarantine: bool,
    },
    /// Refuse swaps, or stop refusing them.
    Hold {
        /// Whether they are refused.
        on: bool,
    },
    /// From now on nothing below this protocol number is run.
    Floor {
        /// The lowest number; a lower one than before changes nothing.
        protocol: u32,
    },
}

fn yes() -> bool {
    true
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// A short kebab-case name.
    pub code: String,
    /// A sentence.
    pub message: String,
}

impl Refusal {
    /// The code for an operation that is not known.
    pub const UNKNOWN: &str = "unknown-operation";
    /// The code for a version that is not spoken.
    pub const VERSION: &str = "version";

    /// A refusal.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// The health that was reported last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The highest committed height.
    pub height: u64,
    /// Connected peers.
    pub peers: u32,
}

/// What runs and what is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Crashes in a row.
    pub crashes: u32,
    /// The name of the executable in a release's folder.
    pub exe: String,
    /// The lowest protocol number that may be run.
    pub floor: u32,
    /// The highest generation that was begun.
    pub generation: u64,
    /// The last program that proved good.
    pub good: Release,
    /// The health that was reported last.
    pub health: Option<Health>,
    /// Whether swaps are refused.
    pub held: bool,
    /// How the last swap ended.
    pub outcome: Option<Outcome>,
    /// What is under way: `steady`, `swapping`, `probation` or `reverting`.
    pub phase: String,
    /// The program's process id, if it runs.
    pub pid: Option<u32>,
    /// The good program before the last.
    pub previous: Option<Release>,
    /// What is never swapped in again.
    pub quarantine: Vec<Quarantined>,
    /// What runs, or is about to.
    pub running: Release,
    /// Whether a supervisor runs at all.
    pub supervised: bool,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Done.
    Ok(Done),
    /// Refused.
    Error(Refusal),
}

/// What is answered to a request that was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The version that is spoken, after `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
    /// The status, after `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
}

/// Answers `hello`: the best version that both speak.
pub(crate) fn answer_hello(theirs: &[u32]) -> Answer {
    match theirs.iter().find(|p| PROTOCOLS.contains(p)) {
        Some(&protocol) => Answer::Ok(Done {
            protocol: Some(protocol),
            status: None,
        }),
        None => Answer::Error(Refusal::new(
            Refusal::VERSION,
            format!("this supervisor speaks {PROTOCOLS:?}, not {theirs:?}"),
        )),
    }
}

/// Reads a request. What is not understood becomes the refusal to answer with.
pub(crate) fn parse_request(line: &[u8]) -> Result<Request, Refusal> {
    let value: serde_json::Value = serde_json::from_slice(line)
        .map_err(|e| Refusal::new("syntax", format!("not JSON: {e}")))?;
    let op = value
        .get("op")
        .and_then(|op| op.as_str())
        .unwrap_or_default();
    if ![
        "hello", "health", "swap", "status", "revert", "hold", "floor",
    ]
    .contains(&op)
    {
        let op: String = op.chars().take(40).collect();
        return Err(Refusal::new(
            Refusal::UNKNOWN,
            format!("no operation {op:?}"),
        ));
    }
    serde_json::from_value(value).map_err(|e| Refusal::new("syntax", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_members_are_ignored_and_newer_operations_answered() {
        let line = br#"{"op":"health","height":3,"peers":1,"mood":"good"}"#;
        assert_eq!(
            parse_request(line),
            Ok(Request::Health {
                height: 3,
                peers: 1
            })
        );
        let code = |line: &[u8]| parse_request(line).unwrap_err().code;
        assert_eq!(code(br#"{"op":"dance"}"#), Refusal::UNKNOWN);
        assert_eq!(code(br#"{"op":"health"}"#), "syntax");
        assert_eq!(code(b"health"), "syntax");
    }

    #[test]
    fn lines_are_frozen() {
        let swap = br#"{"op":"swap","generation":7,"release":"bafy1","file":"bafk2","protocol":1,"sha256":"5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"}"#;
        let Ok(Request::Swap(swap)) = parse_request(swap) else {
            panic!("no swap")
        };
        assert_eq!(
            (swap.generation, swap.target.release.as_str()),
            (7, "bafy1")
        );
        let text = |answer| serde_json::to_string(&answer).unwrap();
        assert_eq!(text(Answer::Ok(Done::default())), r#"{"ok":{}}"#);
        assert_eq!(text(answer_hello(&[2, 1])), r#"{"ok":{"protocol":1}}"#);
        assert_eq!(
            text(Answer::Error(Refusal::new("held", "swaps are held"))),
            r#"{"error":{"code":"held","message":"swaps are held"}}"#
        );
    }

    #[test]
    fn a_version_that_only_one_speaks_is_refused() {
        assert!(matches!(answer_hello(&[9]), Answer::Error(r) if r.code == Refusal::VERSION));
    }
}
