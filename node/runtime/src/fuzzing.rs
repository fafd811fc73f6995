//! The decoder of what a dapp says, as a plain function: for a fuzzer, and for the corpus that the tests replay. It says
//! whether the line was understood, and panics where a decoder breaks a promise.

use instar_attest::json;

use crate::budget::{MAX_DETAIL_BYTES, MAX_OUTPUT_BYTES, MAX_RULE_BYTES};
use crate::wire::{Said, verdict};

/// One line of a dapp. A verdict in it is within the bounds of a receipt, or is refused.
pub fn line(bytes: &[u8]) -> bool {
    let Ok(said) = serde_json::from_slice::<Said>(bytes) else {
        return false;
    };
    let said = match said {
        Said::Verdict {
            ok,
            rule,
            detail,
            output,
            ..
        }
        | Said::Answer {
            ok,
            rule,
            detail,
            output,
        } => verdict(ok, rule, detail, output),
        Said::Done { veto: Some(veto) } => verdict(false, Some(veto.rule), veto.detail, None),
        _ => return true,
    };
    let Ok(verdict) = said else { return false };
    assert_eq!(verdict.ok, verdict.rule.is_none(), "a refusal has a rule");
    assert!(verdict.rule.is_none_or(|rule| rule.len() <= MAX_RULE_BYTES));
    assert!(
        verdict
            .detail
            .is_none_or(|detail| detail.len() <= MAX_DETAIL_BYTES)
    );
    if let Some(output) = verdict.output {
        let bytes = json::to_vec(&output).expect("an output can stand in a receipt");
        assert!(bytes.len() <= MAX_OUTPUT_BYTES);
        let again = json::from_slice::<serde_json::Value>(&bytes, MAX_OUTPUT_BYTES);
        assert_eq!(again.ok(), Some(output), "a receipt says something else");
    }
    true
}
