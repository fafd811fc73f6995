//! The lines of the conversation.

use instar_attest::json;
use instar_chain::Verdict;
use serde::Deserialize;
use serde_json::Value;

use crate::budget::{MAX_DETAIL_BYTES, MAX_OUTPUT_BYTES, MAX_RULE_BYTES};

/// What a dapp may say.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Said {
    /// It asks for a value; in answering a question, also for the one that the trunk has.
    Get {
        key: String,
        #[serde(default)]
        trunk: bool,
    },
    /// It asks for the keys with a prefix.
    Range { prefix: String, limit: u64 },
    /// It sets a key, if the entry at hand is accepted.
    Put { key: String, value: String },
    /// It deletes a key, if the entry at hand is accepted.
    Delete { key: String },
    /// It says whether the entry at hand takes effect.
    Verdict {
        id: String,
        ok: bool,
        #[serde(default)]
        rule: Option<String>,
        #[serde(default)]
        detail: Option<String>,
        #[serde(default)]
        output: Option<Value>,
    },
    /// It answers a question.
    Answer {
        ok: bool,
        #[serde(default)]
        rule: Option<String>,
        #[serde(default)]
        detail: Option<String>,
        #[serde(default)]
        output: Option<Value>,
    },
    /// It has nothing more to say.
    Done {
        #[serde(default)]
        veto: Option<Veto>,
    },
}

/// A dapp takes back everything that it did in this block.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Veto {
    /// The rule's short name.
    pub rule: String,
    /// A sentence for people.
    #[serde(default)]
    pub detail: Option<String>,
}

/// A verdict that may stand in a receipt, or what is wrong with it.
pub fn verdict(
    ok: bool,
    rule: Option<String>,
    detail: Option<String>,
    output: Option<Value>,
) -> Result<Verdict, String> {
    match (&rule, ok) {
        (None, false) => return Err("a refusal names no rule".to_owned()),
        (Some(_), true) => return Err("an acceptance names a rule".to_owned()),
        (Some(rule), false) if !is_rule(rule) => {
            return Err(format!("{rule:?} is no name of a rule"));
        }
        _ => {}
    }
    if detail
        .as_ref()
        .is_some_and(|detail| detail.len() > MAX_DETAIL_BYTES)
    {
        return Err(format!("a detail has more than {MAX_DETAIL_BYTES} bytes"));
    }
    if let Some(output) = &output {
        let bytes = json::to_vec(output)
            .map_err(|error| format!("an output can't stand in a receipt: {error}"))?;
        if bytes.len() > MAX_OUTPUT_BYTES {
            return Err(format!(
                "an output has {} bytes, at most {MAX_OUTPUT_BYTES} are allowed",
                bytes.len()
            ));
        }
    }
    Ok(Verdict {
        detail,
        ok,
        output,
        rule,
    })
}

/// Kebab case: lower-case words and numbers, with single hyphens between them.
fn is_rule(rule: &str) -> bool {
    rule.len() <= MAX_RULE_BYTES
        && rule.starts_with(|first: char| first.is_ascii_lowercase())
        && rule.split('-').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_verdict_is_checked_before_it_can_stand_in_a_receipt() {
        let no = |rule: &str| verdict(false, Some(rule.to_owned()), None, None);
        assert!(no("insufficient-funds").is_ok());
        for bad in ["", "Bad", "-x", "x-", "a--b", "a b", &"x".repeat(65)] {
            assert!(no(bad).is_err(), "{bad:?}");
        }
        assert!(verdict(false, None, None, None).is_err());
        assert!(verdict(true, Some("x".to_owned()), None, None).is_err());
        assert!(verdict(true, None, Some("x".repeat(MAX_DETAIL_BYTES + 1)), None).is_err());
        let with = |output| verdict(true, None, None, Some(output));
        assert!(with(json!({"balance": "5", "n": 5})).is_ok());
        assert!(with(json!(0.5)).is_err(), "no floats");
        assert!(with(json!(1_u64 << 53)).is_err(), "no large integers");
        assert!(with(json!({"ö": 1})).is_err(), "ASCII keys");
        assert!(with(json!("x".repeat(MAX_OUTPUT_BYTES))).is_err());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            r#"{"type":"emit","topic":"x","body":{}}"#,
            r#"{"type":"put","key":"a"}"#,
            r#"{"type":"put","key":"a","value":5}"#,
            r#"{"type":"get","key":"a","more":1}"#,
            r#"{"key":"a"}"#,
            "[]",
            "",
        ] {
            assert!(serde_json::from_str::<Said>(bad).is_err(), "{bad}");
        }
    }
}
