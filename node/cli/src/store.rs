//! The local block store that `add`, `get`, `pin` and `store` share.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use instar_chunks::BlockStore;

/// Where blocks are kept.
#[derive(clap::Args, Clone)]
pub struct StoreArgs {
    /// Folder of the block store; a node's home is one while the node is stopped
    /// [default: $XDG_DATA_HOME/instar, or ~/.local/share/instar]
    #[arg(long, value_name = "DIR", env = "INSTAR_STORE")]
    pub store: Option<PathBuf>,
}

impl StoreArgs {
    /// The folder, made or not.
    pub fn folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.store {
            return Ok(folder.clone());
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(data) = set("XDG_DATA_HOME") {
            return Ok(Path::new(&data).join("instar"));
        }
        match set("HOME") {
            Some(home) => Ok(Path::new(&home).join(".local/share/instar")),
            None => bail!("there is no home folder to keep blocks in; name one with --store DIR"),
        }
    }

    fn index(&self) -> Result<PathBuf> {
        Ok(self.folder()?.join("blocks.redb"))
    }

    /// The store, made if it isn't there.
    pub fn open(&self) -> Result<BlockStore> {
        let folder = self.folder()?;
        fs::create_dir_all(&folder)
            .with_context(|| format!("the store {} can't be made", folder.display()))?;
        Ok(BlockStore::open(&self.index()?)?)
    }

    /// The store, which must be there.
    pub fn open_existing(&self) -> Result<BlockStore> {
        let index = self.index()?;
        if !index.exists() {
            bail!(
                "there is no block store in {}; `instar add` makes one, --store DIR names another",
                self.folder()?.display()
            );
        }
        Ok(BlockStore::open(&index)?)
    }
}

/// Bytes for people: `512 B`, `1.5 MiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// Reads `4096`, `500MB`, `10GiB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no number of bytes; write e.g. 4096, 500MB, 10GiB"))?;
    let factor: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        unit => {
            return Err(format!(
                "{unit:?} is no unit; use KB, MB, GB, TB, KiB, MiB, GiB, TiB"
            ));
        }
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("{text:?} is more than 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(parse_bytes("10GiB"), Ok(10 << 30));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("5MB"), Ok(5_000_000));
        for bad in ["", "GiB", "1.5GiB", "10 GiB", "5XB", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(1000), "1000 B");
    }
}
