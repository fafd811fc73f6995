//! in-toto layouts: a release policy in the form that stock `in-toto-verify` checks, and the links that go with it.
//!
//! A layout names the steps of a supply chain and who may do each: `review`, `build` with a threshold, `test`. It is
//! signed by an owner; each party signs a link, which says which files went in and came out. The layout ends in an
//! inspection that runs `true` in the folder to be checked and compares every file with what the builders linked; without
//! it in-toto looks at no file at all, and with a closing `ALLOW *` it would take any.

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::json::{self, JsonError};
use crate::key::{PublicKey, SecretKey};
use crate::received::Named;
use crate::release_policy::ReleasePolicy;
use crate::review::ssh_public_key;
use crate::statement::PAYLOAD_TYPE;
use crate::verify_key::VerifyKey;

/// The file that stands for the source in links: one line, the commit's id.
pub const SOURCE_NAME: &str = "source-commit";

/// Why there is no layout for a policy.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// in-toto knows keys only.
    #[error("{0} is known by a certificate; an in-toto layout can name keys only")]
    Keyless(String),
    /// in-toto counts keys, and two of one operator would count twice.
    #[error(
        "two builders belong to {0}; in-toto counts keys, not operators, so the layout would accept less than the policy"
    )]
    OperatorTwice(String),
    /// Not an RFC 3339 time in UTC.
    #[error("{0:?} is no time like 2030-01-01T00:00:00Z")]
    Expires(String),
    /// It can't be written.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// The id that in-toto gives a key: SHA-256 of its canonical JSON.
pub fn key_id(key: &VerifyKey) -> String {
    let text = json::to_vec(&key_object(key)).expect("three short ASCII fields");
    Digest::of(&text).to_hex()
}

fn key_object(key: &VerifyKey) -> Value {
    match key {
        VerifyKey::Ed25519(public) => {
            json!({"keytype": "ed25519", "keyval": {"public": public}, "scheme": "ed25519"})
        }
        VerifyKey::P256(_) => json!({
            "keytype": "ecdsa", "keyval": {"public": key.to_pem()}, "scheme": "ecdsa-sha2-nistp256",
        }),
    }
}

/// The layout for a policy, to be signed by [`sign`]. `expires` is what in-toto asks for: a time like
/// `2030-01-01T00:00:00Z`.
pub fn layout(policy: &ReleasePolicy, expires: &str) -> Result<Value, LayoutError> {
    if !is_time(expires) {
        return Err(LayoutError::Expires(expires.chars().take(40).collect()));
    }
    let mut keys = Map::new();
    let mut add = |key: &VerifyKey| {
        let id = key_id(key);
        let mut object = key_object(key);
        object["keyid"] = json!(id);
        keys.insert(id.clone(), object);
        id
    };
    let mut steps = Vec::new();
    let mut builders = Vec::new();
    let mut operators = std::collections::BTreeSet::new();
    for party in &policy.builders.of {
        let key = party.key.as_ref();
        let key = key.ok_or_else(|| LayoutError::Keyless(party.name.clone()))?;
        if !operators.insert(&party.operator) {
            return Err(LayoutError::OperatorTwice(party.operator.clone()));
        }
        builders.push(add(key));
    }
    let mut from_review = json!([["ALLOW", SOURCE_NAME], ["DISALLOW", "*"]]);
    if let Some(reviews) = &policy.reviews {
        let reviewers: Vec<String> = reviews
            .of
            .iter()
            .filter_map(|m| ssh_public_key(&m.ssh))
            .map(|key| add(&VerifyKey::Ed25519(key)))
            .collect();
        from_review = json!([
            ["MATCH", SOURCE_NAME, "WITH", "PRODUCTS", "FROM", "review"],
            ["DISALLOW", "*"],
        ]);
        let products = json!([["CREATE", SOURCE_NAME], ["DISALLOW", "*"]]);
        let nothing = json!([["DISALLOW", "*"]]);
        steps.push(step(
            "review",
            &reviewers,
            reviews.threshold,
            nothing,
            products,
        ));
    }
    let made = json!([["CREATE", "*"], ["DISALLOW", "*"]]);
    steps.push(step(
        "build",
        &builders,
        policy.builders.threshold,
        from_review,
        made,
    ));
    if let Some(tests) = &policy.tests {
        let mut testers = Vec::new();
        for party in &tests.of {
            let key = party.key.as_ref();
            testers.push(add(
                key.ok_or_else(|| LayoutError::Keyless(party.name.clone()))?
            ));
        }
        let built = json!([
            ["MATCH", "*", "WITH", "PRODUCTS", "FROM", "build"],
            ["DISALLOW", "*"]
        ]);
        let nothing = json!([["DISALLOW", "*"]]);
        steps.push(step("test", &testers, tests.threshold, built, nothing));
    }
    let inspection = json!({
        "_type": "inspection",
        "name": "files",
        // in-toto records the files of the folder whenever it runs something; nothing has to happen.
        "run": ["true"],
        "expected_materials": [
            ["MATCH", "*", "WITH", "PRODUCTS", "FROM", "build"],
            ["DISALLOW", "*"],
        ],
        "expected_products": [],
    });
    Ok(json!({
        "_type": "layout",
        "expires": expires,
        "readme": "Made by Instar from a release policy. See docs/guides/auditor.md.",
        "keys": keys,
        "steps": steps,
        "inspect": [inspection],
    }))
}

fn step(name: &str, keys: &[String], threshold: u32, materials: Value, products: Value) -> Value {
    json!({
        "_type": "step",
        "name": name,
        "expected_command": [],
        "expected_materials": materials,
        "expected_products": products,
        "pubkeys": keys,
        "threshold": threshold,
    })
}

/// A link of one party: which files went into a step and which came out.
pub fn link(step: &str, materials: &[Named], products: &[Named]) -> Value {
    let artifacts = |files: &[Named]| -> Map<String, Value> {
        files
            .iter()
            .map(|f| (f.name.clone(), json!({"sha256": f.sha256})))
            .collect()
    };
    json!({
        "_type": "link",
        "name": step,
        "command": [],
        "materials": artifacts(materials),
        "products": artifacts(products),
        "byproducts": {},
        "environment": {},
    })
}

/// What stands for the source commit in links.
pub fn source_artifact(commit: &str) -> Named {
    Named {
        name: SOURCE_NAME.into(),
        sha256: Digest::of(format!("{commit}\n").as_bytes()),
    }
}

/// The file name under which in-toto looks for a party's link.
pub fn link_name(step: &str, key: &PublicKey) -> String {
    let id = key_id(&VerifyKey::Ed25519(*key));
    format!("{step}.{}.link", &id[..8])
}

/// Signs a layout or link as the DSSE envelope that in-toto reads.
pub fn sign(key: &SecretKey, document: &Value) -> Result<Vec<u8>, JsonError> {
    let mut envelope = Envelope::sign(key, PAYLOAD_TYPE, json::to_vec(document)?);
    for signature in &mut envelope.signatures {
        signature.keyid = key_id(&VerifyKey::Ed25519(key.public()));
    }
    json::to_vec(&envelope)
}

fn is_time(text: &str) -> bool {
    let form = b"dddd-dd-ddTdd:dd:ddZ";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(c, f)| match f {
            b'd' => c.is_ascii_digit(),
            other => c == *other,
        })
}
