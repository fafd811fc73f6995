//! Finds which stretch of the old file each stretch of the new one comes from, by a suffix array.

use libsais::SuffixArrayConstruction;

/// Copy `len` bytes from `old`, then take `extra` bytes that are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Where the copy starts in the old file.
    pub old: u64,
    /// Bytes copied (and corrected).
    pub len: u64,
    /// Bytes that follow and come from nowhere.
    pub extra: u64,
}

/// How many bytes more than the copy that goes on must another one match to be worth a command. A command costs some 33
/// bits, a literal byte of code some 4; of 8 to 32 this made the smallest deltas.
const WORTH_BYTES: usize = 14;

struct Index<'a> {
    text: &'a [u8],
    array: Vec<i32>,
    buckets: Vec<u32>,
}

impl<'a> Index<'a> {
    fn new(text: &'a [u8]) -> Self {
        let array: Vec<i32> = SuffixArrayConstruction::for_text(text)
            .in_owned_buffer()
            .single_threaded()
            .run()
            .expect("the text is shorter than 2 GiB")
            .into_vec();
        let mut buckets = vec![0u32; (1 << 24) + 1];
        for w in text.windows(3) {
            buckets[key(w) + 1] += 1;
        }
        // The last two suffixes are shorter than a key; they are left out of the buckets and never found.
        let mut array2 = Vec::with_capacity(array.len());
        array2.extend(
            array
                .iter()
                .copied()
                .filter(|p| *p as usize + 3 <= text.len()),
        );
        for i in 0..1 << 24 {
            buckets[i + 1] += buckets[i];
        }
        Self {
            text,
            array: array2,
            buckets,
        }
    }

    /// The longest match of the start of `want`: its place and length.
    fn longest(&self, want: &[u8]) -> (usize, usize) {
        if want.len() < 3 {
            return (0, 0);
        }
        let k = key(want);
        let (mut low, mut high) = (self.buckets[k] as usize, self.buckets[k + 1] as usize);
        if low == high {
            return (0, 0);
        }
        // Matched bytes at both ends bound those between.
        let (mut at_low, mut at_high) = (3, 3);
        let (mut best, mut best_len) = (0, 0);
        while low < high {
            let mid = (low + high) / 2;
            let place = self.array[mid] as usize;
            let skip = at_low.min(at_high);
            let common = skip + common(&self.text[place + skip..], &want[skip..]);
            if common > best_len {
                (best, best_len) = (place, common);
            }
            if common == want.len() {
                break;
            }
            if place + common == self.text.len() || self.text[place + common] < want[common] {
                low = mid + 1;
                at_low = common;
            } else {
                high = mid;
                at_high = common;
            }
        }
        (best, best_len)
    }
}

fn key(w: &[u8]) -> usize {
    usize::from(w[0]) << 16 | usize::from(w[1]) << 8 | usize::from(w[2])
}

/// Bytes that two slices have in common at their starts.
fn common(a: &[u8], b: &[u8]) -> usize {
    let n = a.len().min(b.len());
    let mut i = 0;
    while i + 8 <= n {
        let x = u64::from_le_bytes(a[i..i + 8].try_into().expect("eight bytes"))
            ^ u64::from_le_bytes(b[i..i + 8].try_into().expect("eight bytes"));
        if x != 0 {
            return i + (x.trailing_zeros() / 8) as usize;
        }
        i += 8;
    }
    while i < n && a[i] == b[i] {
        i += 1;
    }
    i
}

/// Aligns `new` to `old`, in the manner of bsdiff.
pub fn align(old: &[u8], new: &[u8]) -> Vec<Command> {
    let index = Index::new(old);
    let mut commands: Vec<Command> = Vec::new();
    let (mut scan, mut len, mut pos) = (0usize, 0usize, 0usize);
    let (mut last_scan, mut last_pos, mut last_offset) = (0usize, 0usize, 0isize);
    let at = |i: usize, offset: isize| old.get((i as isize + offset) as usize).copied();
    while scan < new.len() {
        let mut old_score = 0usize;
        scan += len;
        let mut scsc = scan;
        while scan < new.len() {
            (pos, len) = index.longest(&new[scan..]);
            while scsc < scan + len {
                old_score += usize::from(at(scsc, last_offset) == Some(new[scsc]));
                scsc += 1;
            }
            if (len == old_score && len != 0) || len > old_score + WORTH_BYTES {
                break;
            }
            if at(scan, last_offset) == Some(new[scan]) {
                old_score = old_score.saturating_sub(1);
            }
            scan += 1;
        }
        if len == old_score && scan < new.len() {
            continue;
        }
        let (mut s, mut best, mut lenf) = (0isize, 0isize, 0usize);
        let mut i = 0;
        while last_scan + i < scan && last_pos + i < old.len() {
            s += isize::from(old[last_pos + i] == new[last_scan + i]);
            i += 1;
            if s * 2 - i as isize > best {
                best = s * 2 - i as isize;
                lenf = i;
            }
        }
        let mut lenb = 0;
        if scan < new.len() {
            let (mut s, mut best) = (0isize, 0isize);
            let mut i = 1;
            while scan >= last_scan + i && pos >= i {
                s += isize::from(old[pos - i] == new[scan - i]);
                if s * 2 - i as isize > best {
                    best = s * 2 - i as isize;
                    lenb = i;
                }
                i += 1;
            }
        }
        if last_scan + lenf > scan - lenb {
            let overlap = last_scan + lenf - (scan - lenb);
            let (mut s, mut best, mut lens) = (0isize, 0isize, 0usize);
            for i in 0..overlap {
                s += isize::from(
                    new[last_scan + lenf - overlap + i] == old[last_pos + lenf - overlap + i],
                );
                s -= isize::from(new[scan - lenb + i] == old[pos - lenb + i]);
                if s > best {
                    best = s;
                    lens = i + 1;
                }
            }
            lenf = lenf + lens - overlap;
            lenb -= lens;
        }
        let extra = ((scan - lenb) - (last_scan + lenf)) as u64;
        match commands.last_mut() {
            // Nothing is copied: what comes is more of the extra before it.
            Some(Command { extra: before, .. }) if lenf == 0 => *before += extra,
            _ if lenf as u64 + extra > 0 => commands.push(Command {
                old: last_pos as u64,
                len: lenf as u64,
                extra,
            }),
            _ => {}
        }
        last_scan = scan - lenb;
        last_pos = pos - lenb;
        last_offset = pos as isize - scan as isize;
    }
    commands
}
