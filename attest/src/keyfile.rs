//! Secret keys in files. This is the one module of the room that does I/O and draws randomness.
//!
//! A key file is canonical JSON and a line end: `{"format":"instar-key-v1","public":…,"purpose":…,"secret":…}`, with
//! mode 0600. What it is for stands in it, so that a key can't be loaded for another purpose by mistake. A sealed one has
//! the format `instar-sealed-key-v1` and, in the place of `secret`, what [`crate::seal`] makes of it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::json::{self, JsonError};
use crate::key::{PublicKey, Purpose, SecretKey};
use crate::seal::{SealError, Sealed};

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
    /// A sealed key, and no passphrase for it.
    #[error(
        "key file {path} is sealed with a passphrase; give it in the variable INSTAR_KEY_PASSPHRASE, or a file with it"
    )]
    Sealed {
        /// The file.
        path: PathBuf,
    },
    /// A sealed key that can't be made or opened.
    #[error("key file {path}")]
    Seal {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SealError,
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

/// A key file as it lies there.
enum AnyContent {
    Plain(Content),
    Sealed(SealedContent),
}

#[derive(Serialize, Deserialize)]
enum SealedFormat {
    #[serde(rename = "instar-sealed-key-v1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedContent {
    format: SealedFormat,
    public: PublicKey,
    purpose: Purpose,
    scrypt: Sealed,
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
    let content = Content {
        format: Format::V1,
        public: key.public(),
        purpose,
        secret: key.expose_hex().to_string(),
    };
    write(
        path,
        json::to_vec(&content).expect("a key file is short ASCII text"),
    )
}

/// Writes a new key file whose secret half is sealed with a passphrase.
pub fn create_sealed(
    path: &Path,
    purpose: Purpose,
    key: &SecretKey,
    passphrase: &str,
) -> Result<(), KeyFileError> {
    let random = os_seed()?;
    let (salt, rest) = random.split_at(16);
    let salt = salt.try_into().expect("sixteen bytes were split off");
    let nonce = rest[..12].try_into().expect("twelve bytes were taken");
    let scrypt = Sealed::seal(key, purpose, passphrase, salt, nonce).map_err(|source| {
        KeyFileError::Seal {
            path: path.to_owned(),
            source,
        }
    })?;
    let content = SealedContent {
        format: SealedFormat::V1,
        public: key.public(),
        purpose,
        scrypt,
    };
    write(
        path,
        json::to_vec(&content).expect("a key file is short ASCII text"),
    )
}

fn write(path: &Path, content: Vec<u8>) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Zeroizing::new(content);
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

/// Loads a key that is there for `purpose` and not sealed.
pub fn load(path: &Path, purpose: Purpose) -> Result<SecretKey, KeyFileError> {
    load_with(path, purpose, None)
}

/// Loads a key that is there for `purpose`; the passphrase is for sealed ones.
pub fn load_with(
    path: &Path,
    purpose: Purpose,
    passphrase: Option<&str>,
) -> Result<SecretKey, KeyFileError> {
    let bytes = read(path)?;
    for_purpose(open(path, &bytes, passphrase)?, path, purpose)
}

/// A key for `purpose` from the text of a key file, as a CI variable holds it; `whence` is what errors call it.
pub fn from_text(
    text: &str,
    whence: &Path,
    purpose: Purpose,
    passphrase: Option<&str>,
) -> Result<SecretKey, KeyFileError> {
    for_purpose(open(whence, text.as_bytes(), passphrase)?, whence, purpose)
}

/// Loads a key whatever its purpose, and says which it is: for commands that show keys, not for those that sign.
pub fn load_any(path: &Path) -> Result<(SecretKey, Purpose), KeyFileError> {
    let bytes = read(path)?;
    open(path, &bytes, None)
}

/// The public half and the purpose of a key file, sealed or not: no passphrase is needed for that. Of a sealed file the
/// public half is what it says; only opening shows that the secret one belongs to it.
pub fn public(path: &Path) -> Result<(PublicKey, Purpose), KeyFileError> {
    let bytes = read(path)?;
    match parse(path, &bytes)? {
        AnyContent::Plain(_) => open(path, &bytes, None).map(|(key, p)| (key.public(), p)),
        AnyContent::Sealed(content) => Ok((content.public, content.purpose)),
    }
}

fn for_purpose(
    (key, got): (SecretKey, Purpose),
    path: &Path,
    expected: Purpose,
) -> Result<SecretKey, KeyFileError> {
    if got == expected {
        return Ok(key);
    }
    Err(KeyFileError::Purpose {
        path: path.to_owned(),
        got,
        expected,
    })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
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
    Ok(bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<AnyContent, KeyFileError> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let limit = MAX_KEY_FILE_BYTES as usize;
    // Tried first, since the reason why a plain one is refused is the one to be told.
    if let Ok(sealed) = json::from_slice(line, limit) {
        return Ok(AnyContent::Sealed(sealed));
    }
    json::from_slice(line, limit)
        .map(AnyContent::Plain)
        .map_err(|source| KeyFileError::Format {
            path: path.to_owned(),
            source,
        })
}

fn open(
    path: &Path,
    bytes: &[u8],
    passphrase: Option<&str>,
) -> Result<(SecretKey, Purpose), KeyFileError> {
    let halves = || KeyFileError::Halves {
        path: path.to_owned(),
    };
    let (key, public, purpose) = match parse(path, bytes)? {
        AnyContent::Plain(content) => {
            let key = SecretKey::from_hex(&content.secret).map_err(|_| halves())?;
            (key, content.public, content.purpose)
        }
        AnyContent::Sealed(content) => {
            let passphrase = passphrase.ok_or_else(|| KeyFileError::Sealed {
                path: path.to_owned(),
            })?;
            let opened = content
                .scrypt
                .open(content.purpose, &content.public, passphrase);
            let key = opened.map_err(|source| KeyFileError::Seal {
                path: path.to_owned(),
                source,
            })?;
            (key, content.public, content.purpose)
        }
    };
    if key.public() != public {
        return Err(halves());
    }
    Ok((key, purpose))
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
    fn a_sealed_key_needs_its_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let key = SecretKey::from_seed(&[9; 32]);
        create_sealed(&path, Purpose::Builder, &key, "a long passphrase").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(key.expose_hex().as_str()));
        assert_eq!(public(&path).unwrap(), (key.public(), Purpose::Builder));
        assert!(matches!(
            load(&path, Purpose::Builder),
            Err(KeyFileError::Sealed { .. })
        ));
        assert!(matches!(
            load_with(&path, Purpose::Builder, Some("another passphrase")),
            Err(KeyFileError::Seal { .. })
        ));
        let passphrase = Some("a long passphrase");
        let loaded = load_with(&path, Purpose::Builder, passphrase).unwrap();
        assert_eq!(loaded.public(), key.public());
        let whence = Path::new("env:KEY");
        let loaded = from_text(&text, whence, Purpose::Builder, passphrase).unwrap();
        assert_eq!(loaded.public(), key.public());
        assert!(from_text(&text, whence, Purpose::Lane, passphrase).is_err());
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
