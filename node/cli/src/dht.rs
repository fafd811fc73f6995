//! The options of verbs that take part in a DHT.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use instar_ipfs::dht::{DhtConfig, DhtNetwork};

/// Which DHT, as it is written on the command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Network {
    /// The public one of IPFS
    #[default]
    Public,
    /// That of a local network
    Lan,
}

/// Where to begin.
#[derive(clap::Args)]
pub struct DhtArgs {
    /// A member of the DHT to begin at, with its peer id; may be given several times. Without any, no DHT is used
    #[arg(long, value_name = "MULTIADDR")]
    dht: Vec<String>,
    /// Which DHT
    #[arg(long, value_name = "NETWORK", default_value = "public")]
    dht_network: Network,
}

impl DhtArgs {
    /// The configuration, if one is asked for.
    pub fn config(&self, serve: bool) -> Result<Option<DhtConfig>> {
        if self.dht.is_empty() && !serve {
            return Ok(None);
        }
        let bootstrap = self
            .dht
            .iter()
            .map(|text| {
                text.parse()
                    .with_context(|| format!("{text:?} is no multiaddress"))
            })
            .collect::<Result<_>>()?;
        let config = DhtConfig {
            bootstrap,
            network: match self.dht_network {
                Network::Public => DhtNetwork::Public,
                Network::Lan => DhtNetwork::Lan,
            },
            serve,
        };
        config.check()?;
        Ok(Some(config))
    }
}
