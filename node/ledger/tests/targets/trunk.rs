//! Any bytes as a chain's beginning, or as the files of a block: whatever makes objects in the exact grammar is read from
//! them, and no commit but that one stands for it.
//!
//! The input is `genesis.json`; or else `header.json`, receipts in lines, and a certificate or nothing, with a zero byte
//! between them, which no canonical JSON holds. No fuzzer finds a hash, so the hashes by which they name each other are
//! put right.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_attest::json;
use instar_ledger::block::MAX_HEADER_BYTES;
use instar_ledger::grammar::{
    self, CERTIFICATE_FILE, GrammarError, HEADER_FILE, Kind, Object, RECEIPTS_FILE,
};
use instar_ledger::receipt::{self, MAX_RECEIPT_BYTES, ReceiptLine};
use instar_ledger::{BlockDraft, Certificate, Genesis, Header, Oid};

/// Fails where what was made is read as something else, or something else as it. Says whether objects came of it.
pub fn run(data: &[u8]) -> bool {
    if let Ok(genesis) = Genesis::from_bytes(data) {
        assert_eq!(genesis.to_bytes().unwrap(), data);
        return begin(&genesis, data);
    }
    let mut files = data.split(|b| *b == 0);
    let mut next = || files.next().unwrap_or_default();
    let files = [next(), next(), next()];
    let Ok(header) = json::from_slice::<Header>(files[0], MAX_HEADER_BYTES) else {
        return false;
    };
    let receipts: Vec<ReceiptLine> = files[1]
        .split(|b| *b == b'\n')
        .filter_map(|line| json::from_slice(line, MAX_RECEIPT_BYTES).ok())
        .collect();
    as_it_is(files, &header, &receipts);
    let previous = Certificate::from_bytes(files[2]).ok();
    block(BlockDraft {
        header,
        receipts,
        previous,
    })
}

/// The files as they are: a field that says nothing must not stand there, though it be canonical.
fn as_it_is([header, receipts, certificate]: [&[u8]; 3], draft: &Header, lines: &[ReceiptLine]) {
    let mut files = vec![(HEADER_FILE, header), (RECEIPTS_FILE, receipts)];
    if !certificate.is_empty() {
        files.insert(0, (CERTIFICATE_FILE, certificate));
    }
    let (mut tree, mut objects) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let blob = Object::new(Kind::Blob, bytes.to_vec());
        tree.extend(format!("100644 {name}\0").bytes());
        tree.extend(blob.id.as_bytes());
        objects.push(blob);
    }
    let tree = Object::new(Kind::Tree, tree);
    let commit = grammar::block_commit(&tree.id, draft, lines);
    let commit = Object::new(Kind::Commit, commit);
    let id = commit.id;
    objects.extend([commit, tree]);
    let read = grammar::read_block(id, &draft.chain, |id, kind| fetch(&objects, id, kind));
    if let Ok(read) = read {
        assert_eq!(json::to_vec(&read.header).unwrap(), header);
        assert_eq!(receipt::to_jsonl(&read.receipts).unwrap(), receipts);
        let again = read.previous.map(|c| c.to_bytes().unwrap());
        assert_eq!(again.unwrap_or_default(), certificate);
    }
}

fn begin(genesis: &Genesis, bytes: &[u8]) -> bool {
    let _ = genesis.validator_set();
    let Ok(objects) = grammar::genesis_objects(genesis) else {
        return false;
    };
    let root = objects[0].id;
    assert_eq!(genesis.chain_id().unwrap(), root.into());
    assert!(grammar::is_genesis(&objects[0].bytes));
    let (read, file) = grammar::read_genesis(&root, |id, kind| fetch(&objects, id, kind)).unwrap();
    assert_eq!((&read, file.as_slice()), (genesis, bytes));
    only(&objects, &|changed| {
        grammar::read_genesis(&root, |id, kind| fetch(changed, id, kind)).is_ok()
    });
    true
}

fn block(mut draft: BlockDraft) -> bool {
    let chain = draft.header.chain;
    let Ok(digest) = receipt::digest(&draft.receipts) else {
        return false;
    };
    draft.header.receipts = digest;
    if draft.header.height == 1 {
        draft.header.parent = chain.into();
    }
    if let Some(certificate) = &mut draft.previous {
        certificate.block = draft.header.parent;
        certificate.height = draft.header.height.saturating_sub(1);
    }
    let Ok(mut objects) = grammar::block_tree(&draft) else {
        return false;
    };
    let commit = grammar::block_commit(&objects[0].id, &draft.header, &draft.receipts);
    let too_large = commit.len() > grammar::MAX_COMMIT_BYTES;
    objects.insert(0, Object::new(Kind::Commit, commit));
    let id = objects[0].id;
    let read = grammar::read_block(id, &chain, |id, kind| fetch(&objects, id, kind));
    let Ok(read) = read else {
        assert!(too_large, "{read:?}");
        return false;
    };
    assert_eq!(read.id, id);
    assert_eq!(
        (&read.header, &read.receipts, &read.previous),
        (&draft.header, &draft.receipts, &draft.previous)
    );
    only(&objects, &|changed| {
        grammar::read_block::<GrammarError>(id, &chain, |id, kind| fetch(changed, id, kind)).is_ok()
    });
    tip(objects, &draft.header, id);
    true
}

/// The tip that stands on the block, with whoever signed it left open: that is not the grammar's to know.
fn tip(mut objects: Vec<Object>, header: &Header, block: Oid) {
    let certificate = Certificate {
        block,
        height: header.height,
        round: 0,
        signatures: Vec::new(),
    };
    let [tree, blob] = grammar::tip_tree(&certificate).unwrap();
    let commit = grammar::tip_commit(&header.chain, &certificate, &tree.id, header.time_ms);
    let commit = Object::new(Kind::Commit, commit);
    let id = commit.id;
    objects.extend([commit, tree, blob]);
    let read =
        grammar::read_tip::<GrammarError>(&id, &header.chain, |id, kind| fetch(&objects, id, kind));
    assert_eq!(read.unwrap(), (block, certificate));
}

fn fetch(objects: &[Object], id: &Oid, kind: Kind) -> Result<Vec<u8>, GrammarError> {
    let found = objects.iter().find(|o| o.id == *id && o.kind == kind);
    found
        .map(|o| o.bytes.clone())
        .ok_or(GrammarError::Contradiction("not there"))
}

/// Other bytes in the place of the commit are refused, though a store with a broken disk should give them.
fn only(objects: &[Object], accepts: &dyn Fn(&[Object]) -> bool) {
    let mut changed = objects.to_vec();
    // A place that follows from the content, so that a failure comes again.
    let place = objects[0].id.as_bytes()[0];
    let commit = &mut changed[0].bytes;
    let at = usize::from(place) * commit.len() / 256;
    commit[at] ^= 1;
    assert!(!accepts(&changed));
    changed[0].bytes.push(b'\n');
    assert!(!accepts(&changed));
}
