//! Seal: give a closed batch its number, its place in the chain, and its frozen bytes.
//!
//! **Owns** the step from one position of a stream to the next. **Does not own** what the batch holds
//! (`aggregate.rs`), its layout (`tidemark_common::batch`), or its storage: the journal calls this
//! inside the transaction that stores the batch, so that a number exists only on disk.

use tidemark_common::batch::{EncodedBody, NewHeader, SealedBatch, genesis};
use tidemark_common::id::{
    Digest, EventNumber, LedgerId, OpeningId, RulesVersion, Sequence, StreamId,
};

/// How far a stream is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub stream: StreamId,
    /// The last sealed sequence; 0 before the first.
    pub sequence: Sequence,
    /// Its digest; the genesis digest before the first.
    pub digest: Digest,
}

/// What a batch says of itself besides its body and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    pub opening: OpeningId,
    pub rules: RulesVersion,
    /// The batch holds the events [first, end).
    pub first_event: EventNumber,
    pub end_event: EventNumber,
}

impl Position {
    /// Before the first batch of `stream`, which ships to `ledger` and to no other.
    #[must_use]
    pub fn start(ledger: LedgerId, stream: StreamId) -> Self {
        Self { stream, sequence: Sequence::ZERO, digest: genesis(ledger, stream) }
    }

    /// The next batch of the stream, and the position behind it.
    #[must_use]
    pub fn seal(self, content: Content, body: EncodedBody) -> (SealedBatch, Self) {
        let Content { opening, rules, first_event, end_event } = content;
        let sequence = self.sequence.next();
        let header = NewHeader {
            stream: self.stream,
            opening,
            sequence,
            first_event,
            end_event,
            rules,
            previous: self.digest,
        };
        let batch = SealedBatch::assemble(header, body);
        let digest = batch.header.digest();
        (batch, Self { stream: self.stream, sequence, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_common::batch::{BodyWriter, Evidence};

    fn body(salt: u8) -> EncodedBody {
        BodyWriter::new([salt; 32], &Evidence::default()).finish().unwrap()
    }

    fn content(first: u64, end: u64) -> Content {
        Content {
            opening: OpeningId([2; 16]),
            rules: RulesVersion(7),
            first_event: EventNumber(first),
            end_event: EventNumber(end),
        }
    }

    #[test]
    fn sequences_run_without_holes_and_digests_chain() {
        let start = Position::start(LedgerId([9; 16]), StreamId([1; 16]));
        let (first, one) = start.seal(content(0, 3), body(1));
        let (second, two) = one.seal(content(3, 3), body(2));

        assert_eq!((one.sequence, two.sequence), (Sequence(1), Sequence(2)));
        assert_eq!(first.header.previous, genesis(LedgerId([9; 16]), StreamId([1; 16])));
        assert_eq!(second.header.previous, first.header.digest());
        assert_eq!(
            (second.header.first_event, second.header.end_event),
            (EventNumber(3), EventNumber(3))
        );
        let (header, _) = SealedBatch::split(&first.bytes).unwrap();
        assert_eq!(header, first.header);
        assert_eq!(header.digest(), one.digest);
    }

    #[test]
    fn the_same_content_at_the_same_position_gives_the_same_bytes() {
        let start = Position::start(LedgerId([9; 16]), StreamId([1; 16]));
        assert_eq!(
            start.seal(content(0, 3), body(1)).0.bytes,
            start.seal(content(0, 3), body(1)).0.bytes
        );
        let elsewhere = Position::start(LedgerId([8; 16]), StreamId([1; 16]));
        assert_ne!(
            start.seal(content(0, 3), body(1)).0.bytes,
            elsewhere.seal(content(0, 3), body(1)).0.bytes
        );
    }
}
