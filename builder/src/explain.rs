//! Why two builds of one source differ: the differing texts are searched for what the two builds had different.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The shortest text that counts: shorter ones are mostly machine code that happens to be printable.
const MIN_TEXT: usize = 4;
/// How much of a text is shown as evidence.
const MAX_EVIDENCE_CHARS: usize = 120;
/// How many differing texts are looked at; a build that differs in more differs everywhere.
const MAX_TEXTS: usize = 20_000;

/// What probably made two builds differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The time of the build.
    Time,
    /// A path of the machine.
    Path,
    /// The host's name.
    HostName,
    /// The user's name.
    UserName,
    /// The time zone.
    TimeZone,
    /// The locale.
    Locale,
    /// The same parts in another order.
    Order,
    /// Only the linker's build id, which stands for other differences.
    BuildId,
    /// Only one of the builds made the file.
    OnlyOnce,
    /// Nothing that the builds had different on purpose; randomness is likely.
    Unknown,
}

impl Cause {
    /// What usually mends it.
    pub fn mend(self) -> &'static str {
        match self {
            Self::Time => {
                "take the time from SOURCE_DATE_EPOCH, which is the commit's, or leave it out"
            }
            Self::Path => {
                "leave the path out, or map it away with --remap-path-prefix or -ffile-prefix-map"
            }
            Self::HostName => "leave the host's name out",
            Self::UserName => "leave the user's name out",
            Self::TimeZone => "compute in UTC",
            Self::Locale => "sort and format without the locale",
            Self::Order => {
                "sort what is listed or collected before it is written: read_dir and HashMap have no order"
            }
            Self::BuildId => "pass --build-id=none or =sha1 to the linker",
            Self::OnlyOnce => "make the file in every build",
            Self::Unknown => {
                "look for randomness, addresses, the number of jobs and unordered maps in build scripts and macros"
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "the time of the build",
            Self::Path => "a path of the machine",
            Self::HostName => "the host's name",
            Self::UserName => "the user's name",
            Self::TimeZone => "the time zone",
            Self::Locale => "the locale",
            Self::Order => "the order of its parts",
            Self::BuildId => "the linker's build id",
            Self::OnlyOnce => "a build that made it and one that did not",
            Self::Unknown => "something unknown, perhaps randomness",
        })
    }
}

/// What the two builds had different, each as (first, second).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Clues {
    /// From when to when each build ran, by the clock that it saw, in seconds since 1970.
    pub times: [(u64, u64); 2],
    /// Texts whose appearance names their cause.
    pub texts: Vec<(Cause, [String; 2])>,
}

/// The likely cause, and the two texts that show it. The build ids should be masked already: they always differ too.
pub(crate) fn explain(a: &[u8], b: &[u8], clues: &Clues) -> (Cause, Option<[String; 2]>) {
    let (texts_a, texts_b) = (texts(a), texts(b));
    let only_a: Vec<&str> = texts_a
        .difference(&texts_b)
        .copied()
        .take(MAX_TEXTS)
        .collect();
    let only_b: Vec<&str> = texts_b
        .difference(&texts_a)
        .copied()
        .take(MAX_TEXTS)
        .collect();
    for (cause, [in_a, in_b]) in &clues.texts {
        let shown_a = only_a.iter().find(|t| contains(t, in_a));
        let shown_b = only_b.iter().find(|t| contains(t, in_b));
        if let (Some(x), Some(y)) = (shown_a, shown_b) {
            return (*cause, Some([around(x, in_a), around(y, in_b)]));
        }
    }
    let time_a = only_a.iter().find_map(|t| time_in(t, clues.times[0]));
    let time_b = only_b.iter().find_map(|t| time_in(t, clues.times[1]));
    if let (Some(x), Some(y)) = (time_a, time_b) {
        return (Cause::Time, Some([x, y]));
    }
    if let Some(found) = binary_time(a, b, clues) {
        return (Cause::Time, Some(found));
    }
    let evidence = only_a
        .first()
        .zip(only_b.first())
        .map(|(x, y)| [cut(x), cut(y)]);
    if a.len() == b.len() && histogram(a) == histogram(b) {
        return (Cause::Order, evidence);
    }
    (Cause::Unknown, evidence)
}

fn contains(text: &str, clue: &str) -> bool {
    !clue.is_empty() && text.contains(clue)
}

/// The printable texts of a file, as `strings` finds them.
fn texts(file: &[u8]) -> BTreeSet<&str> {
    file.split(|b| !(b' '..=b'~').contains(b))
        .filter(|run| run.len() >= MIN_TEXT)
        .filter_map(|run| std::str::from_utf8(run).ok())
        .collect()
}

/// How far local time is behind UTC, and ahead of it, at most.
const WEST_S: u64 = 12 * 3600;
const EAST_S: u64 = 14 * 3600;

/// A moment of the build written in this text: seconds, milliseconds or nanoseconds since 1970, or a date.
fn time_in(text: &str, (from, to): (u64, u64)) -> Option<String> {
    let bytes = text.as_bytes();
    // Texts stand side by side in a program without anything between them, so every place may be a beginning.
    for start in 0..bytes.len().saturating_sub(9) {
        let number = bytes.get(start..start + 10)?;
        let seconds = number
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| std::str::from_utf8(number).ok()?.parse().ok());
        if let Some(Some(seconds)) = seconds
            && (from..=to).contains(&seconds)
        {
            return Some(around(text, std::str::from_utf8(number).ok()?));
        }
    }
    // Local time, whose zone the builds differ in, can be a day before or after.
    let days = [
        from.saturating_sub(WEST_S),
        from,
        to,
        to.saturating_add(EAST_S),
    ];
    for moment in days {
        let (year, month, day) = civil(moment);
        let month_name = MONTHS[month as usize - 1];
        for date in [
            format!("{year:04}-{month:02}-{day:02}"),
            format!("{year:04}{month:02}{day:02}"),
            format!("{year:04}/{month:02}/{day:02}"),
            format!("{month_name} {day:2} {year}"),
            format!("{day:02} {month_name} {year}"),
            format!("{month_name} {day:2}"),
        ] {
            if text.contains(&date) {
                return Some(around(text, &date));
            }
        }
    }
    None
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Year, month and day of a moment in UTC, by the usual arithmetic of the Gregorian calendar with years from March.
fn civil(seconds: u64) -> (u64, u64, u64) {
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// A moment written as a number in both files at the same place: seconds, milliseconds or nanoseconds.
fn binary_time(a: &[u8], b: &[u8], clues: &Clues) -> Option<[String; 2]> {
    if a.len() != b.len() {
        return None;
    }
    let moment = |bytes: &[u8], (from, to): (u64, u64)| {
        let wide = bytes
            .get(..8)
            .map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes were taken")));
        let narrow = bytes.get(..4).map(|w| {
            u64::from(u32::from_le_bytes(
                w.try_into().expect("four bytes were taken"),
            ))
        });
        let scaled = wide
            .into_iter()
            .flat_map(|w| [w, w / 1000, w / 1_000_000, w / 1_000_000_000]);
        scaled.chain(narrow).find(|s| (from..=to).contains(s))
    };
    let differing = a
        .iter()
        .zip(b)
        .enumerate()
        .filter(|(_, (x, y))| x != y)
        .map(|(at, _)| at);
    for at in differing.take(MAX_TEXTS) {
        // The lower bytes of the two moments may be equal, so the number can begin a little before.
        for start in at.saturating_sub(7)..=at {
            if let (Some(x), Some(y)) = (
                moment(&a[start..], clues.times[0]),
                moment(&b[start..], clues.times[1]),
            ) {
                return Some([x.to_string(), y.to_string()]);
            }
        }
    }
    None
}

/// How often each byte stands in the file.
fn histogram(file: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    for byte in file {
        counts[usize::from(*byte)] += 1;
    }
    counts
}

/// Overwrites the linker's build id with zeroes: it is a digest of the rest and so says nothing of its own.
pub(crate) fn mask_build_id(file: &mut [u8]) {
    use object::{Object, ObjectSection};
    let range = object::File::parse(&*file)
        .ok()
        .and_then(|elf| elf.section_by_name(".note.gnu.build-id")?.file_range());
    let Some((start, size)) = range else {
        return;
    };
    let (Ok(start), Ok(size)) = (usize::try_from(start), usize::try_from(size)) else {
        return;
    };
    if let Some(id) = start
        .checked_add(size)
        .and_then(|end| file.get_mut(start..end))
    {
        id.fill(0);
    }
}

/// The clue with what stands around it.
fn around(text: &str, clue: &str) -> String {
    let at = text.find(clue).unwrap_or(0);
    let from = at.saturating_sub(MAX_EVIDENCE_CHARS / 3);
    cut(&text[from..])
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_EVIDENCE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clues() -> Clues {
        Clues {
            times: [
                (1_700_000_000, 1_700_000_010),
                (1_734_000_000, 1_734_000_010),
            ],
            texts: vec![
                (Cause::HostName, ["instar".into(), "elsewhere".into()]),
                (Cause::Path, ["/work/one/".into(), "/work/two/".into()]),
            ],
        }
    }

    fn cause(a: &[u8], b: &[u8]) -> Cause {
        explain(a, b, &clues()).0
    }

    #[test]
    fn causes_are_named() {
        assert_eq!(
            cause(b"x\0at 1700000003!\0", b"x\0at 1734000003!\0"),
            Cause::Time
        );
        assert_eq!(
            cause(b"\x01built 2023-11-14\x01", b"\x01built 2024-12-12\x01"),
            Cause::Time
        );
        // The second moment is at 10:40 UTC on the 12th, which is the 13th already where the day begins first.
        assert_eq!(
            cause(b"\x01built 2023-11-14\x01", b"\x01built 2024-12-13\x01"),
            Cause::Time
        );
        assert_eq!(
            cause(b"on instar now\0", b"on elsewhere now\0"),
            Cause::HostName
        );
        assert_eq!(
            cause(b"\0/work/one/src/a.rs\0", b"\0/work/two/src/a.rs\0"),
            Cause::Path
        );
        assert_eq!(cause(b"alpha\0beta\0", b"beta\0alpha\0"), Cause::Order);
        assert_eq!(cause(b"\0seed 83745\0", b"\0seed 19284\0"), Cause::Unknown);
        let number = |s: u64| [b"\x01\x02".as_slice(), &s.to_le_bytes(), b"\x03"].concat();
        assert_eq!(
            cause(&number(1_700_000_004), &number(1_734_000_004)),
            Cause::Time
        );
        assert_eq!(
            cause(&number(1_700_000_004_123), &number(1_734_000_004_123)),
            Cause::Time
        );
    }

    #[test]
    fn dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(1_700_000_000), (2023, 11, 14));
        assert_eq!(civil(1_709_164_800), (2024, 2, 29));
    }
}
