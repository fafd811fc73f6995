//! `dapp.json`: what a dapp says about itself.

use instar_chain::host::DappEntry;
use instar_chain::view::is_key;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::MAX_KEY_BYTES;

/// The version of the conversation that this host speaks.
pub const ABI: u32 = 1;

/// The largest manifest.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;
/// How many keys of an entry can be fetched ahead.
const MAX_WANTS: usize = 16;

/// What a dapp says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the conversation.
    pub abi: u32,
    /// The program in the image, and its arguments.
    pub command: Vec<String>,
    /// Whether it takes entries of forks that are merged. The same key on a fork is another author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// The topic of the entries that it is asked about: its name.
    pub topic: String,
    /// Templates of the keys that it will want for each entry, so that it needn't ask: `{author}`, `{id}` and
    /// `{body.<field>}` are replaced.
    #[serde(default)]
    pub wants: Vec<String>,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// It is too large.
    #[error("the manifest has {0} bytes, at most {MAX_MANIFEST_BYTES} are allowed")]
    TooLarge(usize),
    /// It is not of the right shape.
    #[error("the manifest can't be read: {0}")]
    Syntax(String),
    /// It is for another host.
    #[error("the dapp speaks ABI {0}, this host speaks {ABI}")]
    OtherAbi(u32),
    /// It names no program.
    #[error("the manifest's command must begin with an absolute path")]
    NoCommand,
    /// It wants too much, or in a way that is not understood.
    #[error(
        "the manifest wants {0:?}: at most {MAX_WANTS} templates with {{author}}, {{id}} and {{body.<field>}}"
    )]
    BadWant(String),
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| ManifestError::Syntax(error.to_string()))?;
        if manifest.abi != ABI {
            return Err(ManifestError::OtherAbi(manifest.abi));
        }
        if !manifest
            .command
            .first()
            .is_some_and(|program| program.starts_with('/'))
        {
            return Err(ManifestError::NoCommand);
        }
        if manifest.wants.len() > MAX_WANTS {
            return Err(ManifestError::BadWant(format!(
                "{} keys",
                manifest.wants.len()
            )));
        }
        for want in &manifest.wants {
            if parts(want).is_none() {
                return Err(ManifestError::BadWant(want.clone()));
            }
        }
        Ok(manifest)
    }

    /// The keys that the dapp will want for an entry; those that its body doesn't complete are left out.
    pub fn wanted_keys(&self, entry: &DappEntry) -> Vec<String> {
        self.wants
            .iter()
            .filter_map(|want| fill(want, entry))
            .collect()
    }
}

/// A piece of a template.
enum Part<'t> {
    Text(&'t str),
    Author,
    Id,
    Body(&'t str),
}

fn parts(template: &str) -> Option<Vec<Part<'_>>> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        found.push(Part::Text(text));
        found.push(match name {
            "author" => Part::Author,
            "id" => Part::Id,
            _ => Part::Body(
                name.strip_prefix("body.")
                    .filter(|field| !field.is_empty())?,
            ),
        });
        rest = after;
    }
    found.push(Part::Text(rest));
    Some(found)
}

fn fill(template: &str, entry: &DappEntry) -> Option<String> {
    let mut key = String::new();
    for part in parts(template)? {
        match part {
            Part::Text(text) => key.push_str(text),
            Part::Author => key.push_str(&entry.author.to_string()),
            Part::Id => key.push_str(&entry.id.to_string()),
            Part::Body(field) => match entry.body.get(field)? {
                Value::String(text) => key.push_str(text),
                _ => return None,
            },
        }
        if key.len() > MAX_KEY_BYTES {
            return None;
        }
    }
    is_key(&key).then_some(key)
}

#[cfg(test)]
mod tests {
    use instar_attest::{Digest, SecretKey};
    use serde_json::json;

    use super::*;

    fn entry(body: Value) -> DappEntry {
        let author = SecretKey::from_seed(&[7; 32]).public();
        DappEntry {
            author,
            body,
            chain: None,
            id: Digest::of(b"entry"),
            nonce: 1,
            topic: "coin".to_owned(),
        }
    }

    fn wanting(want: &str) -> Result<Manifest, ManifestError> {
        let text = json!({"abi": 1, "command": ["/bin/coin"], "topic": "coin", "wants": [want]})
            .to_string();
        Manifest::parse(text.as_bytes())
    }

    #[test]
    fn templates_are_filled_from_the_entry() {
        let entry = entry(json!({"to": "somebody", "amount": 5}));
        let keys = |want| wanting(want).unwrap().wanted_keys(&entry);
        assert_eq!(
            keys("balance/{author}"),
            [format!("balance/{}", entry.author)]
        );
        assert_eq!(
            keys("x/{body.to}/{id}"),
            [format!("x/somebody/{}", entry.id)]
        );
        assert_eq!(keys("constant"), ["constant"]);
        assert!(
            keys("{body.amount}").is_empty(),
            "only texts are put into keys"
        );
        assert!(keys("{body.absent}").is_empty());
    }

    #[test]
    fn a_body_can_t_make_a_bad_key() {
        for bad in [
            "a b".to_owned(),
            "ö".to_owned(),
            "x".repeat(MAX_KEY_BYTES + 1),
        ] {
            assert!(
                wanting("{body.to}")
                    .unwrap()
                    .wanted_keys(&entry(json!({"to": bad})))
                    .is_empty()
            );
        }
    }

    #[test]
    fn templates_that_are_not_understood_are_refused() {
        for bad in ["{other}", "{body.}", "{body.to", "{}"] {
            assert_eq!(
                wanting(bad),
                Err(ManifestError::BadWant(bad.to_owned())),
                "{bad}"
            );
        }
        let other = br#"{"abi":2,"command":["/x"],"topic":"coin"}"#;
        assert_eq!(Manifest::parse(other), Err(ManifestError::OtherAbi(2)));
        let relative = br#"{"abi":1,"command":["x"],"topic":"coin"}"#;
        assert_eq!(Manifest::parse(relative), Err(ManifestError::NoCommand));
    }
}
