//! Changes to a corpus, the same each time: what a fuzzer would try first, without one.

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Values at which lengths and counts go wrong.
const EDGES: [u8; 8] = [0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x40, 0xFE];

/// Runs `target` on each file of `folder`, whole, and on `rounds` changes of it.
pub fn replay(folder: &str, rounds: usize, target: &dyn Fn(&[u8])) {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{folder}: {e}"))
        .map(|entry| entry.expect("the corpus can be read").path())
        .collect();
    files.sort();
    assert!(files.len() > 5, "{folder} holds a corpus");
    let corpus: Vec<Vec<u8>> = files
        .iter()
        .map(|path| std::fs::read(path).expect("the corpus can be read"))
        .collect();
    for (path, input) in files.iter().zip(&corpus) {
        // A test that fails says where, because nothing else is printed by it.
        let said = format!("{}", path.display());
        attempt(&said, target, input);
        for round in 0..rounds {
            let mut numbers = Numbers(round as u64 ^ (input.len() as u64) << 32);
            let mut changed = input.clone();
            for _ in 0..=numbers.below(3) {
                let other = &corpus[numbers.below(corpus.len())];
                change(&mut numbers, &mut changed, other);
            }
            attempt(&format!("{said}, round {round}"), target, &changed);
        }
    }
}

fn attempt(said: &str, target: &dyn Fn(&[u8]), input: &[u8]) {
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(input)));
    assert!(ran.is_ok(), "{said} broke it");
}

fn change(numbers: &mut Numbers, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = numbers.below(bytes.len());
    match numbers.below(7) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, EDGES[numbers.below(EDGES.len())]),
        2 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
        3 if !bytes.is_empty() => bytes[at] = EDGES[numbers.below(EDGES.len())],
        4 if !bytes.is_empty() => {
            let end = (at + 1 + numbers.below(16)).min(bytes.len());
            bytes.drain(at..end);
        }
        5 if !bytes.is_empty() => {
            let end = (at + 1 + numbers.below(64)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        _ => {
            let from = numbers.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}
