//! The key that all members share: who has it may speak.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Fewer bytes could be guessed.
const SHORTEST: usize = 16;
/// A longer file is some other file.
const LONGEST: u64 = 4096;
/// Bytes of a tag.
pub(super) const TAG: usize = 32;

/// How to make one, for messages.
const REMEDY: &str = "make one by `openssl rand -base64 32 > FILE; chmod 600 FILE` and give every \
                      node the same";

/// A secret for HMAC-SHA256 (RFC 2104).
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

/// Why a key file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("gossip key {path}: {source}; {REMEDY}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read or change it.
    #[error("gossip key {path} has mode {mode:04o}: others than its owner can use it; chmod 600")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds too little.
    #[error("gossip key {path} has {length} bytes, at least {SHORTEST} are needed; {REMEDY}")]
    Short {
        /// The file.
        path: PathBuf,
        /// Bytes without white space at the end.
        length: usize,
    },
}

// === impl Key ===

impl Key {
    /// Reads it from a file that only its owner may use; white space at the end is no part
    /// of it.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Unreadable {
            path: path.to_path_buf(),
            source,
        };
        let file = fs::File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            let path = path.to_path_buf();
            return Err(KeyError::Open { path, mode });
        }
        let mut bytes = Vec::new();
        file.take(LONGEST)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let secret = bytes.trim_ascii_end();
        if secret.len() < SHORTEST {
            return Err(KeyError::Short {
                path: path.to_path_buf(),
                length: secret.len(),
            });
        }
        Ok(Self::new(secret))
    }

    /// Of these bytes.
    pub fn new(secret: &[u8]) -> Self {
        // HMAC takes keys of any length: this cannot fail.
        let mac = Hmac::new_from_slice(secret).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self(mac)
    }

    /// The tag of a message.
    pub(super) fn tag(&self, message: &[u8]) -> [u8; TAG] {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// The message of a datagram that begins with its right tag.
    pub(super) fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (tag, message) = datagram.split_first_chunk::<TAG>()?;
        let mut mac = self.0.clone();
        mac.update(message);
        mac.verify_slice(tag).is_ok().then_some(message)
    }
}

impl std::fmt::Debug for Key {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let load = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Key::load(&path).map_err(|error| error.to_string())
        };
        let secret = "0123456789abcdef";
        assert!(load(secret, 0o600).is_ok());
        assert!(load(secret, 0o400).is_ok());
        assert!(load(secret, 0o640).unwrap_err().contains("chmod 600"));
        assert!(
            load("short\n\n\n\n\n\n\n\n\n\n\n\n\n", 0o600)
                .unwrap_err()
                .contains("has 5 bytes")
        );
        fs::remove_file(&path).unwrap();
        assert!(
            Key::load(&path)
                .unwrap_err()
                .to_string()
                .contains("openssl rand")
        );
    }

    #[test]
    fn one_changed_bit_or_another_key_is_no_message() {
        let key = Key::new(b"0123456789abcdef");
        let mut datagram = key.tag(b"hello").to_vec();
        datagram.extend(b"hello");
        assert_eq!(key.open(&datagram), Some(&b"hello"[..]));
        assert_eq!(Key::new(b"0123456789abcdeF").open(&datagram), None);
        for bit in 0..datagram.len() * 8 {
            datagram[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&datagram), None, "bit {bit}");
            datagram[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..datagram.len() {
            assert_eq!(key.open(&datagram[..length]), None, "{length} bytes");
        }
    }
}
