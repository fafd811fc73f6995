//! What the blocks would cost: bytes of a DAG that are not here yet.

use std::collections::HashMap;

use instar_chunks::block::RAW;
use instar_chunks::node::{Node, decode};
use instar_chunks::{Blocks, Cid, DagError, Limits, Walk};

/// Bytes of the raw leaves below `root` that `store` doesn't hold, each counted once, as their parents tell them. The nodes
/// must be held. A root that is a leaf itself has no parent, and counts as nothing: it is one chunk.
pub fn missing_bytes(store: &dyn Blocks, root: &Cid, limits: &Limits) -> Result<u64, DagError> {
    let mut walk = Walk::new(root, *limits)?;
    let mut sizes: HashMap<Cid, u64> = HashMap::new();
    let mut missing = 0_u64;
    while let Some(cid) = walk.next_wanted() {
        if cid.codec() == RAW {
            if !store.has(&cid)? {
                missing = missing.saturating_add(sizes.get(&cid).copied().unwrap_or(0));
            }
            continue;
        }
        let bytes = store.get(&cid)?.ok_or(DagError::Missing { cid })?;
        match decode(&cid, &bytes)? {
            Node::File { links, .. } => sizes.extend(links.iter().map(|l| (l.cid, l.size))),
            Node::Directory { links } => sizes.extend(links.iter().map(|l| (l.cid, l.dag_size))),
            _ => {}
        }
        walk.visit(&cid, &bytes)?;
    }
    Ok(missing)
}
