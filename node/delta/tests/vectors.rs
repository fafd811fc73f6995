//! A delta made once must apply for ever: `tests/vectors` holds an old and a new program, linked by hand, and the delta
//! between them. A maker may get better; a reader may not change.
#![allow(clippy::unwrap_used)]

mod support;

use support::{program, rebuild, wanted};

#[test]
fn the_delta_of_version_1_still_applies() {
    let old = include_bytes!("vectors/old");
    let new = include_bytes!("vectors/new");
    let delta = include_bytes!("vectors/delta");
    assert!(old[..] == program(&[0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 12])[..]);
    assert!(rebuild(old, delta, wanted(new)).unwrap() == new);
}
