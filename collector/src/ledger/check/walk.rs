//! Streams as their batches tell them, one after the other.

use std::collections::BTreeMap;

use tidemark_common::batch::{Header, genesis};
use tidemark_common::id::{Digest, EventNumber, LedgerId, OpeningId, Sequence, StreamId};
use tidemark_common::tls::AgentName;

use super::{FindingKind, Findings, Place, StreamChain};
use crate::ledger::stream::StreamRecord;

/// Of a stream's row what its batches must come to, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRow {
    pub agent: AgentName,
    pub accepted: u64,
    pub posted_sequence: Sequence,
    pub posted_digest: Digest,
    pub posted_end: EventNumber,
    pub quarantined_batches: u64,
    pub quarantined_events: u64,
    /// The newest.
    pub opening: Option<OpeningId>,
    pub is_retired: bool,
}

impl StreamRow {
    /// Of a stream that is live.
    #[must_use]
    pub fn of(record: &StreamRecord) -> Self {
        Self {
            agent: record.agent.clone(),
            accepted: record.accepted,
            posted_sequence: record.posted_sequence,
            posted_digest: record.posted_digest,
            posted_end: record.posted_end,
            quarantined_batches: record.quarantined_batches,
            quarantined_events: record.quarantined_events,
            opening: record.openings.last().map(|opening| opening.opening),
            is_retired: false,
        }
    }
}

/// How far one stream's batches come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    pub sequence: Sequence,
    pub digest: Digest,
    pub end: EventNumber,
    pub opening: Option<OpeningId>,
    pub quarantined_batches: u64,
    pub quarantined_events: u64,
}

/// All streams, and where the next batch is due.
#[derive(Debug, Default)]
pub(super) struct Walk {
    streams: BTreeMap<StreamId, Walked>,
    pub(super) next_position: u64,
    compared: bool,
}

impl Walked {
    fn genesis(ledger: LedgerId, stream: StreamId) -> Self {
        Self {
            sequence: Sequence::ZERO,
            digest: genesis(ledger, stream),
            end: EventNumber(0),
            opening: None,
            quarantined_batches: 0,
            quarantined_events: 0,
        }
    }

    fn advance(&mut self, header: &Header, is_quarantined: bool) {
        self.sequence = header.sequence;
        self.digest = header.digest();
        self.end = header.end_event;
        self.opening = Some(header.opening);
        if is_quarantined {
            self.quarantined_batches = self.quarantined_batches.saturating_add(1);
            self.quarantined_events = self.quarantined_events.saturating_add(header.events());
        }
    }
}

impl Walk {
    /// Takes the next batch. `openings` loses the rows that it accounts for.
    pub(super) fn batch(
        &mut self,
        ledger: LedgerId,
        header: &Header,
        is_quarantined: bool,
        row: Option<&StreamRow>,
        openings: &mut BTreeMap<(StreamId, OpeningId), EventNumber>,
        findings: &mut Findings,
    ) {
        let stream = header.stream;
        let is_new = !self.streams.contains_key(&stream);
        let walked = self.streams.entry(stream).or_insert_with(|| Walked::genesis(ledger, stream));
        match row {
            Some(row) if is_new => compare_at_row(stream, row, walked, findings),
            None if is_new => {
                let why = || "its batches are there, and no row".to_owned();
                findings.add(FindingKind::StreamRow, Place::Stream(stream), None, why);
            }
            Some(_) | None => {}
        }
        continues(walked, header, findings);
        if let Some(before) = walked.opening.filter(|opening| *opening != header.opening) {
            // A row holds the newest opening only; those before it stand in their own table.
            let found = openings.remove(&(stream, before));
            let due = row.is_some_and(|row| row.posted_sequence >= header.sequence);
            let end = walked.end;
            if due && found != Some(end) {
                findings.add(FindingKind::Opening, Place::Stream(stream), None, || match found {
                    Some(found) => {
                        format!("opening {before} ends at event {end}, and its row says {found}")
                    }
                    None => format!("opening {before} ends at event {end}, and has no row"),
                });
            }
        }
        walked.advance(header, is_quarantined);
        if let Some(row) = row {
            compare_at_row(stream, row, walked, findings);
        }
    }

    /// How far a stream's batches have come.
    pub(super) fn sequence(&self, stream: &StreamId) -> Sequence {
        self.streams.get(stream).map_or(Sequence::ZERO, |walked| walked.sequence)
    }

    /// At the checkpoint every row is up to date. Done once.
    pub(super) fn compare_at_checkpoint(
        &mut self,
        rows: &BTreeMap<StreamId, StreamRow>,
        findings: &mut Findings,
    ) {
        if std::mem::replace(&mut self.compared, true) {
            return;
        }
        for (stream, walked) in &self.streams {
            let posted = rows.get(stream).map(|row| row.posted_sequence);
            if let Some(posted) = posted.filter(|posted| *posted < walked.sequence) {
                let last = walked.sequence;
                findings.add(FindingKind::StreamRow, Place::Stream(*stream), None, || {
                    format!("its row says batch {posted} where the checkpoint has {last}")
                });
            }
        }
    }

    /// Every stream; those without batches too.
    pub(super) fn finish(
        mut self,
        rows: BTreeMap<StreamId, StreamRow>,
        ledger: Option<LedgerId>,
        findings: &mut Findings,
    ) -> Vec<StreamChain> {
        let mut chains = Vec::with_capacity(rows.len());
        for (stream, row) in rows {
            let walked = self.streams.remove(&stream).unwrap_or_else(|| {
                let none = Walked::genesis(ledger.unwrap_or(LedgerId([0; 16])), stream);
                compare_at_row(stream, &row, &none, findings);
                none
            });
            if row.posted_sequence > walked.sequence {
                let (first, last) = (walked.sequence.next(), row.posted_sequence);
                let events = row.posted_end.0.saturating_sub(walked.end.0);
                let place = Place::Sequences { stream, first, last };
                findings.add(FindingKind::BatchMissing, place, Some(events), || {
                    "the stream's row says that they are posted".to_owned()
                });
            }
            if row.is_retired && row.posted_sequence < walked.sequence {
                let (first, last) = (row.posted_sequence.next(), walked.sequence);
                let place = Place::Sequences { stream, first, last };
                findings.add(FindingKind::StreamRow, place, None, || {
                    "the stream retired before them, by its row".to_owned()
                });
            }
            chains.push(StreamChain { stream, walked, row: Some(row) });
        }
        let without = self.streams.into_iter();
        chains.extend(without.map(|(stream, walked)| StreamChain { stream, walked, row: None }));
        chains.sort_by_key(|chain| chain.stream);
        chains
    }
}

/// A batch continues what its stream has: by number, by digest, by events. The first break is named.
fn continues(walked: &Walked, header: &Header, findings: &mut Findings) {
    let Header { stream, sequence, first_event, .. } = *header;
    let due = walked.sequence.next();
    if sequence > due {
        let last = Sequence(sequence.0.saturating_sub(1));
        let events = first_event.0.saturating_sub(walked.end.0);
        let place = Place::Sequences { stream, first: due, last };
        findings.add(FindingKind::BatchMissing, place, Some(events), || {
            format!("batch {sequence} comes after batch {}", walked.sequence)
        });
        return;
    }
    let place = Place::Sequences { stream, first: sequence, last: sequence };
    if sequence < due {
        findings.add(FindingKind::Chain, place, Some(header.events()), || {
            format!("it comes where batch {due} is due")
        });
    } else if header.previous != walked.digest {
        findings.add(FindingKind::Chain, place, Some(header.events()), || {
            format!("it continues {}, and the batch before is {}", header.previous, walked.digest)
        });
    } else if first_event != walked.end {
        findings.add(FindingKind::EventNumbers, place, Some(header.events()), || {
            format!("its first event is {first_event}, where {} is due", walked.end)
        });
    }
}

/// A row tells of one moment of its stream: when the batches come to its sequence, all must fit.
fn compare_at_row(stream: StreamId, row: &StreamRow, walked: &Walked, findings: &mut Findings) {
    if row.posted_sequence != walked.sequence {
        return;
    }
    let mut differs = |what: &str, said: String, found: String| {
        if said != found {
            let sequence = walked.sequence;
            findings.add(FindingKind::StreamRow, Place::Stream(stream), None, || {
                format!("at batch {sequence} its row says {what} {said}, its batches {found}")
            });
        }
    };
    differs("digest", row.posted_digest.to_string(), walked.digest.to_string());
    differs("events", row.posted_end.to_string(), walked.end.to_string());
    let quarantined = |batches: u64, events: u64| format!("{batches} with {events} events");
    differs(
        "quarantined batches",
        quarantined(row.quarantined_batches, row.quarantined_events),
        quarantined(walked.quarantined_batches, walked.quarantined_events),
    );
    let told = |opening: Option<OpeningId>| opening.map_or("none".to_owned(), |id| id.to_string());
    differs("opening", told(row.opening), told(walked.opening));
}
