//! Turns bytes of the old file into bytes of the new one: addresses are moved to where they are foretold, and what is
//! wrong then is corrected by the coder. One code for both sides: see [`crate::coder`].

use crate::coder::{Bits, Flag, Number, fold, unfold};
use crate::fields::{Field, Form, Range, find};
use crate::image::Image;
use crate::plan::Plan;
use crate::predict::{CLASSES, Predictor};

/// Most bytes handled at once; addresses across the border of two pieces are not seen.
pub const PIECE_BYTES: usize = 64 * 1024;

const FORMS: usize = 4;
/// Corrections of addresses that may be named by how long ago they were used, as a power of two.
const KNOWN_BITS: u32 = 8;
const KNOWN: usize = 1 << KNOWN_BITS;
/// Contexts of the byte model that looks at two bytes, as a power of two.
const PAIR_BITS: u32 = 11;

/// The models and the predictor.
pub struct Corrector<'a> {
    new: &'a Image,
    predictor: Predictor<'a>,
    right: Vec<Flag>,
    second: [Flag; FORMS * CLASSES],
    again: [Flag; FORMS],
    off: Vec<Number>,
    recent: [u8; FORMS],
    known: Vec<[u64; KNOWN]>,
    places: Vec<Flag>,
    any: [Flag; 64],
    gaps: Vec<Number>,
    gap: usize,
    single: Vec<ByteModel>,
    pair: Vec<ByteModel>,
}

fn form_number(form: Form) -> usize {
    match form {
        Form::Relative { .. } => 0,
        Form::Based { .. } => 1,
        Form::Backward => 2,
        Form::Absolute => 3,
    }
}

fn tree_code<B: Bits>(bits: &mut B, tree: &mut [Flag], depth: u32, value: usize) -> usize {
    let mut node = 1usize;
    for i in (0..depth).rev() {
        node = node << 1 | usize::from(tree[node].code(bits, value >> i & 1 == 1));
    }
    node - (1 << depth)
}

/// The flags of a tree of 8 bits, laid out so that a byte touches two lines of the processor's cache: the nodes of the
/// first four bits (1 to 15), then for each of the 16 trees below those its own nodes 1 to 15.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct ByteModel([Flag; 17 * 16]);
const UNKNOWN: ByteModel = ByteModel([Flag::NEW; 17 * 16]);

fn pair_of(was: usize, before: usize) -> usize {
    (((was << 8 | before) as u32).wrapping_mul(0x9E37_79B1) >> (32 - PAIR_BITS)) as usize
}

/// Codes a byte that two models foretell.
#[inline]
fn code_byte<B: Bits>(bits: &mut B, a: &mut ByteModel, b: &mut ByteModel, want: u8) -> u8 {
    let mut byte = 0;
    let mut tree = 0;
    for half in [want >> 4, want & 15] {
        let mut node = 1;
        for i in (0..4).rev() {
            let place = tree + node;
            let bit = Flag::code_two(bits, &mut a.0[place], &mut b.0[place], half >> i & 1 == 1);
            node = node << 1 | usize::from(bit);
        }
        byte = byte << 4 | (node & 15);
        tree = 16 * (node - 15);
    }
    byte as u8
}

fn log2(value: usize) -> usize {
    (usize::BITS - value.leading_zeros()) as usize
}

/// Adds the fields of a piece that comes from `old_place` and goes to `new_place`; all of it lies in `range`, or in none.
pub fn fields_of(
    plan: &Plan,
    range: Option<&Range>,
    old_place: u64,
    new_place: u64,
    bytes: &[u8],
    out: &mut Vec<Field>,
) {
    // What has no address in the new program has none that could be foretold.
    if let (Some(range), Some(_)) = (range, plan.new.address_of(new_place)) {
        find(&plan.old, range, old_place - range.offset, bytes, out);
    }
}

impl<'a> Corrector<'a> {
    /// Models that know nothing yet.
    pub fn new(new: &'a Image, predictor: Predictor<'a>) -> Self {
        Self {
            new,
            predictor,
            right: vec![Flag::default(); FORMS * CLASSES * 8],
            second: [Flag::default(); FORMS * CLASSES],
            again: [Flag::default(); FORMS],
            off: vec![Number::default(); FORMS * CLASSES],
            recent: [0; FORMS],
            known: vec![[0; KNOWN]; FORMS],
            places: vec![Flag::default(); FORMS << KNOWN_BITS],
            any: [Flag::default(); 64],
            gaps: vec![Number::default(); 2 * 18],
            gap: 0,
            single: vec![UNKNOWN; 2 << 8],
            pair: vec![UNKNOWN; 1 << PAIR_BITS],
        }
    }

    /// Corrects a piece of at most [`PIECE_BYTES`] that goes to `new_place`. `fields` are those that [`fields_of`] found in
    /// it, `code` says whether it is machine code. `actual` is what must come out, and is empty when decoding.
    pub fn correct<B: Bits>(
        &mut self,
        bits: &mut B,
        code: bool,
        fields: &[Field],
        new_place: u64,
        bytes: &mut [u8],
        actual: &[u8],
    ) {
        if let Some(address) = self.new.address_of(new_place) {
            self.predictor.warm(fields);
            for field in fields {
                self.field(bits, field, address + u64::from(field.at), bytes, actual);
            }
        }
        self.plain(bits, fields, usize::from(code), bytes, actual);
    }

    #[inline]
    fn field<B: Bits>(
        &mut self,
        bits: &mut B,
        field: &Field,
        here: u64,
        bytes: &mut [u8],
        actual: &[u8],
    ) {
        let at = field.at as usize;
        // What an address is counted from, if it is counted from something.
        let base = match field.form {
            Form::Relative { adjust } => here.wrapping_add(u64::from(adjust)),
            Form::Based { base, moved } => {
                moved.unwrap_or_else(|| self.predictor.guess(base).first)
            }
            Form::Backward => here,
            Form::Absolute => 0,
        };
        let narrow = field.form.width() == 4;
        let wanted = match actual.get(at..at + field.form.width()) {
            Some(b) if narrow => {
                let value = i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])) as u64;
                match field.form {
                    Form::Backward => base.wrapping_sub(value),
                    _ => base.wrapping_add(value),
                }
            }
            Some(b) => u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            None => 0,
        };
        let guess = self.predictor.guess(field.target);
        // Of an address in 4 bytes only the low 32 bits matter.
        let cut = |address: u64| {
            if narrow {
                u64::from(address as u32)
            } else {
                address
            }
        };
        let form = form_number(field.form);
        let context = form * CLASSES + guess.class;
        let recent = &mut self.recent[form];
        let right = self.right[context * 8 + usize::from(*recent & 7)]
            .code(bits, cut(wanted) == cut(guess.first));
        *recent = *recent << 1 | u8::from(!right);
        let mut result = guess.first;
        if !right {
            let mut second = false;
            if let Some(other) = guess.second {
                second = self.second[context].code(bits, cut(wanted) == cut(other));
                result = other;
            }
            if !second {
                let off = cut(wanted.wrapping_sub(guess.first));
                let known = &mut self.known[form];
                // A decoder is told.
                let place = match actual {
                    [] => None,
                    _ => known.iter().position(|k| *k == off),
                };
                let off = if self.again[form].code(bits, place.is_some()) {
                    let tree = &mut self.places[form << KNOWN_BITS..(form + 1) << KNOWN_BITS];
                    let place = tree_code(bits, tree, KNOWN_BITS, place.unwrap_or(0));
                    let off = known[place];
                    known.copy_within(0..place, 1);
                    known[0] = off;
                    off
                } else {
                    let signed = if narrow {
                        i64::from(off as u32 as i32)
                    } else {
                        off as i64
                    };
                    let off = cut(unfold(self.off[context].code(bits, fold(signed))) as u64);
                    let known = &mut self.known[form];
                    known.copy_within(0..KNOWN - 1, 1);
                    known[0] = off;
                    off
                };
                result = guess.first.wrapping_add(if narrow {
                    i64::from(off as u32 as i32) as u64
                } else {
                    off
                });
            }
        }
        self.predictor.learn(field.target, result);
        match field.form {
            Form::Absolute => bytes[at..at + 8].copy_from_slice(&result.to_le_bytes()),
            Form::Backward => {
                bytes[at..at + 4]
                    .copy_from_slice(&(base.wrapping_sub(result) as u32).to_le_bytes());
            }
            _ => {
                bytes[at..at + 4].copy_from_slice(&(result.wrapping_sub(base) as u32).to_le_bytes())
            }
        }
    }

    /// Bytes that belong to no field: the gaps between wrong ones, and the right values of those.
    fn plain<B: Bits>(
        &mut self,
        bits: &mut B,
        fields: &[Field],
        code: usize,
        bytes: &mut [u8],
        actual: &[u8],
    ) {
        let end = bytes.len();
        let mut next_field = 0;
        let mut at = 0;
        loop {
            // Steps over fields, counting the plain bytes that are right already.
            let mut gap = 0u64;
            let found = if actual.is_empty() {
                true
            } else {
                let (mut i, mut f) = (at, next_field);
                loop {
                    while f < fields.len() && fields[f].at as usize == i {
                        i += fields[f].form.width();
                        f += 1;
                    }
                    if i >= end {
                        break false;
                    }
                    if bytes[i] != actual[i] {
                        break true;
                    }
                    gap += 1;
                    i += 1;
                }
            };
            let left = log2(end - at).min(31);
            if !self.any[code << 5 | left].code(bits, found) {
                return;
            }
            let gap = self.gaps[code * 18 + self.gap].code(bits, gap);
            self.gap = log2(gap.min(1 << 16) as usize);
            let mut gap = gap;
            loop {
                while next_field < fields.len() && fields[next_field].at as usize == at {
                    at += fields[next_field].form.width();
                    next_field += 1;
                }
                let free = fields.get(next_field).map_or(end, |f| f.at as usize) - at.min(end);
                if free == 0 {
                    // Only a damaged delta counts past the end of its piece.
                    return;
                }
                if gap < free as u64 {
                    at += gap as usize;
                    break;
                }
                gap -= free as u64;
                at += free;
            }
            let was = usize::from(bytes[at]);
            let before = if at > 0 {
                usize::from(bytes[at - 1])
            } else {
                0
            };
            let pair = pair_of(was, before);
            let want = actual.get(at).copied().unwrap_or(0);
            bytes[at] = code_byte(
                bits,
                &mut self.single[code << 8 | was],
                &mut self.pair[pair],
                want,
            );
            // Wrong bytes come in rows. The table is larger than the caches: this makes the next answer come sooner.
            if let Some(next) = bytes.get(at + 1) {
                let next = pair_of(usize::from(*next), usize::from(bytes[at]));
                std::hint::black_box(self.pair[next].0[1]);
            }
            at += 1;
        }
    }
}
