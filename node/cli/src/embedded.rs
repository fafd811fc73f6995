//! The coin dapp that the program carries, as the demo uses it.

use anyhow::{Context as _, Result};
use instar_runtime::embedded;
use serde_json::Value;

/// The repository's files of one version of the coin.
pub fn coin(version: u32) -> Vec<(&'static str, &'static [u8])> {
    embedded::coin_source(version).expect("the demo asks for versions 1 to 3, which are embedded")
}

/// The coin's manifest.
pub fn coin_manifest() -> Result<Value> {
    serde_json::from_slice(embedded::coin_manifest()).context("the embedded manifest")
}
