//! The streams of a certificate: a text for each, and the root over them.
//!
//! ```text
//! leaf  H(0x00 + text)      node  H(0x01 + left + right)      as in RFC 6962, section 2.1
//! ```
//! **Owns** the texts, and the pieces in which they are kept. **Does not own** which state a stream is in.

use std::io;

use sha2::{Digest as _, Sha256};

use tidemark_common::batch::merkle::Tree;
use tidemark_common::hex;
use tidemark_common::id::Digest;

use crate::ledger::stream::StreamRecord;

/// Texts are kept in pieces of about this many bytes.
const PIECE_BYTES: usize = 1 << 20;
const LEVEL: i32 = 3;

/// A stream's text, in a state as the certificate names it.
#[must_use]
pub fn text(record: &StreamRecord, state: &str) -> String {
    let last = record.posted_sequence.0;
    let text = serde_json::to_string(&(
        hex::encode(&record.stream.0),
        record.agent.as_str(),
        state,
        last.min(1),
        last,
        record.posted_digest.to_string(),
        record.posted_end.0,
        record.accepted,
        record.quarantined_events,
    ));
    text.expect("texts and numbers are JSON")
}

/// Texts on their way into a certificate: shown ascending by their streams.
#[derive(Debug, Default)]
pub struct Streams {
    tree: Tree,
    open: String,
    pieces: Vec<Vec<u8>>,
}

impl Streams {
    /// One more.
    ///
    /// # Errors
    /// If it cannot be compressed.
    pub fn add(&mut self, text: &str) -> io::Result<()> {
        let leaf = Sha256::new().chain_update([0]).chain_update(text.as_bytes()).finalize();
        self.tree.push(Digest(leaf.into()));
        self.open.push_str(text);
        self.open.push('\n');
        if self.open.len() >= PIECE_BYTES { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> io::Result<()> {
        if !self.open.is_empty() {
            self.pieces.push(zstd::bulk::compress(self.open.as_bytes(), LEVEL)?);
            self.open.clear();
        }
        Ok(())
    }

    /// How many there are, the root, and the pieces: compressed, each of whole lines.
    ///
    /// # Errors
    /// If the last texts cannot be compressed.
    pub fn finish(mut self) -> io::Result<(u64, Digest, Vec<Vec<u8>>)> {
        self.close()?;
        Ok((self.tree.leaves().into(), self.tree.root(), self.pieces))
    }
}

/// A piece's texts, one a line.
///
/// # Errors
/// Bytes that are no piece.
pub fn read_piece(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::stream::decode_all(bytes)
}
