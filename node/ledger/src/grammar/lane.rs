//! Lane commits: a tree with `entries.jsonl`, one parent, an SSHSIG by the device's lane key.

use instar_attest::{ChainId, PublicKey, SecretKey};

use super::{
    ENTRIES_FILE, GrammarError, Kind, Loose, MAX_TIME_S, Object, commit_head, files_of, same,
    tree_of,
};
use crate::entry::Entry;
use crate::lane::{Lane, LaneCommit, MAX_ENTRIES_A_COMMIT, MAX_ENTRIES_BYTES};
use crate::oid::Oid;
use crate::sshsig::SshSig;

const WHAT: &str = "lane commit";
const SIGNATURE_HEADER: &str = "gpgsig-sha256 ";

/// Everything that a lane key signs, in a commit: its bytes without the signature header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanePayload {
    /// The chain.
    pub chain: ChainId,
    /// How many entries the tree holds.
    pub entries: usize,
    /// The lane.
    pub lane: Lane,
    /// The commit before it; the genesis commit for `seq` 1.
    pub parent: Oid,
    /// Counts from 1.
    pub seq: u64,
    /// The device's clock, seconds since 1970.
    pub time_s: u64,
    /// The tree with the entries.
    pub tree: Oid,
}

/// Whether signatures are verified while reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signatures {
    /// Each of them. The default everywhere.
    Check,
    /// None: somebody vouches for what is read, for example by naming the id of a later block as trusted.
    Trusted,
}

/// A lane commit without its entries: payload and signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedLaneCommit {
    /// What is signed.
    pub payload: LanePayload,
    /// The signature, with the key that it names.
    pub sig: SshSig,
}

impl LanePayload {
    fn head(&self) -> String {
        let device = self.lane.device;
        commit_head(
            &self.tree,
            &[self.parent],
            &device.short(),
            &format!("{device}@lane.instar"),
            self.time_s,
        )
    }

    fn message(&self) -> String {
        format!(
            "lane {}/{} #{}: {} entries\n\nChain: {}\nLane: {}\nSeq: {}\n",
            self.lane.device.short(),
            self.lane.incarnation,
            self.seq,
            self.entries,
            self.chain,
            self.lane,
            self.seq,
        )
    }

    /// The bytes that git hands to `ssh-keygen`: the commit without its signature header.
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{}\n{}", self.head(), self.message()).into_bytes()
    }

    /// Reads a payload in the exact grammar.
    pub fn from_bytes(bytes: &[u8], chain: &ChainId) -> Result<Self, GrammarError> {
        let broken = |part| GrammarError::Part { what: WHAT, part };
        let loose = Loose::read(WHAT, bytes)?;
        let got: ChainId = loose
            .trailer("Chain")
            .and_then(|v| v.parse().ok())
            .ok_or_else(|| broken("trailer Chain"))?;
        if got != *chain {
            return Err(GrammarError::OtherChain {
                expected: *chain,
                got,
            });
        }
        let [parent] = loose.parents[..] else {
            return Err(broken("single parent"));
        };
        let payload = Self {
            chain: got,
            entries: loose
                .message
                .split_once(" entries\n")
                .and_then(|(subject, _)| subject.rsplit_once(": "))
                .and_then(|(_, n)| n.parse().ok())
                .ok_or_else(|| broken("number of entries"))?,
            lane: loose
                .trailer("Lane")
                .ok_or_else(|| broken("trailer Lane"))?
                .parse()?,
            parent,
            seq: loose
                .trailer("Seq")
                .and_then(|v| v.parse().ok())
                .filter(|seq| (1..=instar_attest::json::MAX_INTEGER).contains(seq))
                .ok_or_else(|| broken("trailer Seq"))?,
            time_s: loose.time_s,
            tree: loose.tree,
        };
        payload.check()?;
        same(WHAT, bytes, &payload.to_bytes())?;
        Ok(payload)
    }

    fn check(&self) -> Result<(), GrammarError> {
        if self.time_s > MAX_TIME_S {
            return Err(GrammarError::Part {
                what: WHAT,
                part: "time",
            });
        }
        // The first commit of an incarnation hangs on genesis, and no later one does.
        if (self.seq == 1) != (self.parent == Oid::from(self.chain)) {
            return Err(GrammarError::Part {
                what: WHAT,
                part: "parent for its sequence number",
            });
        }
        check_count(self.entries)
    }

    /// Signs with the lane key.
    pub fn sign(self, key: &SecretKey) -> Result<SignedLaneCommit, GrammarError> {
        self.check()?;
        let sig = SshSig::sign(key, &self.to_bytes());
        Ok(SignedLaneCommit { payload: self, sig })
    }
}

impl SignedLaneCommit {
    /// The commit object's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let armour = self.sig.to_armour().replace('\n', "\n ");
        format!(
            "{}{SIGNATURE_HEADER}{armour}\n\n{}",
            self.payload.head(),
            self.payload.message()
        )
        .into_bytes()
    }

    /// Reads a commit object: exact grammar, right chain, and a signature that holds under the key it names.
    pub fn from_bytes(bytes: &[u8], chain: &ChainId) -> Result<Self, GrammarError> {
        let commit = Self::unverified(bytes, chain)?;
        commit.sig.verify(&commit.payload.to_bytes())?;
        Ok(commit)
    }

    /// As [`SignedLaneCommit::from_bytes`] without the signature, for commits whose signature was checked before.
    pub(crate) fn unverified(bytes: &[u8], chain: &ChainId) -> Result<Self, GrammarError> {
        let broken = |part| GrammarError::Part { what: WHAT, part };
        let text = std::str::from_utf8(bytes).map_err(|_| broken("UTF-8 text"))?;
        let start = text
            .find("\ngpgsig-sha256 ")
            .ok_or_else(|| broken("gpgsig-sha256 header"))?
            + 1;
        let length = text[start..]
            .find("\n\n")
            .ok_or_else(|| broken("message"))?;
        let armour = text[start..start + length]
            .strip_prefix(SIGNATURE_HEADER)
            .ok_or_else(|| broken("gpgsig-sha256 header"))?
            .replace("\n ", "\n");
        let sig = SshSig::from_armour(&armour)?;
        let unsigned = [&text[..start], &text[start + length + 1..]].concat();
        let commit = Self {
            payload: LanePayload::from_bytes(unsigned.as_bytes(), chain)?,
            sig,
        };
        same(WHAT, bytes, &commit.to_bytes())?;
        Ok(commit)
    }

    /// The commit's id.
    pub fn id(&self) -> Oid {
        Oid::of_object(Kind::Commit.as_str(), &self.to_bytes())
    }
}

fn check_count(entries: usize) -> Result<(), GrammarError> {
    if (1..=MAX_ENTRIES_A_COMMIT).contains(&entries) {
        return Ok(());
    }
    Err(GrammarError::TooMany {
        what: "entries in a lane commit (and at least one)",
        got: entries as u64,
        max: MAX_ENTRIES_A_COMMIT as u64,
    })
}

fn check_size(bytes: usize) -> Result<(), GrammarError> {
    if bytes <= MAX_ENTRIES_BYTES {
        return Ok(());
    }
    Err(GrammarError::TooMany {
        what: "bytes of entries",
        got: bytes as u64,
        max: MAX_ENTRIES_BYTES as u64,
    })
}

/// The bytes of `entries.jsonl`: each entry's line and a newline.
pub fn entries_jsonl(entries: &[Entry]) -> Result<Vec<u8>, GrammarError> {
    check_count(entries.len())?;
    let mut out = Vec::new();
    for entry in entries {
        out.extend(entry.to_line().bytes());
        out.push(b'\n');
    }
    check_size(out.len())?;
    Ok(out)
}

/// Reads `entries.jsonl`, verifying each entry. Every line, also the last, ends in a newline.
pub fn read_entries(bytes: &[u8], chain: &ChainId) -> Result<Vec<Entry>, GrammarError> {
    entries_of(bytes, chain, Signatures::Check)
}

fn entries_of(
    bytes: &[u8],
    chain: &ChainId,
    signatures: Signatures,
) -> Result<Vec<Entry>, GrammarError> {
    check_size(bytes.len())?;
    let body = bytes.strip_suffix(b"\n").ok_or(GrammarError::Part {
        what: ENTRIES_FILE,
        part: "last newline",
    })?;
    let lines: Vec<&[u8]> = body.split(|b| *b == b'\n').collect();
    check_count(lines.len())?;
    lines
        .into_iter()
        .enumerate()
        .map(|(index, line)| {
            match signatures {
                Signatures::Check => Entry::parse(line, chain),
                Signatures::Trusted => Entry::parse_unverified(line, chain),
            }
            .map_err(|source| GrammarError::Entry { index, source })
        })
        .collect()
}

/// Reads a whole lane commit: `fetch` gives the object of an id. Also returns the key that signed it; whether that key
/// is the device's is for the caller to know.
pub fn read_lane_commit<E: From<GrammarError>>(
    id: Oid,
    chain: &ChainId,
    fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<(LaneCommit, PublicKey), E> {
    read_lane_commit_with(id, chain, Signatures::Check, fetch)
}

/// As [`read_lane_commit`]; with [`Signatures::Trusted`] all but the signatures is checked.
pub fn read_lane_commit_with<E: From<GrammarError>>(
    id: Oid,
    chain: &ChainId,
    signatures: Signatures,
    mut fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<(LaneCommit, PublicKey), E> {
    let bytes = fetch(&id, Kind::Commit)?;
    let SignedLaneCommit { payload, sig } = match signatures {
        Signatures::Check => SignedLaneCommit::from_bytes(&bytes, chain)?,
        Signatures::Trusted => SignedLaneCommit::unverified(&bytes, chain)?,
    };
    let tree = fetch(&payload.tree, Kind::Tree)?;
    let blob_id = match files_of(&tree)?[..] {
        [(ENTRIES_FILE, blob)] => blob,
        _ => {
            return Err(GrammarError::Part {
                what: WHAT,
                part: "tree of one entries.jsonl",
            }
            .into());
        }
    };
    let blob = fetch(&blob_id, Kind::Blob)?;
    let entries = entries_of(&blob, chain, signatures)?;
    // Every entry is canonical, so the file is what its entries say; only their number is said twice.
    if entries.len() != payload.entries {
        return Err(GrammarError::Part {
            what: WHAT,
            part: "number of entries in its subject",
        }
        .into());
    }
    let commit = LaneCommit {
        id,
        lane: payload.lane,
        seq: payload.seq,
        parent: payload.parent,
        time_s: payload.time_s,
        entries,
    };
    Ok((commit, sig.key))
}

/// The tree that holds one file.
pub fn single_file_tree(name: &str, blob: &Object) -> Object {
    Object::new(Kind::Tree, tree_of(&[(name, blob.id)]))
}
