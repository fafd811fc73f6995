//! What the reveals of a round agree on: a pure count, in which each operator counts once for what it says.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::Digest;
use instar_attest::release::Target;

/// One builder's reveal, as far as the count looks at it.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub operator: String,
    pub targets: BTreeMap<Target, Digest>,
    pub sbom: Digest,
}

/// The same bytes of one target, with the same SBOM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bytes {
    pub digest: Digest,
    pub sbom: Digest,
}

/// What the count comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Count {
    /// These targets of a release are agreed on, all with this SBOM.
    Agreed {
        targets: BTreeMap<Target, Digest>,
        sbom: Digest,
    },
    /// A required target has too few.
    Below { target: Target, best: usize },
    /// More than one answer has enough, so none can be trusted.
    Disagree { target: Target },
    /// The required targets are agreed on, but not with one SBOM.
    SbomsDiffer,
}

/// Counts. `required` is not empty; other targets join if they reach the same threshold.
pub(super) fn count(said: &[Said], required: &[Target], threshold: usize) -> Count {
    let mut agreed: BTreeMap<Target, Bytes> = BTreeMap::new();
    for target in required {
        let groups = groups(said, target);
        let mut enough = groups.iter().filter(|(_, who)| who.len() >= threshold);
        match (enough.next(), enough.next()) {
            (Some((bytes, _)), None) => agreed.insert(target.clone(), bytes.clone()),
            (Some(_), Some(_)) => {
                let target = target.clone();
                return Count::Disagree { target };
            }
            (None, _) => {
                let best = groups.values().map(BTreeSet::len).max().unwrap_or(0);
                let target = target.clone();
                return Count::Below { target, best };
            }
        };
    }
    let sboms: BTreeSet<Digest> = agreed.values().map(|b| b.sbom).collect();
    let (Some(sbom), 1) = (sboms.first().copied(), sboms.len()) else {
        return Count::SbomsDiffer;
    };
    let others: BTreeSet<&Target> = said.iter().flat_map(|s| s.targets.keys()).collect();
    for target in others.into_iter().filter(|t| !required.contains(t)) {
        let groups = groups(said, target);
        let mut enough = groups.iter().filter(|(_, who)| who.len() >= threshold);
        if let (Some((bytes, _)), None) = (enough.next(), enough.next())
            && bytes.sbom == sbom
        {
            agreed.insert(target.clone(), bytes.clone());
        }
    }
    let targets = agreed.into_iter().map(|(t, b)| (t, b.digest)).collect();
    Count::Agreed { targets, sbom }
}

/// What most operators say of the required targets: the release that a failed round would have had.
pub(super) fn best(
    said: &[Said],
    required: &[Target],
) -> Option<(BTreeMap<Target, Digest>, Digest)> {
    let mut targets = BTreeMap::new();
    let mut sbom = None;
    for target in required {
        let groups = groups(said, target);
        let most = groups.values().map(BTreeSet::len).max()?;
        let (bytes, _) = groups
            .iter()
            .find(|(b, who)| who.len() == most && sbom.is_none_or(|s| s == b.sbom))?;
        sbom = Some(bytes.sbom);
        targets.insert(target.clone(), bytes.digest);
    }
    sbom.map(|sbom| (targets, sbom))
}

/// Who says what of a target.
fn groups<'a>(said: &'a [Said], target: &Target) -> BTreeMap<Bytes, BTreeSet<&'a str>> {
    let mut groups: BTreeMap<Bytes, BTreeSet<&str>> = BTreeMap::new();
    for one in said {
        if let Some(digest) = one.targets.get(target) {
            let bytes = Bytes {
                digest: *digest,
                sbom: one.sbom,
            };
            groups.entry(bytes).or_default().insert(&one.operator);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(name: &str) -> Target {
        name.parse().unwrap()
    }

    fn said(operator: u8, bytes: u8, sbom: u8) -> Said {
        Said {
            operator: format!("operator-{operator}"),
            targets: BTreeMap::from([(target("x86_64-unknown-linux-gnu"), Digest::of(&[bytes]))]),
            sbom: Digest::of(&[sbom]),
        }
    }

    fn required() -> Vec<Target> {
        vec![target("x86_64-unknown-linux-gnu")]
    }

    #[test]
    fn an_operator_counts_once() {
        let two_of_one = [said(1, 7, 0), said(1, 7, 0), said(2, 7, 0)];
        let count = count(&two_of_one, &required(), 3);
        assert!(matches!(count, Count::Below { best: 2, .. }), "{count:?}");
    }

    #[test]
    fn two_answers_with_enough_are_none() {
        let split = [said(1, 7, 0), said(2, 7, 0), said(3, 8, 0), said(4, 8, 0)];
        assert!(matches!(
            count(&split, &required(), 2),
            Count::Disagree { .. }
        ));
    }

    #[test]
    fn another_sbom_is_another_answer() {
        let split = [said(1, 7, 0), said(2, 7, 0), said(3, 7, 1)];
        let count = count(&split, &required(), 3);
        assert!(matches!(count, Count::Below { best: 2, .. }), "{count:?}");
    }

    #[test]
    fn an_optional_target_joins_when_it_has_enough() {
        let arm = target("aarch64-unknown-linux-gnu");
        let mut all = [said(1, 7, 0), said(2, 7, 0), said(3, 7, 0)];
        for one in &mut all[..2] {
            one.targets.insert(arm.clone(), Digest::of(b"arm"));
        }
        let has_arm = |threshold| match count(&all, &required(), threshold) {
            Count::Agreed { targets, .. } => targets.contains_key(&arm),
            other => panic!("{other:?}"),
        };
        assert!(has_arm(2) && !has_arm(3));
    }

    proptest! {
        #[test]
        fn the_order_of_builders_does_not_matter(
            answers in prop::collection::vec((0u8..5, 0u8..3, 0u8..2), 0..8),
            threshold in 1usize..5,
            shift in 0usize..8,
        ) {
            let all: Vec<Said> = answers.iter().map(|(o, b, s)| said(*o, *b, *s)).collect();
            let mut other = all.clone();
            other.reverse();
            if !other.is_empty() {
                let by = shift % other.len();
                other.rotate_left(by);
            }
            prop_assert_eq!(count(&all, &required(), threshold), count(&other, &required(), threshold));
            prop_assert_eq!(best(&all, &required()), best(&other, &required()));
        }
    }
}
