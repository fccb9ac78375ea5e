//! The key that certificates are signed with, and those that were before it.
//!
//! ```text
//! data_dir/certificate.key       PKCS#8, for its owner only     made with the ledger
//! data_dir/certificate.key.new   while one takes another's place
//! books: the public keys, each signed by the one before
//! ```
//! **Owns** these files, signing, and what is published. **Does not own** what is signed.
//!
//! Invariants: a key is published in the books before anything is signed with it. A rotation that was cut short is
//! finished by the next use, if the key was published, and otherwise as if it had not been asked for.

pub mod command;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use tidemark_common::hex;
use tidemark_common::id::LedgerId;

use crate::ledger::books::rows;
use crate::ledger::books::{Change, Refused, What};
use crate::ledger::store::{Books, StoreError};
use crate::ledger::{Ledger, LedgerError};

pub const FILE: &str = "certificate.key";
const NEW_FILE: &str = "certificate.key.new";

/// A public key as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedKey {
    /// 32 bytes in hex.
    pub key: String,
    /// From when it signs, and before when; unix milliseconds.
    pub from: i64,
    pub until: Option<i64>,
    /// By the key before it; `None` of the first, and of one that took the place of a lost one.
    pub signature: Option<String>,
}

/// All keys of a ledger, as `/.well-known/tidemark-keys` shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedKeys {
    pub ledger: String,
    pub keys: Vec<PublishedKey>,
}

/// Failed to use the key.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("failed to use the key of certificates {}: {reason}; put it back from where it is kept, or make another with `tidemark-collector keys rotate`", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("failed to keep the key of certificates in {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("failed to publish the key of certificates: {0}")]
    Refused(#[from] Refused),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Signs, with the ledger's newest key.
pub struct Signer {
    folder: PathBuf,
    ledger: LedgerId,
    held: RwLock<Option<Ed25519KeyPair>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Signer {
    /// The signer whose key is in `folder`; it holds none yet.
    #[must_use]
    pub fn at(folder: &Path, ledger: LedgerId) -> Self {
        Self { folder: folder.to_owned(), ledger, held: RwLock::new(None) }
    }

    /// Holds the newest published key from now on; a ledger without any gets its first.
    ///
    /// # Errors
    /// The key is not in its file, or cannot be read or published.
    pub async fn ensure(&self, ledger: &Ledger, actor: &str) -> Result<(), KeyError> {
        let published = published(&*ledger.books()?).map_err(LedgerError::Store)?;
        let Some(newest) = published.last() else { return self.rotate(ledger, actor).await };
        if self.key().as_ref() == Some(&newest.key) {
            return Ok(());
        }
        let new = self.folder.join(NEW_FILE);
        if read_key(&new)?.is_some_and(|pair| public(&pair) == newest.key) {
            self.take_place()?;
        }
        let path = self.folder.join(FILE);
        match read_key(&path)? {
            Some(pair) if public(&pair) == newest.key => {
                self.hold(pair);
                Ok(())
            }
            held => {
                let what = if held.is_some() { "it holds another key" } else { "it is not there" };
                let reason = format!("{what}, and the newest published is {}", newest.key);
                Err(KeyError::Unusable { path, reason })
            }
        }
    }

    /// Makes another key, publishes it, and signs with it from then on. Where the one before is lost, nothing signs the
    /// new one, and whoever verifies has to be told of it otherwise.
    ///
    /// # Errors
    /// Files or a ledger that cannot be used; the former key stays then.
    pub async fn rotate(&self, ledger: &Ledger, actor: &str) -> Result<(), KeyError> {
        let path = self.folder.join(NEW_FILE);
        let unusable =
            |reason: &str| KeyError::Unusable { path: path.clone(), reason: reason.to_owned() };
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| unusable("no randomness"))?;
        let pair = Ed25519KeyPair::from_pkcs8(made.as_ref()).map_err(|_| unusable("no key"))?;
        remove(&path)?;
        write(&path, made.as_ref())?;
        let text = [b"tidemark/key/1", &self.ledger.0[..], pair.public_key().as_ref()].concat();
        let what = What::AddKey { key: public(&pair), signature: self.sign(&text) };
        let change =
            Change { actor: actor.to_owned(), reason: None, date: None, request: None, what };
        ledger.book(change).await??;
        self.take_place()?;
        self.hold(pair);
        Ok(())
    }

    /// The signature of `text` in hex; `None` where there is no key.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> Option<String> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|pair| hex::encode(pair.sign(text).as_ref()))
    }

    /// The public key in hex; `None` where there is no key.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(public)
    }

    fn hold(&self, pair: Ed25519KeyPair) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(pair);
    }

    /// The new file becomes the file.
    fn take_place(&self) -> Result<(), KeyError> {
        let (new, path) = (self.folder.join(NEW_FILE), self.folder.join(FILE));
        let moved = fs::rename(new, &path)
            .and_then(|()| File::open(&self.folder).and_then(|folder| folder.sync_all()));
        moved.map_err(|source| KeyError::Io { path, source })
    }
}

/// The public keys in the books, oldest first.
///
/// # Errors
/// If they cannot be read.
pub fn published(books: &dyn Books) -> Result<Vec<PublishedKey>, StoreError> {
    Ok(rows::get(books, rows::KEYS)?.unwrap_or_default())
}

/// The same, as they are shown.
///
/// # Errors
/// If they cannot be read.
pub fn shown(ledger: LedgerId, books: &dyn Books) -> Result<PublishedKeys, StoreError> {
    Ok(PublishedKeys { ledger: hex::encode(&ledger.0), keys: published(books)? })
}

fn public(pair: &Ed25519KeyPair) -> String {
    hex::encode(pair.public_key().as_ref())
}

/// A key; `None` without a file.
fn read_key(path: &Path) -> Result<Option<Ed25519KeyPair>, KeyError> {
    match fs::read(path) {
        Ok(bytes) => {
            let unusable =
                |_| KeyError::Unusable { path: path.to_owned(), reason: "it is no key".to_owned() };
            Ok(Some(Ed25519KeyPair::from_pkcs8(&bytes).map_err(unusable)?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyError::Io { path: path.to_owned(), source }),
    }
}

fn remove(path: &Path) -> Result<(), KeyError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KeyError::Io { path: path.to_owned(), source: error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = written.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| KeyError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
