//! Each stream's chain of digests, and the streams' texts that must agree with it.
//!
//! **Owns** the chain from sequence 1 on, without holes, and the tree of the texts (RFC 6962). **Does not own** bodies.

use std::collections::BTreeMap;

use tidemark_common::hex;

use crate::archive::segment::ArchivedBatch;
use crate::verify::json::{self, Value};
use crate::verify::tree::{Digest, hash, merkle_root};
use crate::verify::{Refusal, ensure};

const HEADER_BYTES: usize = 192;
type StreamId = [u8; 16];

#[derive(Debug)]
pub(super) struct Chains {
    ledger: [u8; 16],
    chains: BTreeMap<StreamId, Chain>,
}

/// How far a stream goes.
#[derive(Debug)]
struct Chain {
    sequence: u64,
    digest: Digest,
    end: u64,
    quarantined: u64,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Next,
    /// It was there before.
    Again,
}

impl Chains {
    pub(super) fn new(ledger: [u8; 16]) -> Self {
        Self { ledger, chains: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.chains.len()
    }

    fn genesis(&self, stream: &StreamId) -> Digest {
        hash(&[b"tidemark/genesis/1", &self.ledger, stream])
    }

    /// The next batch of its stream, or one that was there before.
    pub(super) fn take(&mut self, batch: &ArchivedBatch, place: &str) -> Result<Taken, Refusal> {
        let header = &batch.header;
        let head = batch.bytes.get(..HEADER_BYTES).unwrap_or_default();
        let digest = hash(&[b"tidemark/batch/1", head]);
        let genesis = self.genesis(&header.stream.0);
        let chain = self.chains.entry(header.stream.0).or_insert(Chain {
            sequence: 0,
            digest: genesis,
            end: 0,
            quarantined: 0,
        });
        if header.sequence.0 <= chain.sequence {
            let same = header.sequence.0 < chain.sequence || digest == chain.digest;
            ensure(same, place, || "it stands twice, and differs".to_owned())?;
            return Ok(Taken::Again);
        }
        let due = chain.sequence.saturating_add(1);
        ensure(header.sequence.0 == due, place, || format!("batch {due} is due: one is missing"))?;
        ensure(header.previous.0 == chain.digest, place, || {
            "the chain is broken: it does not name the batch before it".to_owned()
        })?;
        let (first, end) = (header.first_event.0, header.end_event.0);
        ensure(first == chain.end && first <= end, place, || {
            format!("its events are {first}..{end}, and {} is due", chain.end)
        })?;
        let events = end.saturating_sub(first);
        let aside = if batch.quarantined.is_some() { events } else { 0 };
        let quarantined = chain.quarantined.saturating_add(aside);
        *chain = Chain { sequence: due, digest, end, quarantined };
        Ok(Taken::Next)
    }

    pub(super) fn events(&self) -> u128 {
        self.chains.values().map(|chain| u128::from(chain.end)).sum()
    }

    pub(super) fn quarantined_events(&self) -> u128 {
        self.chains.values().map(|chain| u128::from(chain.quarantined)).sum()
    }

    /// Checks the streams' texts, one a line, and says how many there are.
    pub(super) fn check_texts(&self, bytes: &[u8], root: &Digest) -> Result<u64, Refusal> {
        let place = "the streams";
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::new(place, "is no UTF-8"))?;
        let (mut leaves, mut before): (Vec<Digest>, Option<StreamId>) = (Vec::new(), None);
        for (number, line) in text.split_terminator('\n').enumerate() {
            let place = format!("line {} of the streams", number.saturating_add(1));
            let stream = self.check_text(line, &place)?;
            ensure(before.is_none_or(|before| before < stream), place, || {
                "streams do not ascend".to_owned()
            })?;
            before = Some(stream);
            leaves.push(hash(&[&[0], line.as_bytes()]));
        }
        ensure(text.is_empty() || text.ends_with('\n'), place, || {
            "the last line has no end".into()
        })?;
        ensure(merkle_root(&leaves) == *root, place, || {
            "their texts do not come to the certificate's `streams_root`".to_owned()
        })?;
        Ok(u64::try_from(leaves.len()).unwrap_or(u64::MAX))
    }

    /// `[STREAM,AGENT,STATE,FIRST,LAST,DIGEST,END,ACCEPTED,QUARANTINED]`
    fn check_text(&self, line: &str, place: &str) -> Result<StreamId, Refusal> {
        let value = json::parse(line, place)?;
        let [stream, agent, state, first, last, digest, end, accepted, quarantined] =
            value.list(place)?
        else {
            return Err(Refusal::new(place, "a stream has 9 items"));
        };
        let stream: StreamId = stream.hex(place)?;
        agent.text(place)?;
        let is_state = matches!(state.text(place)?, "open" | "closed" | "lost" | "conflict");
        ensure(is_state, place, || format!("{} is no state", state.told()))?;
        let _accepted: u64 = accepted.number(place)?;
        let number = |value: &Value| value.number::<u64>(place);
        let shown = (
            number(first)?,
            number(last)?,
            digest.hex::<32>(place)?,
            number(end)?,
            number(quarantined)?,
        );
        let due = match self.chains.get(&stream) {
            Some(chain) => (1, chain.sequence, chain.digest, chain.end, chain.quarantined),
            None => (0, 0, self.genesis(&stream), 0, 0),
        };
        ensure(shown == due, place, || {
            let (_, last, digest, end, quarantined) = due;
            format!(
                "the batches of {} end with {last} ({}), at event {end}, {quarantined} of them set aside",
                hex::encode(&stream),
                hex::encode(&digest)
            )
        })?;
        Ok(stream)
    }
}
