//! A door: its owner grants and revokes, and the device at the door asks whether a member may enter.
//!
//! The device may be cut off for a week and know of entries that no block has merged. A grant counts only from the trunk, or
//! two halves of a network could each let in whom the other would not; a revocation counts as soon as it is heard of.

use instar_dapp::{Context, Dapp, Entry, Value, Verdict, object, text};

const OWNER: &str = "owner";

fn main() {
    instar_dapp::run(Door);
}

struct Door;

impl Dapp for Door {
    fn apply(&mut self, ctx: &mut Context<'_>, entry: &Entry) -> Verdict {
        if let Some(field) = entry.unknown_field(&["op", "member"]) {
            return Verdict::reject("unknown-field", format!("no entry of this door has a field {field:?}"));
        }
        let owner = ctx.get(OWNER);
        match (entry.text("op"), entry.text("member")) {
            (Some("claim"), None) if owner.is_none() => {
                ctx.put(OWNER, &entry.author);
                Verdict::accept()
            }
            (Some("claim"), None) => Verdict::reject("has-an-owner", "the door has an owner"),
            (Some("grant" | "revoke"), _) if owner.as_deref() != Some(&entry.author) => {
                Verdict::reject("not-the-owner", "only the door's owner says who may enter")
            }
            (Some("grant"), Some(member)) if is_account(member) => {
                ctx.put(key(member), &entry.id);
                Verdict::accept()
            }
            (Some("revoke"), Some(member)) if is_account(member) => {
                ctx.delete(key(member));
                Verdict::accept()
            }
            _ => Verdict::reject(
                "unknown-op",
                "{\"op\":\"claim\"}, or \"grant\" or \"revoke\" with a \"member\" in 64 lower-case hex digits",
            ),
        }
    }

    fn query(&mut self, ctx: &mut Context<'_>, question: &Value) -> Verdict {
        match (text(question, "op"), text(question, "member")) {
            (Some("may-enter"), Some(member)) if is_account(member) => {
                let allowed = ctx.get_final(&key(member)).is_some() && ctx.get(&key(member)).is_some();
                Verdict::answer(object([("allowed", Value::Boolean(allowed))]))
            }
            _ => Verdict::reject("unknown-question", "ask {\"op\":\"may-enter\",\"member\":\"<64 hex digits>\"}"),
        }
    }
}

fn key(member: &str) -> String {
    format!("member/{member}")
}

fn is_account(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
