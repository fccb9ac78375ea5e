//! The raw events of posted batches, on their way to the archive.
//!
//! ```text
//! Welcome, extra 4    no bytes: raw events are archived
//! EVENTS, type 9      rest u64, sequence u64, index u32, of u32, PIECE      (big-endian; agent to collector)
//! PIECE               n * (length u32, chunk as it stood in the journal)
//! Ack, extra 2        archived u64, grant u32                               (big-endian; collector to agent)
//!
//! digest of a batch's raw events = H("tidemark/events/1" + all its pieces, in order)
//! ```
//! An agent that has raw events of posted batches says so by a frame with `of` 0 and no piece: `rest` bytes wait. The collector
//! grants as many bytes as it has room for, in an Ack, and the agent sends pieces while they fit the grant, batches first. With a
//! frame that says `rest` 0 the grant is over. `archived`: all that this session sent of batches up to it is in the archive.
//!
//! **Owns** these bytes, and the digest that a batch's body holds of its raw events. **Does not own** what a chunk holds
//! ([`chunk`](crate::chunk)), or who sends what when: the two `session.rs` do.
//!
//! Limits: a piece has at most [`EVENTS_PIECE_BYTES_MAX`], so that it fits each grant that is not 0.

use sha2::{Digest as _, Sha256};

use super::Extra;
use crate::id::{Digest, Sequence};

/// A piece has at most so many bytes: a batch with a larger chunk is not archived. No grant but 0 is below it.
pub const EVENTS_PIECE_BYTES_MAX: usize = 256 << 10;
const HEAD_BYTES: usize = 8 + 8 + 4 + 4;

/// Even, both: an end that does not know them goes on without.
const WELCOME_TAG: u16 = 4;
const ACK_TAG: u16 = 2;

/// Agent to collector: what waits, and one piece of a batch's raw events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// Bytes of raw events of posted batches that the agent holds and has not sent in this session, behind this piece.
    pub rest: u64,
    pub piece: Option<EventsPiece>,
}

/// A part of the chunks that a batch was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsPiece {
    pub sequence: Sequence,
    /// Its place among the batch's `of` pieces, from 0.
    pub index: u32,
    pub of: u32,
    /// Chunks, each behind its length.
    pub bytes: Vec<u8>,
}

/// Collector to agent, in an Ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsAck {
    /// All that this session sent of batches up to it is archived.
    pub archived: Sequence,
    /// Bytes that may be sent, besides what was granted before.
    pub grant: u32,
}

impl Events {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (sequence, index, of, bytes) = match &self.piece {
            Some(piece) => (piece.sequence.0, piece.index, piece.of, &piece.bytes[..]),
            None => (0, 0, 0, &[][..]),
        };
        let mut payload = Vec::with_capacity(HEAD_BYTES.saturating_add(bytes.len()));
        payload.extend_from_slice(&self.rest.to_be_bytes());
        payload.extend_from_slice(&sequence.to_be_bytes());
        payload.extend_from_slice(&index.to_be_bytes());
        payload.extend_from_slice(&of.to_be_bytes());
        payload.extend_from_slice(bytes);
        payload
    }

    /// What is wrong with other bytes.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "it is shorter than its head";
        let (rest, payload) = payload.split_first_chunk::<8>().ok_or(SHORT)?;
        let (sequence, payload) = payload.split_first_chunk::<8>().ok_or(SHORT)?;
        let (index, payload) = payload.split_first_chunk::<4>().ok_or(SHORT)?;
        let (of, bytes) = payload.split_first_chunk::<4>().ok_or(SHORT)?;
        let rest = u64::from_be_bytes(*rest);
        let sequence = Sequence(u64::from_be_bytes(*sequence));
        let (index, of) = (u32::from_be_bytes(*index), u32::from_be_bytes(*of));
        match (of, sequence, index, bytes) {
            (0, Sequence::ZERO, 0, []) => Ok(Self { rest, piece: None }),
            (0, ..) => Err("it has a piece of none"),
            (_, Sequence::ZERO, ..) | (_, _, _, []) => Err("its piece has no batch, or no bytes"),
            _ if index >= of => Err("its piece is beyond the last of its batch"),
            _ if bytes.len() > EVENTS_PIECE_BYTES_MAX => Err("its piece is too long"),
            _ => {
                let bytes = bytes.to_vec();
                Ok(Self { rest, piece: Some(EventsPiece { sequence, index, of, bytes }) })
            }
        }
    }

    /// What a Welcome says where raw events are archived.
    #[must_use]
    pub fn taken() -> Extra {
        Extra { tag: WELCOME_TAG, bytes: Vec::new() }
    }

    /// Whether a Welcome's extras say that raw events are archived.
    #[must_use]
    pub fn are_taken(extras: &[Extra]) -> bool {
        extras.iter().any(|extra| extra.tag == WELCOME_TAG)
    }
}

impl EventsAck {
    #[must_use]
    pub fn to_extra(self) -> Extra {
        let mut bytes = self.archived.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.grant.to_be_bytes());
        Extra { tag: ACK_TAG, bytes }
    }

    /// What an Ack's extras say of it; `None` if they do not, or in bytes of another length.
    #[must_use]
    pub fn among(extras: &[Extra]) -> Option<Self> {
        let extra = extras.iter().find(|extra| extra.tag == ACK_TAG)?;
        let (archived, grant) = extra.bytes.split_first_chunk::<8>()?;
        let grant = u32::from_be_bytes(grant.try_into().ok()?);
        Some(Self { archived: Sequence(u64::from_be_bytes(*archived)), grant })
    }
}

/// Appends a chunk to a piece.
pub fn put_events_chunk(piece: &mut Vec<u8>, chunk: &[u8]) {
    piece.extend_from_slice(&chunk_length(chunk));
    piece.extend_from_slice(chunk);
}

/// The chunks of a piece; `None` in the place of one that ends before its end.
pub fn events_chunks(piece: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let split = rest.split_first_chunk::<4>().and_then(|(length, behind)| {
            behind.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
        });
        let (chunk, behind) =
            split.map_or((None, &[][..]), |(chunk, behind)| (Some(chunk), behind));
        rest = behind;
        Some(chunk)
    })
}

fn chunk_length(chunk: &[u8]) -> [u8; 4] {
    u32::try_from(chunk.len()).expect("chunks are far below 4 GiB").to_be_bytes()
}

/// Makes the digest that a batch's body holds of its raw events.
#[derive(Debug, Clone)]
pub struct EventsDigest(Sha256);

impl Default for EventsDigest {
    fn default() -> Self {
        Self(Sha256::new_with_prefix(b"tidemark/events/1"))
    }
}

impl EventsDigest {
    /// Takes the next chunk.
    pub fn chunk(&mut self, chunk: &[u8]) {
        self.0.update(chunk_length(chunk));
        self.0.update(chunk);
    }

    /// Takes the chunks of the next piece.
    pub fn piece(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_bytes() {
        let bytes = vec![0xc1, 0xc2];
        let piece = EventsPiece { sequence: Sequence(3), index: 1, of: 0x0102, bytes };
        let check = |events: Events, expected: &[u8]| {
            assert_eq!(events.encode(), expected);
            assert_eq!(Events::decode(expected), Ok(events));
        };
        check(
            Events { rest: 0x0405, piece: Some(piece) },
            b"\0\0\0\0\0\0\x04\x05\0\0\0\0\0\0\0\x03\0\0\0\x01\0\0\x01\x02\xc1\xc2",
        );
        check(
            Events { rest: 7, piece: None },
            b"\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        );
        let ack = EventsAck { archived: Sequence(9), grant: 0x0001_0000 };
        assert_eq!(ack.to_extra().bytes, b"\0\0\0\0\0\0\0\x09\0\x01\0\0");
        let other = Extra { tag: 6, bytes: vec![] };
        assert_eq!(EventsAck::among(&[other.clone(), ack.to_extra()]), Some(ack));
        assert_eq!(EventsAck::among(std::slice::from_ref(&other)), None);
        assert_eq!(EventsAck::among(&[Extra { tag: 2, bytes: vec![0; 11] }]), None);
        assert!(Events::are_taken(&[other.clone(), Events::taken()]));
        assert!(!Events::are_taken(&[other]));
    }

    #[test]
    fn other_bytes_are_refused() {
        let head = |sequence: u8, index: u8, of: u8| {
            let mut head = [0; HEAD_BYTES];
            (head[15], head[19], head[23]) = (sequence, index, of);
            head.to_vec()
        };
        let check = |payload: &[u8], told: &str| {
            let refused = Events::decode(payload).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        };
        check(&head(0, 0, 0)[..HEAD_BYTES - 1], "shorter");
        for broken in [head(1, 0, 0), head(0, 1, 0), [head(0, 0, 0), vec![1]].concat()] {
            check(&broken, "piece of none");
        }
        check(&[head(0, 0, 1), vec![1]].concat(), "no batch");
        check(&head(1, 0, 1), "no bytes");
        check(&[head(1, 2, 2), vec![1]].concat(), "beyond the last");
        check(&[head(1, 0, 1), vec![1; EVENTS_PIECE_BYTES_MAX + 1]].concat(), "too long");
        assert!(Events::decode(&[head(1, 1, 2), vec![1]].concat()).is_ok());
    }

    #[test]
    fn pieces_hold_chunks_and_their_digest_does_not_depend_on_where_they_are_cut() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        put_events_chunk(&mut first, b"a");
        put_events_chunk(&mut second, b"bc");
        let whole = [&first[..], &second[..]].concat();
        assert_eq!(whole, b"\0\0\0\x01a\0\0\0\x02bc");
        let chunks: Vec<_> = events_chunks(&whole).collect();
        assert_eq!(chunks, [Some(&b"a"[..]), Some(&b"bc"[..])]);
        for broken in 1..5 {
            let chunks: Vec<_> = events_chunks(&whole[..whole.len() - broken]).collect();
            assert_eq!(chunks, [Some(&b"a"[..]), None], "{broken} bytes are missing");
        }
        assert_eq!(events_chunks(b"").count(), 0);

        let digest = |take: &dyn Fn(&mut EventsDigest)| {
            let mut digest = EventsDigest::default();
            take(&mut digest);
            digest.finish().to_string()
        };
        // Of `printf 'tidemark/events/1\0\0\0\1a\0\0\0\2bc'`.
        let expected = "d8add44335de6ab4adcd545be017a150840fa5473933518df2e2d4b286310e0c";
        assert_eq!(digest(&|digest| digest.piece(&whole)), expected);
        assert_eq!(
            digest(&|digest| [&first, &second].into_iter().for_each(|piece| digest.piece(piece))),
            expected
        );
        assert_eq!(
            digest(&|digest| [&b"a"[..], b"bc"].into_iter().for_each(|chunk| digest.chunk(chunk))),
            expected
        );
        assert_ne!(
            digest(&|digest| [&b"ab"[..], b"c"].into_iter().for_each(|chunk| digest.chunk(chunk))),
            expected
        );
    }
}
