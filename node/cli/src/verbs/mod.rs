//! The verbs, one file each.

pub mod add;
pub mod attest;
pub mod audit;
pub mod build;
pub mod chain;
pub mod dapp;
pub mod delta;
pub mod doctor;
pub mod fork;
mod founders;
pub mod get;
pub mod govern;
pub mod init;
pub mod join;
pub mod key;
pub mod node;
pub mod pin;
pub mod policy;
pub mod propose;
pub mod receipt;
pub mod send;
pub mod serve;
pub mod store;
pub mod upgrade;
pub mod upgrader;
pub mod verify;
pub mod vote;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::client::Client;

/// How a verb reaches a node.
#[derive(clap::Args, Clone)]
pub struct NodeArgs {
    /// The node's HTTP API
    #[arg(
        long,
        value_name = "URL",
        env = "INSTAR_NODE",
        default_value = "http://127.0.0.1:8080"
    )]
    pub node: String,
    /// File with the node's write token (in the node's home: `token`)
    #[arg(long, value_name = "FILE", env = "INSTAR_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

impl NodeArgs {
    /// A client; the token is read when a file is named.
    pub fn client(&self) -> Result<Client> {
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        Ok(Client::new(&self.node, token))
    }
}

pub(crate) fn read_token(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the token file {} can't be read", path.display()))?;
    Ok(text.trim().to_owned())
}
