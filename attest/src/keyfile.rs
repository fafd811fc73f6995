//! Secret keys in files. This is the one module of the room that does I/O and draws randomness.
//!
//! A key file is canonical JSON and a line end: `{"format":"instar-key-v1","public":…,"purpose":…,"secret":…}`, with
//! mode 0600. What it is for stands in it, so that a key can't be loaded for another purpose by mistake.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::json::{self, JsonError};
use crate::key::{PublicKey, Purpose, SecretKey};

/// The largest key file; a real one has about 220 bytes.
pub const MAX_KEY_FILE_BYTES: u64 = 1024;

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file can't be read or written.
    #[error("key file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error(
        "key file {path} has mode {mode:03o}; a secret key must be readable by its owner alone (chmod 600)"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key file.
    #[error("key file {path} is not an Instar key file")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: JsonError,
    },
    /// The two halves don't belong together, or the secret is no key.
    #[error("key file {path}: the public key is not that of the secret key")]
    Halves {
        /// The file.
        path: PathBuf,
    },
    /// A key for something else.
    #[error("key file {path} holds a {got} key, a {expected} key is needed here")]
    Purpose {
        /// The file.
        path: PathBuf,
        /// The key's purpose.
        got: Purpose,
        /// The purpose that was asked for.
        expected: Purpose,
    },
    /// The system has no randomness to give.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

#[derive(Serialize, Deserialize)]
enum Format {
    #[serde(rename = "instar-key-v1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: Format,
    public: PublicKey,
    purpose: Purpose,
    secret: String,
}

impl Drop for Content {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// 32 random bytes of the operating system, for a new key or nonce.
pub fn os_seed() -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(KeyFileError::Random)?;
    Ok(seed)
}

/// Writes a new key file with mode 0600 and makes it durable. A file that is there already is never overwritten.
pub fn create(path: &Path, purpose: Purpose, key: &SecretKey) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let content = Content {
        format: Format::V1,
        public: key.public(),
        purpose,
        secret: key.expose_hex().to_string(),
    };
    let mut bytes = Zeroizing::new(json::to_vec(&content).expect("a key file is short ASCII text"));
    bytes.push(b'\n');
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    file.write_all(&bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    // The name is durable only once its folder is.
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|f| f.sync_all()).map_err(io)
}

/// Draws a new key and writes its file.
pub fn generate(path: &Path, purpose: Purpose) -> Result<SecretKey, KeyFileError> {
    let key = SecretKey::from_seed(&*os_seed()?);
    create(path, purpose, &key)?;
    Ok(key)
}

/// Loads a key that is there for `purpose`.
pub fn load(path: &Path, purpose: Purpose) -> Result<SecretKey, KeyFileError> {
    let (key, got) = load_any(path)?;
    if got != purpose {
        return Err(KeyFileError::Purpose {
            path: path.to_owned(),
            got,
            expected: purpose,
        });
    }
    Ok(key)
}

/// Loads a key whatever its purpose, and says which it is: for commands that show keys, not for those that sign.
pub fn load_any(path: &Path) -> Result<(SecretKey, Purpose), KeyFileError> {
    let io = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    // Asked of the open file, so that nobody can change it in between.
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    // Room for all of it, so that no copy of the secret is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES as usize + 1));
    file.take(MAX_KEY_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let content: Content =
        json::from_slice(line, MAX_KEY_FILE_BYTES as usize).map_err(|source| {
            KeyFileError::Format {
                path: path.to_owned(),
                source,
            }
        })?;
    let halves = || KeyFileError::Halves {
        path: path.to_owned(),
    };
    let key = SecretKey::from_hex(&content.secret).map_err(|_| halves())?;
    if key.public() != content.public {
        return Err(halves());
    }
    Ok((key, content.purpose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_loaded_for_its_purpose_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("builder.key");
        let key = generate(&path, Purpose::Builder).unwrap();
        assert_eq!(
            load(&path, Purpose::Builder).unwrap().public(),
            key.public()
        );
        assert!(matches!(
            load(&path, Purpose::Account),
            Err(KeyFileError::Purpose { .. })
        ));
        assert!(
            create(&path, Purpose::Builder, &key).is_err(),
            "overwritten"
        );
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        generate(&path, Purpose::Lane).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load(&path, Purpose::Lane),
            Err(KeyFileError::Mode { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_public_half_of_another_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let key = generate(&path, Purpose::Lane).unwrap();
        let other = SecretKey::from_seed(&[1; 32]).public();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace(&key.public().to_hex(), &other.to_hex());
        std::fs::write(&path, &text).unwrap();
        assert!(matches!(
            load(&path, Purpose::Lane),
            Err(KeyFileError::Halves { .. })
        ));
        std::fs::write(
            &path,
            text.replace("\"purpose\"", "\"extra\":1,\"purpose\""),
        )
        .unwrap();
        let error = load(&path, Purpose::Lane).unwrap_err();
        assert!(matches!(error, KeyFileError::Format { .. }));
        let said = format!("{error} {:?}", std::error::Error::source(&error));
        assert!(!said.contains(key.expose_hex().as_str()));
    }
}
