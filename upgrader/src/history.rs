//! What happened, one JSON object a line in `history.jsonl`: for people, and for reports. Nothing is decided by it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// When the file has grown to this, it becomes `history.1.jsonl` and a new one is begun.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The longest line that is read back.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first program was installed.
    Installed {
        /// Its release.
        release: String,
    },
    /// A supervisor started and found a swap or a return half done.
    Resumed {
        /// The phase that it found.
        phase: String,
    },
    /// The program was started.
    Started {
        /// Its release.
        release: String,
        /// Its process id.
        pid: u32,
    },
    /// The program ended.
    Exited {
        /// How.
        status: String,
        /// Whether it was asked to.
        expected: bool,
    },
    /// The program stopped reporting its health and is restarted.
    Hung {
        /// Its release.
        release: String,
    },
    /// A swap was refused after its bytes were looked at.
    SwapRefused {
        /// What was to be swapped in.
        release: String,
        /// Why.
        why: String,
    },
    /// A swap was begun.
    SwapBegan {
        /// Its generation.
        generation: u64,
        /// What ran.
        from: String,
        /// What is to run.
        to: String,
    },
    /// The new program proved healthy.
    Kept {
        /// Its release.
        release: String,
        /// The height that it had committed.
        height: u64,
        /// Its peers.
        peers: u32,
    },
    /// The new program failed, and the return begins.
    Reverting {
        /// What failed.
        release: String,
        /// What is returned to.
        to: String,
        /// Why.
        why: String,
    },
    /// The return is done.
    Reverted {
        /// What failed.
        release: String,
        /// What runs again.
        to: String,
        /// Why.
        why: String,
    },
    /// The new program failed, and the one before is below the floor.
    NoWayBack {
        /// What failed.
        release: String,
        /// The floor.
        floor: u32,
        /// Why it failed.
        why: String,
    },
    /// Swaps are refused from now on, or no longer.
    Held {
        /// Whether they are refused.
        on: bool,
    },
    /// The floor was raised.
    Floor {
        /// To this protocol number.
        protocol: u32,
    },
    /// Something could not be written.
    DiskFailed {
        /// Why.
        why: String,
    },
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// The decision that it belongs to.
    pub plan: u64,
    /// When, by this machine's clock, in milliseconds since 1970; for people.
    pub time_ms: u64,
}

/// Appends a line.
pub(crate) fn append(layout: &Layout, line: &Line) -> io::Result<()> {
    let path = layout.history();
    if fs::metadata(&path).is_ok_and(|m| m.len() >= MAX_FILE_BYTES) {
        fs::rename(&path, layout.old_history())?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(&path)?;
    let mut text = Vec::new();
    if !ends_with_newline(&mut file)? {
        // The line before was cut off, by a full disk or a power cut.
        text.push(b'\n');
    }
    serde_json::to_writer(&mut text, line)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_data()
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}

/// The history of a home, oldest first. Lines that were cut off, or that a newer program wrote, are left out.
pub fn history(home: &Path) -> io::Result<Vec<Line>> {
    let layout = Layout::new(home);
    let mut lines = Vec::new();
    for path in [layout.old_history(), layout.history()] {
        match File::open(path) {
            Ok(file) => read(BufReader::new(file), &mut lines)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(lines)
}

fn read(mut file: impl BufRead, lines: &mut Vec<Line>) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        if file
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(());
        }
        lines.extend(serde_json::from_slice::<Line>(&line).ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(plan: u64) -> Line {
        Line {
            event: Event::Held { on: true },
            plan,
            time_ms: 5,
        }
    }

    #[test]
    fn a_line_that_was_cut_off_costs_only_itself() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path());
        fs::create_dir_all(layout.root()).unwrap();
        append(&layout, &line(1)).unwrap();
        let mut file = OpenOptions::new()
            .append(true)
            .open(layout.history())
            .unwrap();
        file.write_all(br#"{"event":"held","#).unwrap();
        append(&layout, &line(2)).unwrap();
        assert_eq!(history(home.path()).unwrap(), [line(1), line(2)]);
        let text = fs::read_to_string(layout.history()).unwrap();
        assert!(
            text.starts_with("{\"event\":\"held\",\"on\":true,\"plan\":1,\"time_ms\":5}\n"),
            "{text}"
        );
    }

    #[test]
    fn the_history_stays_bounded() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path());
        fs::create_dir_all(layout.root()).unwrap();
        fs::write(layout.history(), vec![b'\n'; MAX_FILE_BYTES as usize]).unwrap();
        append(&layout, &line(3)).unwrap();
        assert!(fs::metadata(layout.history()).unwrap().len() < 100);
        assert_eq!(history(home.path()).unwrap(), [line(3)]);
    }
}
