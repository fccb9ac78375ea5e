//! The manifest of one object of the archive: what it holds, and the one before it.
//!
//! ```text
//! MANIFEST   one JSON object and a newline, in the order of [`Manifest`]'s fields
//! digest     SHA-256 of these bytes;  `previous` of the next;  of the first: 64 zeros
//! ```
//! **Owns** this shape, and the names of objects. **Does not own** what objects hold (`segment.rs`).

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use tidemark_common::hex;

use super::ArchiveError;

/// The version of this shape.
pub const FORMAT: u16 = 1;
/// Where manifests are.
pub const MANIFESTS: &str = "manifests";
/// What the first manifest names as the one before.
pub const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Whose archive it is: the first object.
    Ledger,
    Batches,
    Books,
    Streams,
    /// Raw events of batches: nothing but looking them up needs these.
    Events,
}

impl Kind {
    /// The kind's name, and its folder's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Batches => "batches",
            Self::Books => "books",
            Self::Streams => "streams",
            Self::Events => "events",
        }
    }

    /// What its objects' names end with. Bodies of batches and chunks of events are compressed already.
    fn extension(self) -> &'static str {
        match self {
            Self::Ledger => "json",
            Self::Batches | Self::Events => "seg",
            Self::Books | Self::Streams => "seg.zst",
        }
    }

    /// Whether its objects are compressed (Zstandard).
    #[must_use]
    pub fn is_compressed(self) -> bool {
        match self {
            Self::Ledger | Self::Batches | Self::Events => false,
            Self::Books | Self::Streams => true,
        }
    }
}

/// One object's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u16,
    /// From 1, without holes.
    pub number: u64,
    /// The digest of the manifest before.
    pub previous: String,
    pub ledger: String,
    /// Of the ledger when it was written: the high half of all fences by then.
    pub incarnation: u32,
    /// No ledger time after this was shown to anybody by then; unix milliseconds.
    pub ledger_time_limit: i64,
    pub kind: Kind,
    /// Its name in the archive.
    pub object: String,
    /// Of the object as it is stored.
    pub bytes: u64,
    pub sha256: String,
    /// How many records it has.
    pub count: u64,
    /// Of batches: their first and last position; of books: of their transactions. Inclusive.
    pub first: u64,
    pub last: u64,
    /// Of batches: their events, by the headers.
    pub events: u64,
    /// How many entries the books have, with all that is archived so far.
    pub entries: u64,
}

impl Manifest {
    /// As it is stored and hashed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("texts and numbers are JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads what [`Self::encode`] wrote; `name` is where.
    ///
    /// # Errors
    /// Other bytes, or a newer format.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, ArchiveError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u16,
        }
        let damaged = |error: serde_json::Error| ArchiveError::damaged(name, error.to_string());
        let Versioned { format: found } = serde_json::from_slice(bytes).map_err(damaged)?;
        if found > FORMAT {
            return Err(ArchiveError::Newer { name: name.to_owned(), found, known: FORMAT });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }
}

/// The name of the manifest of object `number`.
#[must_use]
pub fn manifest_name(number: u64) -> String {
    format!("{MANIFESTS}/{number:012}.json")
}

/// The number in a manifest's name.
#[must_use]
pub fn manifest_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(MANIFESTS)?.strip_prefix('/')?.strip_suffix(".json")?;
    number.parse().ok().filter(|number| manifest_name(*number) == name)
}

/// The name of object `number`: with the beginning of its digest, so that what a crash has left is in nobody's way.
#[must_use]
pub fn object_name(kind: Kind, number: u64, sha256: &str) -> String {
    let short = sha256.get(..16).unwrap_or(sha256);
    format!("{}/{number:012}-{short}.{}", kind.name(), kind.extension())
}

/// SHA-256 in text, of an object or a manifest.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(&<[u8; 32]>::from(Sha256::digest(bytes)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            number: 2,
            previous: NO_DIGEST.to_owned(),
            ledger: "00000000000000000000000000000001".to_owned(),
            incarnation: 7,
            ledger_time_limit: 1_000,
            kind: Kind::Batches,
            object: object_name(Kind::Batches, 2, &digest(b"x")),
            bytes: 1,
            sha256: digest(b"x"),
            count: 1,
            first: 0,
            last: 0,
            events: 3,
            entries: 0,
        }
    }

    #[test]
    fn frozen_text() {
        let text = String::from_utf8(manifest().encode()).unwrap();
        assert_eq!(
            text,
            "{\"format\":1,\"number\":2,\"previous\":\"0000000000000000000000000000000000000000000000000000000000000000\",\
             \"ledger\":\"00000000000000000000000000000001\",\"incarnation\":7,\"ledger_time_limit\":1000,\
             \"kind\":\"batches\",\"object\":\"batches/000000000002-2d711642b726b044.seg\",\"bytes\":1,\
             \"sha256\":\"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\",\"count\":1,\
             \"first\":0,\"last\":0,\"events\":3,\"entries\":0}\n"
        );
        assert_eq!(Manifest::decode("m", text.as_bytes()), Ok(manifest()));
    }

    #[test]
    fn a_newer_format_is_named() {
        let told = Manifest::decode("m", b"{\"format\":9,\"else\":1}").unwrap_err().to_string();
        assert!(told.contains("of format 9") && told.contains("newer collector"), "{told}");
        assert!(Manifest::decode("m", b"{}").unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(manifest_number("manifests/000000000012.json"), Some(12));
        for other in
            ["manifests/12.json", "manifests/.000000000012.json.1", "books/000000000012.json"]
        {
            assert_eq!(manifest_number(other), None, "{other}");
        }
    }
}
