//! Dead letters as they are listed and exported, from a running agent or from the journal of one that
//! is not running.
//!
//! **Owns** their shape for people and machines. **Does not own** how they are kept (the journal does).

use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_common::code::EvidenceCode;
use tidemark_common::time::Timestamp;

use crate::event::{Door, RejectReason};
use crate::journal::{JournalReader, OpenError, ReadError, StoredDeadLetter};

/// A rejected event, as it is listed and exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterShown {
    /// Its number in the journal, ascending.
    pub number: u64,
    /// RFC 3339, UTC.
    pub time: String,
    pub door: String,
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// The input as received, if it is UTF-8.
    pub text: Option<String>,
    /// The input as received, in hexadecimal, if it is not.
    pub hex: Option<String>,
}

/// Why a journal's dead letters cannot be read.
#[derive(Debug, Error)]
pub enum OfflineError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// All dead letters in the journal at `path`, whose agent is not running.
///
/// # Errors
/// If another process holds the journal, or it cannot be read.
pub fn read_offline(path: &Path) -> Result<Vec<DeadLetterShown>, OfflineError> {
    let letters = JournalReader::open(path)?.dead_letters(0, usize::MAX)?;
    Ok(letters.into_iter().map(DeadLetterShown::from).collect())
}

impl From<StoredDeadLetter> for DeadLetterShown {
    fn from(letter: StoredDeadLetter) -> Self {
        let StoredDeadLetter { number, at, door, reason, bytes } = letter;
        let remedy = reason.and_then(RejectReason::from_code).map(RejectReason::remedy);
        let (text, hex) = match String::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(error) => {
                (None, Some(error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()))
            }
        };
        Self {
            number,
            time: rfc3339(at),
            door: door.map_or("unknown", Door::name).to_owned(),
            reason: reason.map_or("unknown", EvidenceCode::name).to_owned(),
            remedy: remedy
                .unwrap_or("A newer agent wrote this; look at it with that one.")
                .to_owned(),
            text,
            hex,
        }
    }
}

/// RFC 3339, UTC, to the millisecond.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| at.0.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use tidemark_common::id::{OpeningId, StreamId};

    use super::*;
    use crate::journal::{DeadLetter, FreshIds, JOURNAL_BYTES_MIN, Journal, JournalOptions, Write};

    #[test]
    fn dead_letters_are_shown_as_they_came() {
        let letter = |reason, bytes: &[u8]| {
            DeadLetterShown::from(StoredDeadLetter {
                number: 7,
                at: Timestamp(1_767_323_045_006),
                door: Some(Door::Udp),
                reason,
                bytes: bytes.into(),
            })
        };
        let known = letter(Some(EvidenceCode::RejectedSampled), b"a:1|c|@0.1");
        assert_eq!((known.time.as_str(), known.door.as_str()), ("2026-01-02T03:04:05.006Z", "udp"));
        assert_eq!(
            (known.reason.as_str(), known.text.as_deref(), known.hex),
            ("sampled", Some("a:1|c|@0.1"), None)
        );
        assert_eq!(known.remedy, RejectReason::Sampled.remedy());
        let unknown = letter(None, b"\xff\x00");
        assert_eq!(
            (unknown.reason.as_str(), unknown.text, unknown.hex.as_deref()),
            ("unknown", None, Some("ff00"))
        );
    }

    #[test]
    fn the_journal_of_an_agent_that_is_not_running() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.redb");
        let missing = read_offline(&path).unwrap_err().to_string();
        assert!(missing.contains("journal.redb") && !path.exists(), "{missing}");

        let options = JournalOptions {
            path: path.clone(),
            bytes_max: JOURNAL_BYTES_MIN,
            retain_acked_millis: 0,
            retain_acked_bytes_max: 0,
            raw_events_bytes_max: 0,
            ids_max: 1,
            ids_window_millis: 1,
            dead_letters_max: 10,
            dead_letter_bytes_max: 1_000,
        };
        let fresh = FreshIds { stream: StreamId([1; 16]), opening: OpeningId([2; 16]) };
        let (mut journal, _) =
            Journal::open(options, fresh, Timestamp(0), std::time::Duration::ZERO).unwrap();
        let letter = |text: &str| DeadLetter {
            at: Timestamp(0),
            door: Door::Udp,
            reason: EvidenceCode::RejectedSampled,
            bytes: text.into(),
        };
        journal
            .commit(vec![Write::DeadLetters(vec![letter("a"), letter("b")])], Timestamp(0))
            .unwrap();
        let held = read_offline(&path).unwrap_err().to_string();
        assert!(held.contains("another agent"), "{held}");
        drop(journal);
        let texts: Vec<_> =
            read_offline(&path).unwrap().into_iter().filter_map(|letter| letter.text).collect();
        assert_eq!(texts, ["a", "b"]);
    }
}
