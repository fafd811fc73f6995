//! Any bytes as a CAR archive: what is read was hashed, stands in the archive, and can be written and read again.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_chunks::Cid;
use instar_chunks::block::verify;
use instar_chunks::car::{CarReader, CarWriter, MAX_ROOTS};

/// Fails on anything but blocks that are what they say, or a named error.
pub fn run(data: &[u8]) {
    let Some((roots, blocks)) = read(data) else {
        return;
    };
    let mut car = CarWriter::new(Vec::new(), &roots).unwrap();
    for (cid, bytes) in &blocks {
        car.block(cid, bytes).unwrap();
    }
    let again = read(&car.finish().unwrap());
    assert_eq!(again, Some((roots, blocks)));
}

type Archive = (Vec<Cid>, Vec<(Cid, Vec<u8>)>);

/// The blocks before the first that is refused.
fn read(data: &[u8]) -> Option<Archive> {
    let mut car = CarReader::new(data).ok()?;
    let roots = car.roots().to_vec();
    assert!(roots.len() <= MAX_ROOTS);
    let mut blocks = Vec::new();
    let mut before = car.position();
    while let Ok(Some((cid, bytes))) = car.next_block() {
        verify(&cid, &bytes).unwrap();
        assert!(before < car.position() && car.position() <= data.len() as u64);
        before = car.position();
        blocks.push((cid, bytes));
    }
    Some((roots, blocks))
}
