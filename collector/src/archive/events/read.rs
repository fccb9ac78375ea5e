//! A batch's raw events, out of their pieces.
//!
//! **Owns** that they are the batch's: its body holds their digest, and its header how many there are. **Does not own** where
//! pieces are (`index.rs`), or which events are asked for.
//!
//! Limits: one piece, and one of its chunks unpacked, are in memory.

use thiserror::Error;
use tidemark_common::batch::Header;
use tidemark_common::chunk::{GroupReader, RAW_BYTES_LIMIT, Record};
use tidemark_common::id::{Digest, EventNumber};
use tidemark_common::wire::{EventsDigest, events_chunks};

use super::PiecePlace;
use crate::archive::ArchiveError;

/// One event, as its agent recorded it.
#[derive(Debug, Clone, Copy)]
pub struct RawEvent<'a> {
    pub number: EventNumber,
    /// The key that its unique value and id were digested with; 0: the agent knew none yet.
    pub key_id: u16,
    pub record: &'a Record<'a>,
    /// Meter, customer and dimensions (`formats.md`, a line's key before its bucket).
    pub series: &'a [u8],
}

/// Why a batch's raw events cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Missing {
    #[error("its agent does not send raw events")]
    NotSent,
    #[error(
        "they have not come, or not all of them: the agent sends them later, or had to drop them"
    )]
    NotArchived,
    #[error("{object} was removed from the archive")]
    Removed { object: String },
    #[error("they are not those that the batch was made of: {reason}")]
    Differ { reason: String },
    #[error("{0}")]
    Unreadable(String),
}

/// Shows the raw events of a batch with this digest of them, which stand in these places.
///
/// # Errors
/// Why they cannot be shown; what was shown before does not count then.
pub fn read_events(
    header: &Header,
    digest: Digest,
    places: &[PiecePlace],
    mut piece: impl FnMut(&PiecePlace) -> Result<Option<Vec<u8>>, ArchiveError>,
    each: &mut dyn FnMut(&RawEvent<'_>),
) -> Result<(), Missing> {
    let of = places.first().map_or(0, |place| place.of);
    let follow = (0..).zip(places).all(|(index, place)| place.index == index && place.of == of);
    if places.is_empty() || !follow || u32::try_from(places.len()) != Ok(of) {
        return Err(Missing::NotArchived);
    }
    let differ = |reason: String| Missing::Differ { reason };
    let (mut hash, mut group) = (EventsDigest::default(), GroupReader::default());
    let mut number = header.first_event;
    for place in places {
        let read = piece(place).map_err(|error| Missing::Unreadable(error.to_string()))?;
        let bytes = read.ok_or_else(|| Missing::Removed { object: place.object.clone() })?;
        hash.piece(&bytes);
        for chunk in events_chunks(&bytes) {
            let chunk = chunk.ok_or_else(|| differ("a piece ends before its end".to_owned()))?;
            let raw = zstd::bulk::decompress(chunk, RAW_BYTES_LIMIT)
                .map_err(|error| differ(format!("a chunk cannot be unpacked: {error}")))?;
            let read = group.read(&raw, |key_id, record, series| {
                each(&RawEvent { number, key_id, record, series });
                number = number.plus(1);
            });
            read.map_err(|error| differ(error.to_string()))?;
        }
    }
    if hash.finish() != digest {
        return Err(differ("their digest is not the one in the batch".to_owned()));
    }
    if number != header.end_event {
        let found = number.0.saturating_sub(header.first_event.0);
        return Err(differ(format!("there are {found}, and the batch has {}", header.events())));
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests;
