//! Sharded directories (UnixFS HAMT), which stock importers write for large folders. They are read
//! here and never written.

use crate::unixfs::Message;

/// Multihash code of murmur3-x64-64, the only hash that shards are keyed by.
const MURMUR3_X64_64: u64 = 0x22;
/// Widest node: what stock readers take.
const MAX_FANOUT: u64 = 1024;

/// An entry of one node of a sharded directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLink {
    /// Which of the node's slots it stands in.
    pub slot: usize,
    /// The name of the entry; `None` if a deeper node of the same directory hangs here.
    pub name: Option<String>,
    /// The entry, or the deeper node.
    pub cid: cid::Cid,
    /// Bytes of all blocks below it and of itself (dag-pb `Tsize`).
    pub dag_size: u64,
}

/// One node of a sharded directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Bits of a name's hash that choose a slot in this node.
    pub bits: u32,
    /// What is in its slots, ascending.
    pub links: Vec<ShardLink>,
}

/// Which slot `name` has in a node of `bits` bits below nodes that used `used` bits; `None` when
/// the hash has no bits left.
pub fn slot_of(name: &str, used: u32, bits: u32) -> Option<usize> {
    let end = used.checked_add(bits).filter(|end| *end <= 64)?;
    // Reading from memory can't fail. The low half is the first of the two words.
    let hash = murmur3::murmur3_x64_128(&mut name.as_bytes(), 0).ok()? as u64;
    Some(((hash >> (64 - end)) & ((1 << bits) - 1)) as usize)
}

/// Reads the shard that `message` describes; `links` are (name, cid, Tsize).
pub(crate) fn parse(
    message: &Message<'_>,
    links: impl Iterator<Item = (String, cid::Cid, u64)>,
) -> Result<Shard, &'static str> {
    if message.hash_type != Some(MURMUR3_X64_64) {
        return Err("its shards are not keyed by murmur3-x64-64");
    }
    let fanout = message.fanout.unwrap_or_default();
    if !fanout.is_power_of_two() || !(8..=MAX_FANOUT).contains(&fanout) {
        return Err("its fanout is no power of two from 8 to 1024");
    }
    let bits = fanout.trailing_zeros();
    let prefix = format!("{:X}", fanout - 1).len();
    let field = message.data;
    if field.len() as u64 > fanout / 8 {
        return Err("its bit field is longer than its fanout");
    }
    let mut shard = Shard {
        bits,
        links: Vec::new(),
    };
    for (name, cid, dag_size) in links {
        let (slot, name) = name
            .split_at_checked(prefix)
            .ok_or("an entry of a shard has no slot")?;
        if !slot
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        {
            return Err("an entry of a shard has no slot");
        }
        let slot =
            usize::from_str_radix(slot, 16).map_err(|_| "an entry of a shard has no slot")?;
        if shard.links.last().is_some_and(|last| last.slot >= slot) {
            return Err("the slots of a shard are not strictly ascending");
        }
        // The bit field is one big number; its last byte holds the slots from 0 to 7.
        let byte = field.len().checked_sub(1 + slot / 8).map(|at| field[at]);
        if byte.is_none_or(|byte| byte & (1 << (slot % 8)) == 0) {
            return Err("the bit field of a shard doesn't name all its entries");
        }
        shard.links.push(ShardLink {
            slot,
            name: (!name.is_empty()).then(|| name.to_owned()),
            cid,
            dag_size,
        });
    }
    let named: u32 = field.iter().map(|byte| byte.count_ones()).sum();
    if named as usize != shard.links.len() {
        return Err("the bit field of a shard names entries that it doesn't have");
    }
    Ok(shard)
}
