//! Foretells what became of an address of the old program: by what was seen of it before, else by where the bytes it
//! points at went.

use crate::fields::Field;
use crate::image::Image;
use crate::map::Map;

/// Addresses remembered, as a power of two. Programs of 50 MB have some 300,000.
const SEEN_BITS: u32 = 19;

/// How much a memory is trusted at most.
const SURE: u8 = 3;

/// How a prediction was made; the chance that it is right depends on it. The first `SURE` + 1 are memories.
pub const CLASSES: usize = SURE as usize + 4;
const EXACT: usize = SURE as usize + 1;
const GUESSED: usize = SURE as usize + 2;
const NOTHING: usize = SURE as usize + 3;

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    old: u32,
    new: u32,
    trust: u8,
    set: bool,
}

/// The predictor.
#[derive(Debug)]
pub struct Predictor<'a> {
    old: &'a Image,
    new: &'a Image,
    map: &'a Map,
    seen: Vec<Seen>,
}

/// A prediction.
#[derive(Clone, Copy, Debug)]
pub struct Guess {
    /// The address in the new program.
    pub first: u64,
    /// Another candidate, which differs.
    pub second: Option<u64>,
    /// How the first was made.
    pub class: usize,
}

impl<'a> Predictor<'a> {
    /// A predictor that has seen nothing.
    pub fn new(old: &'a Image, new: &'a Image, map: &'a Map) -> Self {
        Self {
            old,
            new,
            map,
            seen: vec![Seen::default(); 1 << SEEN_BITS],
        }
    }

    #[inline]
    fn key(&self, address: u64) -> (u32, usize) {
        // A field is found only if its target lies in the image, whose span is below 2^32.
        let key = address.wrapping_sub(self.old.low()) as u32;
        (
            key,
            (key.wrapping_mul(0x9E37_79B1) >> (32 - SEEN_BITS)) as usize,
        )
    }

    /// Touches what the fields will ask for. The table is larger than the processor's caches: here its slow answers overlap.
    pub fn warm(&self, fields: &[Field]) {
        let mut all = 0;
        for field in fields {
            all ^= self.seen[self.key(field.target).1].old;
        }
        std::hint::black_box(all);
    }

    fn mapped(&self, address: u64) -> (u64, usize) {
        if let Some((segment, distance)) = self.old.beyond(address) {
            return match self.new.segments().get(segment) {
                Some(s) => (
                    s.address.wrapping_add(s.len).wrapping_add(distance),
                    GUESSED,
                ),
                None => (address, NOTHING),
            };
        }
        let place = self.old.offset_of(address).and_then(|o| self.map.get(o));
        match place.and_then(|(o, exact)| Some((self.new.address_of(o)?, exact))) {
            Some((address, exact)) => (address, if exact { EXACT } else { GUESSED }),
            None => (address, NOTHING),
        }
    }

    /// What became of an address.
    #[inline]
    pub fn guess(&self, address: u64) -> Guess {
        let (key, place) = self.key(address);
        let seen = self.seen[place];
        if seen.set && seen.old == key {
            let first = self.new.low().wrapping_add(u64::from(seen.new));
            let second = if seen.trust < SURE {
                Some(self.mapped(address).0)
            } else {
                None
            };
            return Guess {
                first,
                second: second.filter(|s| *s != first),
                class: usize::from(seen.trust),
            };
        }
        let (first, class) = self.mapped(address);
        Guess {
            first,
            second: None,
            class,
        }
    }

    /// Remembers what became of an address.
    #[inline]
    pub fn learn(&mut self, address: u64, actual: u64) {
        let (key, place) = self.key(address);
        let seen = &mut self.seen[place];
        let actual = actual.wrapping_sub(self.new.low());
        if actual > u64::from(u32::MAX) {
            return;
        }
        if seen.set && seen.old == key {
            if u64::from(seen.new) == actual {
                seen.trust = (seen.trust + 1).min(SURE);
                return;
            }
            if seen.trust >= 2 {
                seen.trust -= 2;
                return;
            }
        }
        *seen = Seen {
            old: key,
            new: actual as u32,
            trust: 0,
            set: true,
        };
    }
}
