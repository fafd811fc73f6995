//! Blocks and tips: merge commits without a signature of their own, certified from the next commit on.

use instar_attest::json;
use instar_attest::{ChainId, Digest};

use super::{
    CERTIFICATE_FILE, GrammarError, HEADER_FILE, Kind, Loose, Object, RECEIPTS_FILE, commit_head,
    files_of, same, tree_of,
};
use crate::block::{
    Block, BlockDraft, Header, MAX_COMMITS_A_BLOCK, MAX_HEADER_BYTES, MAX_LANES_A_BLOCK,
};
use crate::certificate::Certificate;
use crate::fork::{MAX_FORKS_A_BLOCK, MAX_SLICE_BLOCKS};
use crate::lane::merge_key;
use crate::oid::Oid;
use crate::receipt::{self, ReceiptLine};

const WHAT: &str = "block";
const TIP: &str = "tip";

fn json_error(file: &'static str) -> impl Fn(json::JsonError) -> GrammarError {
    move |source| GrammarError::Json { file, source }
}

/// The tree of a block and its blobs; the tree comes first.
pub fn block_tree(draft: &BlockDraft) -> Result<Vec<Object>, GrammarError> {
    check(draft)?;
    let header = json::to_vec(&draft.header).map_err(json_error(HEADER_FILE))?;
    let receipts = receipt::to_jsonl(&draft.receipts).map_err(json_error(RECEIPTS_FILE))?;
    if header.len() > MAX_HEADER_BYTES {
        return Err(GrammarError::TooMany {
            what: "bytes of header",
            got: header.len() as u64,
            max: MAX_HEADER_BYTES as u64,
        });
    }
    if receipts.len() > receipt::MAX_RECEIPTS_BYTES {
        return Err(GrammarError::TooMany {
            what: "bytes of receipts",
            got: receipts.len() as u64,
            max: receipt::MAX_RECEIPTS_BYTES as u64,
        });
    }
    if Digest::of(&receipts) != draft.header.receipts {
        return Err(GrammarError::Contradiction(
            "the header names other receipts",
        ));
    }
    let mut blobs = Vec::new();
    let mut files = Vec::new();
    if let Some(previous) = &draft.previous {
        let bytes = previous.to_bytes().map_err(json_error(CERTIFICATE_FILE))?;
        blobs.push(Object::new(Kind::Blob, bytes));
        files.push((CERTIFICATE_FILE, blobs[0].id));
    }
    for (name, bytes) in [(HEADER_FILE, header), (RECEIPTS_FILE, receipts)] {
        let blob = Object::new(Kind::Blob, bytes);
        files.push((name, blob.id));
        blobs.push(blob);
    }
    let mut out = vec![Object::new(Kind::Tree, tree_of(&files))];
    out.append(&mut blobs);
    Ok(out)
}

/// What can be said of a block without anything around it.
fn check(draft: &BlockDraft) -> Result<(), GrammarError> {
    let header = &draft.header;
    let contradiction = |why| Err(GrammarError::Contradiction(why));
    if header.height == 0 || (header.height == 1) != (header.parent == Oid::from(header.chain)) {
        return contradiction("height 1, and no other, stands on genesis");
    }
    if header.time_ms / 1000 > super::MAX_TIME_S {
        return contradiction("the time lies behind the year 9999");
    }
    match &draft.previous {
        None if header.height != 1 => return contradiction("the previous certificate is missing"),
        Some(_) if header.height == 1 => return contradiction("genesis has no certificate"),
        Some(c) if c.block != header.parent || c.height + 1 != header.height => {
            return contradiction("the certificate is not the parent's");
        }
        _ => {}
    }
    if header.lanes.len() > MAX_LANES_A_BLOCK {
        return Err(GrammarError::TooMany {
            what: "lanes in a block",
            got: header.lanes.len() as u64,
            max: MAX_LANES_A_BLOCK as u64,
        });
    }
    let mut commits: u64 = 0;
    for range in &header.lanes {
        if range.from == 0 || range.to < range.from || range.incarnation == 0 {
            return contradiction("a lane's range is empty or counts from 0");
        }
        commits = commits.saturating_add(range.to - range.from + 1);
    }
    if commits > MAX_COMMITS_A_BLOCK {
        return Err(GrammarError::TooMany {
            what: "lane commits in a block",
            got: commits,
            max: MAX_COMMITS_A_BLOCK,
        });
    }
    let in_order = header
        .lanes
        .windows(2)
        .all(|w| merge_key(&header.parent, &w[0].lane()) < merge_key(&header.parent, &w[1].lane()));
    if !in_order {
        return contradiction("the lanes are not in merge order");
    }
    check_forks(header)?;
    if !header.left_out.windows(2).all(|w| w[0] < w[1]) {
        return contradiction("the dapps left out are not sorted");
    }
    Ok(())
}

/// What can be said of the slices of forks without anything around them.
fn check_forks(header: &Header) -> Result<(), GrammarError> {
    let bounds = [
        (
            "forks in a block",
            header.forks.len() as u64,
            MAX_FORKS_A_BLOCK as u64,
        ),
        (
            "blocks of a fork in a block",
            header
                .forks
                .iter()
                .map(|f| f.to.saturating_sub(f.from).saturating_add(1))
                .max()
                .unwrap_or(0),
            MAX_SLICE_BLOCKS,
        ),
    ];
    for (what, got, max) in bounds {
        if got > max {
            return Err(GrammarError::TooMany { what, got, max });
        }
    }
    if header.forks.iter().any(|f| f.from == 0 || f.to < f.from) {
        return Err(GrammarError::Contradiction(
            "a fork's range is empty or counts from 0",
        ));
    }
    if header.forks.iter().any(|f| f.chain == header.chain) {
        return Err(GrammarError::Contradiction("a chain is no fork of itself"));
    }
    Ok(())
}

/// The bytes of a block's commit.
pub fn block_commit(tree: &Oid, header: &Header, receipts: &[ReceiptLine]) -> Vec<u8> {
    let entries = receipts
        .iter()
        .filter(|line| matches!(line, ReceiptLine::Entry(_)))
        .count();
    commit_of(tree, header, entries as u64)
}

fn commit_of(tree: &Oid, header: &Header, entries: u64) -> Vec<u8> {
    let mut parents = vec![header.parent];
    parents.extend(header.lanes.iter().map(|range| range.head));
    parents.extend(header.forks.iter().map(|range| range.head));
    let head = commit_head(
        tree,
        &parents,
        &header.proposer.short(),
        &format!("{}@block.instar", header.proposer),
        header.time_ms / 1000,
    );
    let mut text = format!(
        "{head}\nblock {}: {entries} entries, {} lanes\n\nChain: {}\nHeight: {}\nState: {}\n",
        header.height,
        header.lanes.len(),
        header.chain,
        header.height,
        header.state_root,
    );
    for fork in &header.forks {
        text += &format!("Fork: {} {}-{}\n", fork.chain, fork.from, fork.to);
    }
    text.into_bytes()
}

/// The id of a block by its header and by the ids of the other files of its tree, see [`crate::light`].
pub(crate) fn light_block_id(
    header: &Header,
    entries: u64,
    previous: Option<&Oid>,
    receipts: &Oid,
) -> Result<Oid, GrammarError> {
    let bytes = json::to_vec(header).map_err(json_error(HEADER_FILE))?;
    let header_blob = Object::new(Kind::Blob, bytes);
    let mut files = Vec::new();
    files.extend(previous.map(|id| (CERTIFICATE_FILE, *id)));
    files.push((HEADER_FILE, header_blob.id));
    files.push((RECEIPTS_FILE, *receipts));
    let tree = Object::new(Kind::Tree, tree_of(&files));
    Ok(Object::new(Kind::Commit, commit_of(&tree.id, header, entries)).id)
}

/// Reads the header of a block that was checked before, without its receipts.
pub(crate) fn read_header<E: From<GrammarError>>(
    id: &Oid,
    chain: &ChainId,
    fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<Header, E> {
    read_light(id, chain, fetch).map(|(header, ..)| header)
}

/// Of a block that was checked before: its header, the blobs of its certificate and its receipts, and the number of its
/// entries, all without reading the receipts.
pub(crate) fn read_light<E: From<GrammarError>>(
    id: &Oid,
    chain: &ChainId,
    mut fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<(Header, Option<Oid>, Oid, u64), E> {
    let missing = |part| GrammarError::Part { what: WHAT, part };
    let commit = fetch(id, Kind::Commit)?;
    let loose = Loose::read(WHAT, &commit)?;
    let entries = loose
        .message
        .split_once(" entries, ")
        .and_then(|(subject, _)| subject.rsplit_once(": "))
        .and_then(|(_, n)| n.parse().ok())
        .ok_or_else(|| missing("number of entries"))?;
    let tree = fetch(&loose.tree, Kind::Tree)?;
    let files = files_of(&tree)?;
    let find = |wanted| files.iter().find(|(n, _)| *n == wanted).map(|(_, id)| *id);
    let header = find(HEADER_FILE).ok_or_else(|| missing(HEADER_FILE))?;
    let receipts = find(RECEIPTS_FILE).ok_or_else(|| missing(RECEIPTS_FILE))?;
    let header = header_of(&fetch(&header, Kind::Blob)?, chain)?;
    Ok((header, find(CERTIFICATE_FILE), receipts, entries))
}

/// Reads the certificate in a block that was checked before, which is that of the block before it.
pub(crate) fn read_certificate<E: From<GrammarError>>(
    id: &Oid,
    mut fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<Option<Certificate>, E> {
    let commit = fetch(id, Kind::Commit)?;
    let tree = fetch(&Loose::read(WHAT, &commit)?.tree, Kind::Tree)?;
    let blob = files_of(&tree)?
        .into_iter()
        .find(|(name, _)| *name == CERTIFICATE_FILE);
    let Some((_, blob)) = blob else {
        return Ok(None);
    };
    let bytes = fetch(&blob, Kind::Blob)?;
    Ok(Some(
        Certificate::from_bytes(&bytes).map_err(GrammarError::from)?,
    ))
}

/// Reads a block: `fetch` gives the object of an id. Every byte of the commit, its tree and its files is rebuilt.
pub fn read_block<E: From<GrammarError>>(
    id: Oid,
    chain: &ChainId,
    mut fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<Block, E> {
    let commit = fetch(&id, Kind::Commit)?;
    let loose = Loose::read(WHAT, &commit)?;
    let tree = fetch(&loose.tree, Kind::Tree)?;
    let files = files_of(&tree)?;
    let mut file = |name: &'static str| -> Result<Option<Vec<u8>>, E> {
        files
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, id)| fetch(id, Kind::Blob))
            .transpose()
    };
    let missing = |part| GrammarError::Part { what: WHAT, part };
    let header = file(HEADER_FILE)?.ok_or_else(|| missing("header.json"))?;
    let header = header_of(&header, chain)?;
    let receipts = file(RECEIPTS_FILE)?.ok_or_else(|| missing("receipts.jsonl"))?;
    let receipts = receipt::from_jsonl(&receipts).map_err(json_error(RECEIPTS_FILE))?;
    let previous = file(CERTIFICATE_FILE)?
        .map(|bytes| Certificate::from_bytes(&bytes).map_err(GrammarError::from))
        .transpose()?;
    let draft = BlockDraft {
        header,
        receipts,
        previous,
    };
    // The tree's id covers every file, so that comparing it and the commit compares everything.
    let rebuilt = block_tree(&draft)?;
    same("tree of the block", &tree, &rebuilt[0].bytes)?;
    let bytes = block_commit(&rebuilt[0].id, &draft.header, &draft.receipts);
    same(WHAT, &commit, &bytes)?;
    Ok(Block {
        id,
        header: draft.header,
        receipts: draft.receipts,
        previous: draft.previous,
    })
}

/// Reads `header.json` of this chain.
fn header_of(bytes: &[u8], chain: &ChainId) -> Result<Header, GrammarError> {
    let header: Header =
        json::from_slice(bytes, MAX_HEADER_BYTES).map_err(json_error(HEADER_FILE))?;
    if header.chain != *chain {
        return Err(GrammarError::OtherChain {
            expected: *chain,
            got: header.chain,
        });
    }
    Ok(header)
}

/// The tree of a tip, and the blob in it.
pub fn tip_tree(certificate: &Certificate) -> Result<[Object; 2], GrammarError> {
    let bytes = certificate
        .to_bytes()
        .map_err(json_error(CERTIFICATE_FILE))?;
    let blob = Object::new(Kind::Blob, bytes);
    Ok([super::single_file_tree(CERTIFICATE_FILE, &blob), blob])
}

/// The bytes of a tip's commit. `time_ms` is the head block's.
pub fn tip_commit(chain: &ChainId, certificate: &Certificate, tree: &Oid, time_ms: u64) -> Vec<u8> {
    let head = commit_head(
        tree,
        &[certificate.block],
        "instar",
        "tip@tip.instar",
        time_ms / 1000,
    );
    format!(
        "{head}\ntip {}: {} signatures\n\nChain: {chain}\n",
        certificate.height,
        certificate.signatures.len(),
    )
    .into_bytes()
}

/// The head that a tip stands on, and the tip's tree. Only [`read_tip`] makes them true.
pub(crate) fn read_tip_parent(bytes: &[u8]) -> Result<(Oid, Oid), GrammarError> {
    let loose = Loose::read(TIP, bytes)?;
    match loose.parents[..] {
        [parent] => Ok((parent, loose.tree)),
        _ => Err(GrammarError::Part {
            what: TIP,
            part: "single parent",
        }),
    }
}

/// Reads a tip, rebuilding it from its certificate and its parent's header: `fetch` gives the object of an id. Gives the
/// parent and the certificate, which is the parent's.
pub fn read_tip<E: From<GrammarError>>(
    id: &Oid,
    chain: &ChainId,
    mut fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<(Oid, Certificate), E> {
    let commit = fetch(id, Kind::Commit)?;
    let (parent, tree) = read_tip_parent(&commit)?;
    let files = fetch(&tree, Kind::Tree)?;
    let [(CERTIFICATE_FILE, blob)] = files_of(&files)?[..] else {
        return Err(GrammarError::Part {
            what: TIP,
            part: "tree of one certificate.json",
        }
        .into());
    };
    let certificate =
        Certificate::from_bytes(&fetch(&blob, Kind::Blob)?).map_err(GrammarError::from)?;
    let header = read_header(&parent, chain, fetch)?;
    if certificate.block != parent || certificate.height != header.height {
        return Err(GrammarError::Contradiction("the certificate is not the parent's").into());
    }
    let [tree, _] = tip_tree(&certificate)?;
    let rebuilt = tip_commit(chain, &certificate, &tree.id, header.time_ms);
    same(TIP, &commit, &rebuilt)?;
    Ok((parent, certificate))
}
