//! From agreed files to `release.json` and the root CID: pure, the same on every node, signed by nobody.

use std::collections::BTreeMap;

use instar_attest::release::{Cid, RELEASE_PATH, Release, ReleaseError};
use instar_chunks::{Profile, TreeLink};

/// Why there is no root for a release.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseRootError {
    /// The release is not as it must be.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// Cut under a profile that this program does not know.
    #[error("the chunk profile {0} is unknown")]
    Profile(String),
    /// A CID or a path that no directory can hold.
    #[error("the release's directory: {0}")]
    Tree(String),
}

/// The text of `release.json` and the CID of the release's root directory.
pub fn release_root(release: &Release) -> Result<(String, Cid), ReleaseRootError> {
    let profile = Profile::InstarCdcV1;
    if release.chunk_profile.as_str() != profile.name() {
        return Err(ReleaseRootError::Profile(release.chunk_profile.to_string()));
    }
    let bytes = release.to_bytes()?;
    let tree = |e: &dyn std::fmt::Display| ReleaseRootError::Tree(e.to_string());
    let mut links: BTreeMap<String, TreeLink> = BTreeMap::new();
    for (path, link) in release.links() {
        let cid = link.cid.as_str().parse().map_err(|e| tree(&e))?;
        let dag_size = link.dag_size;
        links.insert(path, TreeLink { cid, dag_size });
    }
    let own = instar_chunks::add_file(profile, &mut bytes.as_slice(), &mut |_, _| Ok(()))
        .map_err(|e| tree(&e))?;
    let link = TreeLink {
        cid: own.cid,
        dag_size: own.dag_size,
    };
    links.insert(RELEASE_PATH.into(), link);
    let (root, _) = instar_chunks::tree_root(&links).map_err(|e| tree(&e))?;
    let root = Cid::new(root.to_string()).map_err(|e| tree(&e))?;
    let text = String::from_utf8(bytes).expect("canonical JSON is UTF-8");
    Ok((text, root))
}
