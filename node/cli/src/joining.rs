//! Joining by a snapshot: a header by its light check, then the state in chunks, each proven before it is kept, then the
//! commits that the ledger begins with. No source is believed; one that lies is named and not asked again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use instar_attest::ChainId;
use instar_audit::Trust;
use instar_chunks::Cid;
use instar_ipfs::sources::{Gateway, Source as _};
use instar_ledger::Genesis;
use instar_ledger::sync::MAX_SYNC_BYTES;
use instar_node::core::base::{Base, Checkpoint};
use instar_node::home::Home;
use instar_node::join::{Joining, State};
use instar_node::snapshots::{MAX_LIST_BYTES, Offer, SnapshotList};
use instar_state::StateStore;
use instar_state::snapshot::{Prefix, Restore, RestoreError};

use crate::client::Client;
use crate::light::{header_at, way_to};

/// A chain with fewer blocks is replayed: that takes seconds, and gives the whole history.
pub const WORTH_BLOCKS: u64 = 256;
/// The largest list of offers.
const MAX_OFFERS_BYTES: u64 = 64 << 10;
/// Offers of one source that are looked at.
const MAX_OFFERS: usize = 8;

/// A node that is asked.
struct Source {
    client: Client,
    gateway: Gateway,
    /// Heights of which it says that it has a snapshot.
    offers: Vec<u64>,
    /// Why it is not asked any more.
    dropped: Option<String>,
}

/// What was done, for the person who asked for it.
pub struct Joined {
    /// The height.
    pub height: u64,
    /// Chunks of the state.
    pub chunks: usize,
    /// How many of them were there from a join before.
    pub resumed: usize,
    /// Sources that were dropped, and why.
    pub dropped: Vec<(String, String)>,
}

/// The nodes that are asked, with what they offer.
pub struct Sources(Vec<Source>);

impl Sources {
    /// Asks every node for its offers.
    pub fn ask(urls: &[String]) -> Self {
        let sources = urls.iter().map(|url| {
            let client = Client::new(url, None);
            let mut source = Source {
                gateway: Gateway::new(url),
                offers: Vec::new(),
                dropped: None,
                client,
            };
            match source.ask_offers() {
                Ok(offers) => source.offers = offers,
                Err(e) => source.drop_for(format!("{e:#}")),
            }
            source
        });
        Self(sources.collect())
    }

    /// The newest height that somebody still believed offers.
    pub fn newest(&self) -> Option<u64> {
        self.0
            .iter()
            .filter(|s| s.dropped.is_none())
            .flat_map(|s| s.offers.iter().copied())
            .max()
    }

    /// Those that are believed and offer a height.
    fn of(&self, height: u64) -> Vec<usize> {
        let of = |s: &Source| s.dropped.is_none() && s.offers.contains(&height);
        (0..self.0.len()).filter(|i| of(&self.0[*i])).collect()
    }

    /// Sources that were dropped, and why.
    pub fn dropped(&self) -> Vec<(String, String)> {
        let dropped = |s: &Source| Some((s.client.base().to_owned(), s.dropped.clone()?));
        self.0.iter().filter_map(dropped).collect()
    }

    fn none_left(&self, what: &str) -> anyhow::Error {
        let all = self.dropped();
        let each: Vec<String> = all
            .iter()
            .map(|(url, why)| format!("{url}: {why}"))
            .collect();
        anyhow!(
            "{what}; {}; name other nodes, or replay the chain with --archive",
            each.join("; ")
        )
    }
}

impl Source {
    fn ask_offers(&self) -> Result<Vec<u64>> {
        let found = self
            .client
            .find_bytes_within("/v1/snapshots", MAX_OFFERS_BYTES)?;
        let Some(bytes) = found else {
            return Ok(Vec::new());
        };
        let offers: Vec<Offer> =
            serde_json::from_slice(&bytes).context("its list of snapshots is none")?;
        Ok(offers.iter().take(MAX_OFFERS).map(|o| o.height).collect())
    }

    fn drop_for(&mut self, why: String) {
        eprintln!("dropped {}: {why}", self.client.base());
        self.dropped = Some(why);
    }

    fn list(&self, base: &Base) -> Result<BTreeMap<Prefix, Cid>> {
        let path = format!("/v1/snapshots/{}", base.height());
        let bytes = self
            .client
            .find_bytes_within(&path, MAX_LIST_BYTES as u64)?
            .context("it has no list of the snapshot that it offers")?;
        let list = SnapshotList::from_bytes(&bytes).map_err(anyhow::Error::msg)?;
        let mut chunks: BTreeMap<Prefix, Cid> = BTreeMap::new();
        for chunk in &list.chunks {
            let (cid, prefix) = chunk.place().map_err(anyhow::Error::msg)?;
            chunks.insert(prefix, cid);
        }
        // In this order a place stands directly before what it contains.
        let overlap = chunks.keys().zip(chunks.keys().skip(1));
        if let Some((outer, inner)) = overlap.into_iter().find(|(a, b)| a.contains(b)) {
            bail!("its chunk at {outer} contains the one at {inner}");
        }
        Ok(chunks)
    }
}

/// Joins by the newest snapshot that holds, or goes on with the one that a join before was about.
pub fn join(
    sources: &mut Sources,
    home: &Home,
    genesis: &Genesis,
    trust: &Trust,
) -> Result<Joined> {
    // What is left of a join of another chain is nothing to go on with.
    let chain = genesis.chain_id()?;
    let before = Joining::under_way(home)?.filter(|base| base.header.header.chain == chain);
    loop {
        let resumable = before
            .as_ref()
            .filter(|base| !sources.of(base.height()).is_empty());
        let base = match resumable {
            Some(base) => {
                eprintln!("going on with the snapshot of height {}", base.height());
                base.clone()
            }
            None => {
                let newest = sources.newest();
                let height = newest.ok_or_else(|| sources.none_left("no snapshot can be had"))?;
                match certified(sources, height, &chain, trust) {
                    Some(base) => base,
                    None => continue,
                }
            }
        };
        let joining = Joining::begin(home, genesis, base)?;
        let Some((state, chunks, resumed)) = state(sources, &joining)? else {
            continue;
        };
        let Some(ledger) = ledger(sources, &joining, &state)? else {
            continue;
        };
        let height = joining.base().height();
        joining.finish(state, ledger)?;
        return Ok(Joined {
            height,
            chunks,
            resumed,
            dropped: sources.dropped(),
        });
    }
}

/// The header of a height, by a light check through the first source whose answers hold.
fn certified(sources: &mut Sources, height: u64, chain: &ChainId, trust: &Trust) -> Option<Base> {
    for at in sources.of(height) {
        let source = &mut sources.0[at];
        match base_through(&source.client, height, chain, trust) {
            Ok(base) => {
                eprintln!(
                    "the header of height {height} is certified, after {} changes of the validators",
                    base.changes.len()
                );
                return Some(base);
            }
            Err(e) => source.drop_for(format!("it offers height {height}, but {e:#}")),
        }
    }
    None
}

fn base_through(client: &Client, height: u64, chain: &ChainId, trust: &Trust) -> Result<Base> {
    if let Trust::Block { height: known, .. } = trust {
        ensure!(
            height > *known,
            "that is not above the checkpoint, height {known}"
        );
    }
    let way = way_to(client, trust, header_at(client, Some(height))?)?;
    let of = way.header.header.chain;
    ensure!(of == *chain, "its header is of chain {of}");
    ensure!(
        way.header.header.height == height,
        "its header is of height {}",
        way.header.header.height
    );
    let checkpoint = way.checkpoint.map(|start| Checkpoint {
        header: start.header,
        validators: start.validators,
    });
    Ok(Base::new(checkpoint, way.changes, way.header))
}

/// The state, chunk by chunk. None when nobody is left who offers it.
fn state(
    sources: &mut Sources,
    joining: &Joining<'_>,
) -> Result<Option<(StateStore, usize, usize)>> {
    let height = joining.base().height();
    let mut resumed = None;
    loop {
        let mut restore = match joining.state()? {
            State::Whole(state) => return Ok(Some((state, 0, 0))),
            State::Chunks(restore) => restore,
        };
        let resumed = *resumed.get_or_insert(restore.count());
        let Some(author) = sources.of(height).first().copied() else {
            return Ok(None);
        };
        let list = match sources.0[author].list(joining.base()) {
            Ok(list) => list,
            Err(e) => {
                sources.0[author].drop_for(format!("its list of chunks is refused: {e:#}"));
                continue;
            }
        };
        match chunks(sources, author, &list, &mut restore, height)? {
            Taken::All => {}
            Taken::Refused => continue,
            Taken::Overlap => {
                drop(restore);
                joining.forget_state()?;
                continue;
            }
        }
        let count = restore.count();
        match restore.finish() {
            Ok(state) => return Ok(Some((state, count, resumed))),
            Err(RestoreError::Incomplete { .. }) => {
                sources.0[author].drop_for(format!("its list of {} chunks lacks some", list.len()))
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// How a list ended.
enum Taken {
    All,
    /// Its author was dropped.
    Refused,
    /// What is there was cut in another way, by somebody who was dropped before.
    Overlap,
}

fn chunks(
    sources: &mut Sources,
    author: usize,
    list: &BTreeMap<Prefix, Cid>,
    restore: &mut Restore,
    height: u64,
) -> Result<Taken> {
    if restore.count() > 0 {
        eprintln!(
            "{} of {} chunks are here already",
            restore.count(),
            list.len()
        );
    }
    for (prefix, cid) in list {
        if restore.has(prefix) {
            continue;
        }
        // Whoever wrote the list is asked first; an address is only a hint where a chunk can be had.
        let mut asked = sources.of(height);
        asked.sort_by_key(|at| *at != author);
        let mut taken = false;
        for at in asked {
            let bytes = match sources.0[at].gateway.get(cid) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(e) => {
                    sources.0[at].drop_for(format!("chunk {prefix} ({cid}): {}", e.0));
                    continue;
                }
            };
            match restore.add(&bytes) {
                Ok((there, _)) if there == *prefix => {
                    taken = true;
                    break;
                }
                Ok((there, _)) => {
                    sources.0[author].drop_for(format!(
                        "its list says {cid} is the chunk at {prefix}, it is the one at {there}"
                    ));
                    return Ok(Taken::Refused);
                }
                Err(RestoreError::Overlap { .. }) => return Ok(Taken::Overlap),
                Err(RestoreError::Chunk(e)) => {
                    // If these are the bytes of the address, the list is the lie.
                    let listed = instar_chunks::block::verify(cid, &bytes).is_ok();
                    let liar = if listed { author } else { at };
                    sources.0[liar].drop_for(format!("chunk {prefix} ({cid}) does not prove: {e}"));
                    if listed {
                        return Ok(Taken::Refused);
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        if !taken {
            if sources.0[author].dropped.is_none() {
                sources.0[author].drop_for(format!(
                    "it lists chunk {prefix} ({cid}), and nobody has it"
                ));
            }
            return Ok(Taken::Refused);
        }
        eprintln!("chunk {} of {}", restore.count(), list.len());
    }
    Ok(Taken::All)
}

/// The commits that the ledger begins with. None when nobody is left who offers them.
fn ledger(
    sources: &mut Sources,
    joining: &Joining<'_>,
    state: &StateStore,
) -> Result<Option<instar_node::join::Ledger>> {
    let height = joining.base().height();
    let mut ledger = joining.ledger(state)?;
    loop {
        let (have, all) = ledger.progress();
        if have == all {
            return Ok(Some(ledger));
        }
        let Some(at) = sources.of(height).first().copied() else {
            return Ok(None);
        };
        let path = format!("/v1/snapshots/{height}/ledger?from={have}");
        let pack = sources.0[at]
            .client
            .find_bytes_within(&path, MAX_SYNC_BYTES as u64);
        let added = match pack {
            Ok(Some(pack)) => ledger
                .add(&pack, MAX_SYNC_BYTES)
                .map_err(anyhow::Error::from),
            Ok(None) => Err(anyhow!("it has none")),
            Err(e) => Err(e),
        };
        if let Err(e) = added {
            let why = format!("the ledger's commits from {have} of {all}: {e:#}");
            sources.0[at].drop_for(why);
        }
    }
}
