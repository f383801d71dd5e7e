//! The key that a node is known by and that signs what it publishes, and the file it rests in.
//!
//! The file is what kubo keeps in its keystore: a libp2p protobuf private key, so keys move between
//! the two without conversion; PEM is read and written besides. Only Ed25519 keys are made or loaded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer, SigningKey};
use libp2p::PeerId;
use libp2p::identity::{self, KeyType};

use crate::ipns::RecordError;
use crate::name::Name;
use crate::pem::{self, Pem};

/// Protobuf head of an Ed25519 private key: field 1 (type) = 1, field 2 (data) of 64 bytes follows.
const PROTOBUF_HEAD: [u8; 4] = [0x08, 0x01, 0x12, 0x40];
/// The largest key of any kind that libp2p writes (RSA 8192) is under 5 KiB; more is no key file.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// An Ed25519 key pair.
#[derive(Clone)]
pub struct Keypair {
    key: SigningKey,
}

impl Keypair {
    /// A new key out of the system's random bytes.
    ///
    /// # Panics
    /// Where the system gives none: nothing can be secure then.
    pub fn generate() -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the system gives random bytes");
        Self { key: SigningKey::from_bytes(&seed) }
    }

    /// Reads a libp2p protobuf private key, the content of a kubo key file.
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, KeyFault> {
        let key = identity::Keypair::from_protobuf_encoding(bytes).map_err(|_| KeyFault::Malformed)?;
        if key.key_type() != KeyType::Ed25519 {
            return Err(KeyFault::NotEd25519);
        }
        let key = key.try_into_ed25519().map_err(|_| KeyFault::NotEd25519)?;
        let key = SigningKey::from_keypair_bytes(&key.to_bytes()).map_err(|_| KeyFault::Malformed)?;
        Ok(Self { key })
    }

    /// The content of a kubo key file: 68 bytes.
    pub fn to_protobuf(&self) -> Vec<u8> {
        [PROTOBUF_HEAD.as_slice(), self.key.to_keypair_bytes().as_slice()].concat()
    }

    /// Reads either form: a libp2p protobuf, or PKCS#8 as PEM.
    pub fn from_file(bytes: &[u8]) -> Result<Self, KeyFault> {
        let Some(der) = str::from_utf8(bytes).ok().and_then(pem::unwrap) else {
            return Self::from_protobuf(bytes);
        };
        match pem::read(&der).ok_or(KeyFault::Malformed)? {
            Pem::OtherKey => Err(KeyFault::NotEd25519),
            Pem::Ed25519 { seed, rest } => {
                let key = SigningKey::from_bytes(&seed);
                // A public key that is not this one's says that the file is damaged.
                if rest.is_empty() || rest.ends_with(key.verifying_key().as_bytes()) {
                    Ok(Self { key })
                } else {
                    Err(KeyFault::Malformed)
                }
            }
        }
    }

    /// PKCS#8 as PEM, not encrypted.
    pub fn to_pem(&self) -> String {
        pem::write(self.key.as_bytes())
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).to_bytes().to_vec()
    }

    pub fn peer_id(&self) -> PeerId {
        self.to_libp2p().public().to_peer_id()
    }

    /// The IPNS name that this key may publish.
    pub fn name(&self) -> Name {
        Name::from(self.peer_id())
    }

    pub(crate) fn to_libp2p(&self) -> identity::Keypair {
        let mut seed = self.key.to_bytes();
        // 32 bytes, which is all that is checked.
        identity::Keypair::ed25519_from_bytes(&mut seed).expect("a seed of 32 bytes")
    }
}

impl std::fmt::Debug for Keypair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keypair").field(&self.peer_id()).finish()
    }
}

/// Why bytes are no usable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error("it is not a libp2p private key")]
    Malformed,
    #[error("it holds a key that is not Ed25519")]
    NotEd25519,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "the key file {} cannot be used: {fault}; put the right file back, or move it away to begin with a new key",
        path.display()
    )]
    Damaged { path: PathBuf, fault: KeyFault },
    #[error("the key file {} does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("there is a key file at {} already; move it away first", path.display())]
    Exists { path: PathBuf },
    #[error("{} holds as many keys as there may be; move one away first", directory.display())]
    TooMany { directory: PathBuf },
    #[error("the record {} cannot be used: {fault}; move it away to ask the network for it", path.display())]
    Record { path: PathBuf, fault: RecordError },
    #[error("no permission for the key file {}; give it to the user that runs this program, mode 0600", path.display())]
    Permission { path: PathBuf, source: io::Error },
    #[error("the key file {} cannot be read or written", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl KeyError {
    fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { path, source },
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::AlreadyExists => Self::Exists { path },
            _ => Self::Io { path, source },
        }
    }
}

/// A key at rest. These functions block; the data directory's lock keeps two processes apart.
#[derive(Debug)]
pub struct KeyFile;

impl KeyFile {
    /// The key at `path`. If there is none, one is made and is durable when this returns.
    /// A file that cannot be read as a key is an error and is left as it is.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Keypair, KeyError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(KeyError::Missing { .. }) => {
                let key = Keypair::generate();
                Self::create(path, &key)?;
                Ok(key)
            }
            result => result,
        }
    }

    pub fn load(path: impl AsRef<Path>) -> Result<Keypair, KeyError> {
        let path = path.as_ref();
        let bytes = read_file(path, MAX_KEY_FILE)?;
        Keypair::from_protobuf(&bytes).map_err(|fault| KeyError::Damaged { path: path.to_owned(), fault })
    }

    /// Writes `key` to a path that must be free. Its directory is made if need be.
    pub fn create(path: impl AsRef<Path>, key: &Keypair) -> Result<(), KeyError> {
        let path = path.as_ref();
        create(path, &key.to_protobuf()).map_err(|source| KeyError::from_io(path, source))
    }
}

pub(crate) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|source| KeyError::from_io(path, source))
}

/// Writes a small file of the data directory, in the place of what is there; durable when it returns.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    write(path, bytes).map_err(|source| KeyError::from_io(path, source))
}

fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    write(path, bytes)
}

/// Complete or as before after a power cut: write beside, sync, rename, sync the directory.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;

    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_then_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys/self.key");
        let made = KeyFile::load_or_create(&path).unwrap();
        let loaded = KeyFile::load_or_create(&path).unwrap();
        assert_eq!(made.peer_id(), loaded.peer_id());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("self.key");
        for content in [b"".as_slice(), b"not a key", &[0x08, 0x01, 0x12, 0x40, 1, 2, 3]] {
            fs::write(&path, content).unwrap();
            let error = KeyFile::load_or_create(&path).unwrap_err();
            assert!(matches!(error, KeyError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("self.key"));
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_key_is_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("self.key");
        let first = KeyFile::load_or_create(&path).unwrap();
        assert!(matches!(KeyFile::create(&path, &Keypair::generate()), Err(KeyError::Exists { .. })));
        assert_eq!(KeyFile::load(&path).unwrap().peer_id(), first.peer_id());
    }

    #[test]
    fn a_key_comes_back_from_both_forms_and_a_wrong_public_key_is_noticed() {
        let key = Keypair::generate();
        assert_eq!(Keypair::from_file(&key.to_protobuf()).unwrap().name(), key.name());
        assert_eq!(Keypair::from_file(key.to_pem().as_bytes()).unwrap().name(), key.name());
        let der = |public: &[u8]| {
            let head = [
                0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
                0x20,
            ];
            let der = [&head, key.key.as_bytes().as_slice(), &[0x81, 0x21, 0x00], public].concat();
            let body = multibase::Base::Base64Pad.encode(der);
            format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
        };
        let right = der(key.key.verifying_key().as_bytes());
        assert_eq!(Keypair::from_file(right.as_bytes()).unwrap().name(), key.name());
        assert_eq!(Keypair::from_file(der(&[7; 32]).as_bytes()).unwrap_err(), KeyFault::Malformed);
    }

    #[test]
    fn the_format_is_that_of_libp2p() {
        let key = Keypair::generate();
        let theirs = key.to_libp2p().to_protobuf_encoding().unwrap();
        assert_eq!(key.to_protobuf(), theirs);
        assert_eq!(Keypair::from_protobuf(&theirs).unwrap().name(), key.name());
    }
}
