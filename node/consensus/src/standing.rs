//! Whether this validator may sign, or only follows.
//!
//! A lost or restored disk must not make an honest validator sign twice. It signs when its high-water mark is below the
//! height that it is about to decide, or at that height with the write-ahead log of that height beside it. Otherwise it
//! follows: until after its mark, or, if there is no mark, until after everything that it can have signed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use instar_attest::PublicKey;
use malachite_channel::{ConsensusRequest, NetworkRequest};
use malachite_types::{Validator as _, ValidatorSet as _};
use tokio::sync::mpsc;

use crate::app::App;
use crate::config::Config;
use crate::context::{Ctx, Members};
use crate::engine::WAL_NAME;
use crate::event::Event;
use crate::host::Host;
use crate::marks::{Found, Marks};
use crate::overheard::Proofs;
use crate::run::RunError;
use crate::signing::Strict;

/// After the highest head H among the others, a key may have signed at H + 1, and at H + 2 if H + 1 was decided but not
/// yet told. It signs again at H + 3.
const MARGIN: u64 = 3;

/// The height from which on a key without its mark signs again. A peer may claim any head.
pub(crate) fn after_everything_signed(head: u64) -> u64 {
    head.saturating_add(MARGIN)
}

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
        let found = match Marks::open(&config.marks_dir, key)? {
            // A key at the beginning of its chain. Whoever restores a key to an empty home must not get here: restore
            // the mark, or write an unreadable one.
            Found::Missing if height == 1 => {
                Found::Mark(Box::new(Marks::create(&config.marks_dir, key, 0)?))
            }
            found => found,
        };
        Self::of(found, height, || logged_height(&config.wal_dir))
    }

    /// What follows from the mark that was found; `logged` is the height of the write-ahead log.
    pub(crate) fn of(
        found: Found,
        height: u64,
        logged: impl FnOnce() -> Result<Option<u64>, RunError>,
    ) -> Result<Self, RunError> {
        let marks = match found {
            Found::Mark(marks) => marks,
            Found::Missing | Found::Unreadable => return Ok(Self::Follows { until: None }),
        };
        let (marked, _) = marks.last();
        let fits = marked < height
            || (marked == height && !marks.is_sealed() && logged()? == Some(height));
        if fits {
            Ok(Self::Signs(marks))
        } else {
            Self::seal(marks, marked)
        }
    }

    /// The write-ahead log of this height can't be used.
    pub(crate) fn without_log(config: &Config, height: u64) -> Result<Self, RunError> {
        Self::sealed(Marks::open(&config.marks_dir, config.key.public())?, height)
    }

    /// Nothing more is signed at this height, whatever mark was found.
    pub(crate) fn sealed(found: Found, height: u64) -> Result<Self, RunError> {
        match found {
            Found::Mark(marks) => Self::seal(marks, height),
            Found::Missing | Found::Unreadable => Ok(Self::Follows { until: None }),
        }
    }

    /// Durable, because a follower's engine empties the write-ahead log: a restart would take it for a fresh one.
    fn seal(mut marks: Box<Marks>, height: u64) -> Result<Self, RunError> {
        marks.seal(height)?;
        Ok(Self::Follows {
            until: Some(marks.last().0 + 1),
        })
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

/// The connected peers that proved to hold a consensus key: the bytes of the peer's id, and the key.
async fn proven(
    network: &mpsc::Sender<NetworkRequest>,
    proofs: &Proofs,
    verifier: &Strict,
) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let dump = NetworkRequest::dump_state(network).await.ok()?;
    let peers = dump.into_iter().flat_map(|dump| dump.peers);
    let proven = peers.filter_map(|(peer, info)| {
        let peer = peer.to_bytes();
        let key = info
            .consensus_public_key
            .or_else(|| proofs.of(&peer, verifier))?;
        Some((peer, key))
    });
    Some(proven.collect())
}

/// The highest head among those others who are heard and proved to be validators, if they are more than two thirds of
/// the power or everybody else.
pub(crate) async fn highest_head<H: Host>(
    app: &App<H>,
    network: &mpsc::Sender<NetworkRequest>,
) -> Option<u64> {
    let proven = proven(network, &app.proofs, &app.verifier).await?;
    let heard = proven
        .into_iter()
        .filter_map(|(peer, key)| Some((key, app.tips.of(&peer)?)));
    highest_of(app, heard)
}

/// [`highest_head`] of the peers that are heard: the consensus key that each proved, and the height that it names.
pub(crate) fn highest_of<H: Host>(
    app: &App<H>,
    peers: impl Iterator<Item = (Vec<u8>, u64)>,
) -> Option<u64> {
    let mut highest = app.at.height - 1;
    let mut heard = BTreeSet::new();
    for (key, tip) in peers.filter(|(key, _)| key != app.own.as_bytes()) {
        heard.insert(key);
        highest = highest.max(tip);
    }
    let missing = app.members.iter().any(|member| {
        let key = member.public_key();
        *key != app.own && !heard.contains(key.as_bytes().as_slice())
    });
    (!missing || is_quorum(&app.members, &heard)).then_some(highest)
}

/// Whether validators with these consensus keys have more than two thirds of the power.
pub(crate) fn is_quorum(members: &Members, keys: &BTreeSet<Vec<u8>>) -> bool {
    let power: u64 = members
        .iter()
        .filter(|member| keys.contains(member.public_key().as_bytes().as_slice()))
        .map(|member| member.voting_power())
        .sum();
    u128::from(power) * 3 > u128::from(members.total_voting_power()) * 2
}

/// Asks the engine for a sign of life, and the network who is connected; whoever does not answer is not waited for here.
pub(crate) async fn sign_of_life(
    requests: mpsc::Sender<ConsensusRequest<Ctx>>,
    network: mpsc::Sender<NetworkRequest>,
    proofs: Arc<Proofs>,
    verifier: Strict,
    members: Members,
    own: PublicKey,
) -> Option<Event> {
    ConsensusRequest::dump_state(&requests).await.ok()?;
    let proven = proven(&network, &proofs, &verifier).await?;
    let mut keys: BTreeSet<Vec<u8>> = proven.into_iter().map(|(_, key)| key).collect();
    keys.insert(own.as_bytes().to_vec());
    let quorum = is_quorum(&members, &keys);
    Some(Event::Alive { quorum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timeouts;
    use crate::marks::{FILE_NAME, Step, What};
    use instar_attest::{ChainId, SecretKey};

    const NIL: What = What {
        block: None,
        pol_round: -1,
    };

    fn config(dir: &Path) -> Config {
        Config {
            chain: ChainId::from_bytes([1; 32]),
            key: SecretKey::from_seed(&[1; 32]),
            network_seed: [2; 32],
            listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
            peers: Vec::new(),
            wal_dir: dir.join("wal"),
            marks_dir: dir.join("marks"),
            moniker: "test".into(),
            timeouts: Timeouts::default(),
        }
    }

    /// Signs at a height, with the write-ahead log of that height beside it.
    fn sign(config: &Config, height: u64) {
        let Standing::Signs(mut marks) = Standing::open(config, height).unwrap() else {
            panic!()
        };
        marks.advance(height, 0, Step::Prevote, NIL).unwrap();
        log(config, height);
    }

    fn log(config: &Config, height: u64) {
        std::fs::create_dir_all(&config.wal_dir).unwrap();
        malachite_wal::Log::open(config.wal_dir.join(WAL_NAME))
            .unwrap()
            .reset(height)
            .unwrap();
    }

    fn follows(standing: Result<Standing, RunError>) -> Option<u64> {
        match standing.unwrap() {
            Standing::Follows { until } => until,
            Standing::Signs(marks) => panic!("signs from {:?}", marks.last()),
        }
    }

    #[test]
    fn a_head_that_nobody_can_have_is_followed_and_breaks_nothing() {
        assert_eq!(after_everything_signed(7), 10);
        for head in [u64::MAX - MARGIN, u64::MAX - 1, u64::MAX] {
            assert_eq!(after_everything_signed(head), u64::MAX);
        }
    }

    #[test]
    fn a_crash_in_mid_height_goes_on_signing() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        sign(&config, 1);
        assert!(matches!(Standing::open(&config, 1), Ok(Standing::Signs(_))));
        assert!(matches!(Standing::open(&config, 2), Ok(Standing::Signs(_))));
    }

    #[test]
    fn a_restored_ledger_follows_past_its_mark() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        sign(&config, 1);
        sign(&config, 9);
        assert_eq!(follows(Standing::open(&config, 4)), Some(10));
        // The follower's engine resets the log at every height; a restart must not mistake it for the lost one.
        log(&config, 9);
        assert_eq!(follows(Standing::open(&config, 9)), Some(10));
        assert!(matches!(
            Standing::open(&config, 10),
            Ok(Standing::Signs(_))
        ));
    }

    #[test]
    fn a_lost_log_follows_past_its_height() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        sign(&config, 1);
        std::fs::remove_dir_all(&config.wal_dir).unwrap();
        assert_eq!(follows(Standing::open(&config, 1)), Some(2));
    }

    #[test]
    fn a_broken_log_follows_past_its_height() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        sign(&config, 1);
        assert_eq!(follows(Standing::without_log(&config, 5)), Some(6));
        log(&config, 5);
        assert_eq!(follows(Standing::open(&config, 5)), Some(6));
    }

    #[test]
    fn a_lost_or_unreadable_mark_follows_until_somebody_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        assert_eq!(follows(Standing::open(&config, 7)), None);
        sign(&config, 1);
        std::fs::write(config.marks_dir.join(FILE_NAME), b"torn").unwrap();
        assert_eq!(follows(Standing::open(&config, 1)), None);
    }
}
