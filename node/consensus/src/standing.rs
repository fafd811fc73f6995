//! Whether this validator may sign, or only follows.
//!
//! A lost or restored disk must not make an honest validator sign twice. It signs when its high-water mark is below the
//! height that it is about to decide, or at that height with the write-ahead log of that height beside it. Otherwise it
//! follows: until after its mark, or, if there is no mark, until after everything that it can have signed.

use std::collections::BTreeSet;
use std::path::Path;

use malachite_channel::NetworkRequest;
use malachite_types::{Validator as _, ValidatorSet as _};
use tokio::sync::mpsc;

use crate::app::App;
use crate::config::Config;
use crate::engine::WAL_NAME;
use crate::host::Host;
use crate::marks::{Found, Marks};
use crate::run::RunError;

/// After the highest head H among the others, a key may have signed at H + 1, and at H + 2 if H + 1 was decided but not
/// yet told. It signs again at H + 3.
pub(crate) const MARGIN: u64 = 3;

/// What this validator may do.
#[derive(Debug)]
pub(crate) enum Standing {
    /// Sign; the mark goes with it.
    Signs(Box<Marks>),
    /// Follow until this height begins, or until it is known which that is.
    Follows { until: Option<u64> },
}

impl Standing {
    /// Looks at the mark and the write-ahead log. `height` is the first one that is not final here.
    pub(crate) fn open(config: &Config, height: u64) -> Result<Self, RunError> {
        let key = config.key.public();
        let marks = match Marks::open(&config.marks_dir, key)? {
            Found::Mark(marks) => marks,
            // A key at the beginning of its chain. Whoever restores a key to an empty home must not get here: restore
            // the mark, or write an unreadable one.
            Found::Missing if height == 1 => Box::new(Marks::create(&config.marks_dir, key, 0)?),
            Found::Missing | Found::Unreadable => return Ok(Self::Follows { until: None }),
        };
        let (marked, _) = marks.last();
        let fits = marked < height
            || (marked == height && logged_height(&config.wal_dir)? == Some(height));
        if fits {
            Ok(Self::Signs(marks))
        } else {
            Ok(Self::Follows {
                until: Some(marked + 1),
            })
        }
    }
}

/// The height that the engine's write-ahead log belongs to.
fn logged_height(wal_dir: &Path) -> Result<Option<u64>, RunError> {
    let path = wal_dir.join(WAL_NAME);
    if !path.exists() {
        return Ok(None);
    }
    let log = malachite_wal::Log::open(path).map_err(RunError::Wal)?;
    Ok(Some(log.sequence()))
}

/// The highest head among those others who are heard and proved to be validators, if they are more than two thirds of
/// the power or everybody else.
pub(crate) async fn highest_head<H: Host>(
    app: &App<H>,
    network: &mpsc::Sender<NetworkRequest>,
) -> Option<u64> {
    let dump = NetworkRequest::dump_state(network).await.ok().flatten()?;
    let mut highest = app.at.height - 1;
    let mut heard = BTreeSet::new();
    for (peer, info) in &dump.peers {
        let tip = app.tips.of(&peer.to_bytes());
        if let (Some(key), Some(tip)) = (&info.consensus_public_key, tip)
            && key != app.own.as_bytes()
        {
            heard.insert(key.clone());
            highest = highest.max(tip);
        }
    }
    let (mut power, mut missing) = (0, 0);
    for member in app.members.iter() {
        if heard.contains(member.public_key().as_bytes().as_slice()) {
            power += member.voting_power();
        } else if *member.public_key() != app.own {
            missing += 1;
        }
    }
    let quorum = u128::from(power) * 3 > u128::from(app.members.total_voting_power()) * 2;
    (quorum || missing == 0).then_some(highest)
}
