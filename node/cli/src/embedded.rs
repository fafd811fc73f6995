//! The coin dapp that the program carries, as the demo uses it.

use instar_runtime::embedded;

/// The repository's files of one version of the coin.
pub fn coin(version: u32) -> Vec<(&'static str, &'static [u8])> {
    embedded::coin_source(version).expect("the demo asks for versions 1 to 3, which are embedded")
}
