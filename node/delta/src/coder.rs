//! The range coder and its numbers. Modelling code is written once, over [`Bits`]: the encoder takes the bit that it is
//! given, the decoder gives the bit that it finds, and so the two can't drift apart.

/// One side of the coder.
pub trait Bits {
    /// Codes one bit; `p` of 65,536 is the chance that it is 1, from 1 to 65,535. A decoder ignores `bit`.
    fn code(&mut self, bit: u32, p: u32) -> u32;
}

/// Writes bits.
#[derive(Debug)]
pub struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            low: 0,
            high: u32::MAX,
            out: Vec::new(),
        }
    }
}

impl Encoder {
    /// The bytes written.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(&self.low.to_be_bytes());
        self.out
    }
}

#[inline]
fn middle(low: u32, high: u32, p: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(p)) >> 16) as u32
}

impl Bits for Encoder {
    #[inline]
    fn code(&mut self, bit: u32, p: u32) -> u32 {
        let mid = middle(self.low, self.high, p);
        if bit == 1 {
            self.high = mid;
        } else {
            self.low = mid + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 255;
        }
        bit
    }
}

/// Where a decoder's bytes come from. After the end it gets zeros; its owner asks [`Feed::overrun`] now and then.
pub trait Feed {
    /// The next byte.
    fn next(&mut self) -> u8;
    /// Whether more was asked for than there was, or reading failed.
    fn overrun(&self) -> bool;
}

/// Reads bits.
#[derive(Debug)]
pub struct Decoder<F> {
    low: u32,
    high: u32,
    code: u32,
    feed: F,
}

impl<F: Feed> Decoder<F> {
    /// Starts at the feed's first byte.
    pub fn new(mut feed: F) -> Self {
        let mut code = 0;
        for _ in 0..4 {
            code = code << 8 | u32::from(feed.next());
        }
        Self {
            low: 0,
            high: u32::MAX,
            code,
            feed,
        }
    }

    /// Whether the bytes ended before the bits did.
    pub fn overrun(&self) -> bool {
        self.feed.overrun()
    }
}

impl<F: Feed> Bits for Decoder<F> {
    // One of these for each bit: a call would cost as much as it does.
    #[inline(always)]
    fn code(&mut self, _bit: u32, p: u32) -> u32 {
        let mid = middle(self.low, self.high, p);
        let bit = u32::from(self.code <= mid);
        if bit == 1 {
            self.high = mid;
        } else {
            self.low = mid + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 255;
            self.code = self.code << 8 | u32::from(self.feed.next());
        }
        bit
    }
}

/// The chance of a bit, learned: 16 bits of chance, and how often it was used.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    p: u16,
    used: u8,
}

/// A flag learns by halves at first, by 1/64 at last.
const SLOWEST: u8 = 6;

impl Default for Flag {
    fn default() -> Self {
        Self::NEW
    }
}

impl Flag {
    /// A flag that knows nothing.
    pub const NEW: Self = Self {
        p: 1 << 15,
        used: 0,
    };

    /// Codes a bit and learns it.
    #[inline]
    pub fn code<B: Bits>(&mut self, bits: &mut B, bit: bool) -> bool {
        let bit = bits.code(u32::from(bit), u32::from(self.p).max(1)) == 1;
        self.learn(bit);
        bit
    }
}

impl Flag {
    /// Codes a bit that two flags foretell, by the mean of both.
    #[inline]
    pub fn code_two<B: Bits>(bits: &mut B, a: &mut Self, b: &mut Self, bit: bool) -> bool {
        let p = (u32::from(a.p) + u32::from(b.p)) / 2;
        let bit = bits.code(u32::from(bit), p.max(1)) == 1;
        a.learn(bit);
        b.learn(bit);
        bit
    }

    #[inline]
    fn learn(&mut self, bit: bool) {
        let rate = 1 + self.used / 2;
        if rate < SLOWEST {
            self.used += 1;
        }
        if bit {
            self.p += (u16::MAX - self.p) >> rate;
        } else {
            self.p -= self.p >> rate;
        }
    }
}

/// Codes `count` bits without a model, highest first.
pub fn plain<B: Bits>(bits: &mut B, value: u64, count: u32) -> u64 {
    let mut out = 0;
    for i in (0..count).rev() {
        out = out << 1 | u64::from(bits.code((value >> i & 1) as u32, 1 << 15));
    }
    out
}

/// Whole numbers: their length in bits by a tree, the two bits below the leading one learned, the rest plain.
#[derive(Clone, Debug)]
pub struct Number {
    length: [Flag; 128],
    top: [[Flag; 4]; 65],
}

impl Default for Number {
    fn default() -> Self {
        Self {
            length: [Flag::default(); 128],
            top: [[Flag::default(); 4]; 65],
        }
    }
}

impl Number {
    /// Codes a number of at most 64 bits.
    pub fn code<B: Bits>(&mut self, bits: &mut B, value: u64) -> u64 {
        let length = 64 - value.leading_zeros();
        let mut node = 1;
        for i in (0..7).rev() {
            let bit = self.length[node].code(bits, length >> i & 1 == 1);
            node = node << 1 | usize::from(bit);
        }
        // A hostile length over 64 reads as 64.
        let length = (node as u32 - 128).min(64);
        if length < 2 {
            return u64::from(length);
        }
        let modelled = (length - 1).min(2);
        let mut out = 1u64;
        let mut node = 1;
        for i in (0..modelled).rev() {
            let bit = value >> (length - 1 - modelled + i) & 1 == 1;
            let bit = self.top[length as usize][node].code(bits, bit);
            node = node << 1 | usize::from(bit);
            out = out << 1 | u64::from(bit);
        }
        let rest = length - 1 - modelled;
        let low = plain(bits, value, rest);
        // `rest` is at most 61, so that the shift is in range.
        out << rest | low
    }
}

/// Signed to unsigned, small to small.
pub fn fold(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The inverse of [`fold`].
pub fn unfold(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
