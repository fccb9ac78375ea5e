//! `tidemark-collector keys`: the keys of certificates, shown and rotated.
//!
//! Over the control socket, which takes `keys 1 JSON` and answers one JSON object; or on a stopped collector's ledger.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{PublishedKeys, shown};
use crate::control;
use crate::ledger::redb::LEDGER_FILE;
use crate::ledger::{Ledger, LedgerError, LedgerOptions};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedKeys {
    /// Makes another key first.
    pub rotate: bool,
    pub actor: String,
}

/// Failed to show or rotate.
#[derive(Debug, Error)]
pub enum KeysError {
    #[error("{0}")]
    Refused(String),
    #[error("failed to ask for the keys: {0}")]
    Io(#[from] io::Error),
    #[error("failed to ask for the keys: {0}")]
    Ledger(#[from] LedgerError),
}

/// The answer over the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Refused { refused: String },
    Keys(PublishedKeys),
}

/// Shows the keys, after rotating them if that is asked. Blocks.
///
/// # Errors
/// See [`KeysError`].
pub fn keys(data_dir: &Path, asked: &AskedKeys) -> Result<PublishedKeys, KeysError> {
    if let Some(socket) = control::connect(data_dir)? {
        return ask(socket, asked);
    }
    if !data_dir.join(LEDGER_FILE).exists() {
        return Err(KeysError::Refused(format!(
            "there is no ledger in {}; start the collector once, or name its data_dir",
            data_dir.display()
        )));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let ledger = Ledger::open(data_dir, LedgerOptions::default()).await?;
        let answer = answer(&ledger, asked).await;
        ledger.shutdown().await?;
        answer.map_err(KeysError::Refused)
    })
}

fn ask(socket: UnixStream, asked: &AskedKeys) -> Result<PublishedKeys, KeysError> {
    let line = control::ask(socket, &control::request("keys 1 ", asked)?)?;
    match serde_json::from_str(&line).map_err(io::Error::other)? {
        Answer::Keys(keys) => Ok(keys),
        Answer::Refused { refused } => Err(KeysError::Refused(refused)),
    }
}

async fn answer(ledger: &Ledger, asked: &AskedKeys) -> Result<PublishedKeys, String> {
    if asked.rotate {
        let signer = ledger.signer().ok_or("this ledger has no place for a key")?;
        // The one before signs the new one, if it is there.
        if let Err(error) = signer.ensure(ledger, &asked.actor).await {
            tracing::warn!(%error, "the new key of certificates is signed by no other");
        }
        signer.rotate(ledger, &asked.actor).await.map_err(|error| error.to_string())?;
    }
    let books = ledger.books().map_err(|error| error.to_string())?;
    shown(ledger.ledger(), &*books).map_err(|error| error.to_string())
}

/// Answers a caller of the control socket; blocks.
///
/// # Errors
/// If the caller cannot be told.
pub(crate) fn keys_for(
    mut caller: &UnixStream,
    asked: &[u8],
    ledger: &Ledger,
    runtime: &tokio::runtime::Handle,
) -> io::Result<String> {
    let answer = match serde_json::from_slice::<AskedKeys>(asked) {
        Ok(asked) => runtime.block_on(answer(ledger, &asked)),
        Err(error) => Err(error.to_string()),
    };
    let answer = match answer {
        Ok(keys) => Answer::Keys(keys),
        Err(refused) => Answer::Refused { refused },
    };
    let mut line = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    line.push(b'\n');
    caller.write_all(&line)?;
    Ok("told the keys of certificates".to_owned())
}
