//! One bundle: whose it is, and what it says about the files at hand.

use std::collections::BTreeMap;

use super::{Counted, Document, ReleaseInput, TEST_PASSED, TEST_RESULT_TYPE};
use crate::received::{Claim, Material, Named, Received, ReceivedError};
use crate::release_policy::{Party, Quorum, ReleasePolicy};
use crate::statement::PREDICATE_TYPE;
use crate::verify_key::VerifyKey;

/// The rule that refuses a bundle, and why.
type Refused = (&'static str, String);

/// Whose bundle this is and what it says; or the rule that refuses it.
pub(super) fn read_bundle<'p>(
    bundle: &Document<'_>,
    input: &ReleaseInput<'_>,
    policy: &'p ReleasePolicy,
) -> Result<(&'static str, Counted<'p>, String), Refused> {
    let malformed = |e: ReceivedError| ("attestation-malformed", e.to_string());
    let received = Received::parse(bundle.bytes).map_err(|e| match e {
        ReceivedError::PayloadType(_) => ("attestation-payload-type", e.to_string()),
        other => malformed(other),
    })?;
    let claim = Claim::parse(&received.payload).map_err(malformed)?;
    let (role, quorum) = match (claim.predicate_type.as_str(), &policy.tests) {
        (PREDICATE_TYPE, _) => ("build", &policy.builders),
        (TEST_RESULT_TYPE, Some(tests)) => ("test", tests),
        (other, _) => {
            let detail = format!("the policy asks for nothing of type {other:.120}");
            return Err(("attestation-other-predicate", detail));
        }
    };
    let (party, known_by) = match received.material {
        Material::Key => signer_by_key(&received, quorum)?,
        Material::Certificate => signer_by_certificate(bundle.bytes, input, quorum)?,
    };
    let whose = |(rule, detail): Refused| (rule, format!("{}: {detail}", party.name));
    let commit = match role {
        "build" => check_provenance(&claim, policy).map_err(whose)?,
        _ => {
            let result = claim.text("/result").unwrap_or_default();
            if result != TEST_PASSED {
                let detail = format!("the result is {result:.40?}, not {TEST_PASSED:?}");
                return Err(whose(("test-not-passed", detail)));
            }
            String::new()
        }
    };
    check_subjects(&claim, input.files).map_err(whose)?;
    Ok((
        role,
        Counted {
            party,
            claim,
            commit,
        },
        known_by,
    ))
}

fn signer_by_key<'p>(
    received: &Received,
    quorum: &'p Quorum<Party>,
) -> Result<(&'p Party, String), Refused> {
    let signed = received.signed_bytes();
    let with_key = |party: &'p Party| party.key.as_ref().map(|key| (party, key));
    // The hint is believed only so far that its key is tried first, and that it explains a refusal.
    let hinted = |key: &VerifyKey| received.hints.contains(&key.key_id());
    let mut parties: Vec<_> = quorum.of.iter().filter_map(with_key).collect();
    parties.sort_by_key(|(_, key)| !hinted(key));
    if let Some((party, key)) = parties
        .iter()
        .find(|(_, key)| key.verifies(&signed, &received.signature))
    {
        return Ok((party, key.key_id()));
    }
    match parties.iter().find(|(_, key)| hinted(key)) {
        Some((party, key)) => {
            let detail = format!(
                "the signature is not valid for {}'s {} key {:.16}… over this payload",
                party.name,
                key.algorithm(),
                key.key_id()
            );
            Err(("attestation-signature", detail))
        }
        None => {
            let detail = format!(
                "signed by a key that the policy does not name ({:.80?})",
                received.hints
            );
            Err(("unknown-signer", detail))
        }
    }
}

#[cfg(feature = "keyless")]
fn signer_by_certificate<'p>(
    bundle: &[u8],
    input: &ReleaseInput<'_>,
    quorum: &'p Quorum<Party>,
) -> Result<(&'p Party, String), Refused> {
    let Some(root) = input.trusted_root else {
        let detail = "it is signed with a certificate, and no trusted root is given to check it by";
        return Err(("keyless-no-trusted-root", detail.into()));
    };
    let certified =
        crate::keyless::verify(bundle, root).map_err(|error| (error.rule(), error.to_string()))?;
    let all = quorum.of.iter();
    let mut mismatch = "the policy names no keyless party for this".to_owned();
    let mut rule = "unknown-signer";
    for (party, wanted) in all.filter_map(|p| p.keyless.as_ref().map(|i| (p, i))) {
        match certified.matches(wanted) {
            Ok(()) => return Ok((party, certified.to_string())),
            Err((which, detail)) => (rule, mismatch) = (which, format!("{}: {detail}", party.name)),
        }
    }
    Err((rule, mismatch))
}

#[cfg(not(feature = "keyless"))]
fn signer_by_certificate<'p>(
    _: &[u8],
    _: &ReleaseInput<'_>,
    _: &'p Quorum<Party>,
) -> Result<(&'p Party, String), Refused> {
    let detail =
        "it is signed with a certificate, and this program is built without the feature `keyless`";
    Err(("keyless-not-built-in", detail.into()))
}

/// Recipe and source of a provenance; the commit that it names.
fn check_provenance(claim: &Claim, policy: &ReleasePolicy) -> Result<String, Refused> {
    let build_type = claim.text("/buildDefinition/buildType").unwrap_or_default();
    if !policy.allows(build_type) {
        let detail = format!("built by {build_type:.120?}, which the policy does not allow");
        return Err(("recipe-not-allowed", detail));
    }
    let commits = claim.commits();
    let (Some(commit), 1) = (commits.first(), commits.len()) else {
        let detail = format!("it names {} source commits, not one", commits.len());
        return Err(("source-commit", detail));
    };
    let rule = &policy.source;
    if rule
        .commit
        .as_deref()
        .is_some_and(|wanted| wanted != *commit)
    {
        return Err(("source-commit", format!("built from commit {commit:.64}")));
    }
    let parameter = |name: &str| {
        claim
            .text(&format!("/buildDefinition/externalParameters/{name}"))
            .unwrap_or_default()
    };
    let repository = parameter("repository");
    if rule
        .repository
        .as_deref()
        .is_some_and(|wanted| wanted != repository)
    {
        let detail = format!("built from the repository {repository:.200?}");
        return Err(("source-repository", detail));
    }
    let reference = parameter("ref");
    if !rule.allows_ref(reference) {
        return Err((
            "source-ref",
            format!("built from the ref {reference:.200?}"),
        ));
    }
    Ok((*commit).to_owned())
}

/// No subject may contradict a file at hand; what is not at hand is another target's.
fn check_subjects(claim: &Claim, files: &[Named]) -> Result<(), Refused> {
    let have: BTreeMap<&str, _> = files.iter().map(|f| (f.name.as_str(), f.sha256)).collect();
    let mut shared = 0;
    for subject in &claim.subjects {
        match have.get(subject.name.as_str()) {
            Some(digest) if *digest != subject.sha256 => {
                let detail = format!(
                    "{} has sha256 {digest} here, attested is {}",
                    subject.name, subject.sha256
                );
                return Err(("subject-differs", detail));
            }
            Some(_) => shared += 1,
            None => {}
        }
    }
    if shared == 0 {
        return Err((
            "subject-elsewhere",
            "none of its subjects is a file of this release".into(),
        ));
    }
    Ok(())
}
