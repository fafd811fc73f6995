//! Forgeries: the head of a clone is made again with something changed, and signed by validators that collude.

use std::path::Path;
use std::process::Command;

use instar_ledger::grammar::{Kind, Object, block_commit, block_tree, tip_commit, tip_tree};
use instar_ledger::{BlockDraft, Certificate, Oid, Store, receipt};

use super::{Chain, certificate, git};

/// A clone to forge in.
pub struct Forge {
    pub repo: git2::Repository,
    path: std::path::PathBuf,
}

impl Forge {
    pub fn open(clone: &Path) -> Self {
        Self {
            repo: git2::Repository::open(clone).unwrap(),
            path: clone.into(),
        }
    }

    /// Writes an object as it is.
    pub fn put(&self, kind: Kind, bytes: &[u8]) -> Oid {
        let kind_of = match kind {
            Kind::Commit => git2::ObjectType::Commit,
            Kind::Tree => git2::ObjectType::Tree,
            Kind::Blob => git2::ObjectType::Blob,
        };
        let id = self.repo.odb().unwrap().write(kind_of, bytes).unwrap();
        let id = Oid::from_bytes(id.as_bytes().try_into().unwrap());
        assert_eq!(id, Oid::of_object(kind.as_str(), bytes));
        id
    }

    /// The bytes of an object.
    pub fn get(&self, id: &Oid) -> Vec<u8> {
        let id = git2::Oid::from_bytes(id.as_bytes()).unwrap();
        self.repo.odb().unwrap().read(id).unwrap().data().to_vec()
    }

    /// The head as a draft.
    pub fn head(&self) -> BlockDraft {
        let store = Store::open_clone(&self.path).unwrap();
        let block = store.read_block(&store.head().1).unwrap();
        BlockDraft {
            header: block.header,
            receipts: block.receipts,
            previous: block.previous,
        }
    }

    /// Puts a changed head in the place of the honest one. Three of four validators sign it.
    pub fn replace(
        &self,
        chain: &Chain,
        mut draft: BlockDraft,
        certify: impl FnOnce(&mut Certificate),
    ) -> Oid {
        draft.header.receipts = receipt::digest(&draft.receipts).unwrap();
        let objects = block_tree(&draft).unwrap();
        for Object { kind, bytes, .. } in &objects {
            self.put(*kind, bytes);
        }
        let commit = block_commit(&objects[0].id, &draft.header, &draft.receipts);
        let id = self.put(Kind::Commit, &commit);
        let mut certificate = certificate(&chain.chain, draft.header.height, id, 3);
        certify(&mut certificate);
        self.certify(chain, &certificate, draft.header.time_ms);
        id
    }

    /// Puts a tip with this certificate.
    pub fn certify(&self, chain: &Chain, certificate: &Certificate, time_ms: u64) {
        let [tree, blob] = tip_tree(certificate).unwrap();
        self.put(Kind::Blob, &blob.bytes);
        self.put(Kind::Tree, &tree.bytes);
        let tip = tip_commit(&chain.chain, certificate, &tree.id, time_ms);
        let tip = self.put(Kind::Commit, &tip);
        self.set_tip(&tip);
    }

    /// Moves the tip.
    pub fn set_tip(&self, tip: &Oid) {
        let path = self.path.to_str().unwrap();
        let tip = tip.to_hex();
        git(&["-C", path, "update-ref", "refs/remotes/origin/tip", &tip]);
    }
}

/// Makes every object of a clone a file of its own.
pub fn unpack(clone: &Path) {
    let packs = clone.join(".git/objects/pack");
    let aside = clone.join("packs");
    std::fs::rename(&packs, &aside).unwrap();
    std::fs::create_dir(&packs).unwrap();
    for item in std::fs::read_dir(&aside).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_some_and(|e| e == "pack") {
            let status = Command::new("git")
                .arg("-C")
                .arg(clone)
                .args(["unpack-objects", "-q"])
                .stdin(std::fs::File::open(path).unwrap())
                .status()
                .unwrap();
            assert!(status.success());
        }
    }
}

/// Where an object's own file lies.
pub fn loose(clone: &Path, id: &Oid) -> std::path::PathBuf {
    let hex = id.to_hex();
    clone.join(".git/objects").join(&hex[..2]).join(&hex[2..])
}
