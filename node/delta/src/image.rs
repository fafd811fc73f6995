//! Where a file's bytes lie in memory when it runs: what turns an address into a place in the file and back.

/// A stretch of the file that is loaded at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte in the file.
    pub offset: u64,
    /// Address of that byte.
    pub address: u64,
    /// Bytes in the file.
    pub len: u64,
    /// Bytes in memory, at least `len`: the rest is zeros at the start.
    pub memory_len: u64,
}

/// The segments of one file, sorted by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    segments: Vec<Segment>,
    low: u64,
    high: u64,
}

impl Image {
    /// Takes segments as they come.
    pub fn new(mut segments: Vec<Segment>) -> Self {
        segments.sort_by_key(|s| (s.address, s.offset));
        let low = segments.iter().map(|s| s.address).min().unwrap_or(0);
        let high = segments
            .iter()
            .map(|s| s.address.saturating_add(s.memory_len))
            .max()
            .unwrap_or(0);
        Self {
            segments,
            low,
            high,
        }
    }

    /// The segments, sorted by address.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether an address may belong to the program.
    #[inline]
    pub fn holds(&self, address: u64) -> bool {
        address.wrapping_sub(self.low) < self.high.wrapping_sub(self.low)
    }

    /// The address of a byte of the file.
    #[inline]
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        self.segments
            .iter()
            .find(|s| offset.wrapping_sub(s.offset) < s.len)
            .map(|s| s.address.wrapping_add(offset - s.offset))
    }

    /// Bytes from the lowest to the highest address.
    pub fn span(&self) -> u64 {
        self.high - self.low
    }

    /// The lowest address.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// Where an address lies that has no byte in the file: its segment's number, and the distance from the end of the
    /// segment's file bytes.
    pub fn beyond(&self, address: u64) -> Option<(usize, u64)> {
        let number = self
            .segments
            .iter()
            .position(|s| address.wrapping_sub(s.address) < s.memory_len)?;
        let s = &self.segments[number];
        (address - s.address)
            .checked_sub(s.len)
            .map(|distance| (number, distance))
    }

    /// The place in the file of an address. Addresses past a segment's file bytes go on counting.
    #[inline]
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        self.segments
            .iter()
            .find(|s| address.wrapping_sub(s.address) < s.memory_len)
            .map(|s| s.offset.wrapping_add(address - s.address))
    }
}
