//! Sealed batches: no hole in sequences or event numbers, an unbroken chain of digests, sound bodies.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};
use tidemark_common::batch::{Body, Evidence, Header, SealedBatch, genesis};
use tidemark_common::id::{Digest, EventNumber, Sequence};
use tidemark_common::wire::HeldOpening;

use super::{Depth, Examined, SET_ASIDE};
use crate::journal::apply::to_u64;
use crate::journal::reader::ReadError;
use crate::journal::record::{BatchRow, Record};
use crate::journal::tables::{BATCHES, SEALED};

const POSTED: &str = "The ledger has this batch: nothing is lost, unless it is restored from a backup that lacks it.";
const UNPOSTED: &str = "The ledger lacks this batch. Sent as it is, it is refused or quarantined there: stop the agent, \
                        keep the file, and tell the collector's operator which batch it is.";

/// What the batch before has to say of the next one.
struct Before {
    sequence: Sequence,
    digest: Digest,
    end_event: EventNumber,
    evidence: Evidence,
}

pub(super) fn read(
    transaction: &ReadTransaction,
    depth: Depth,
    found: &mut Examined,
) -> Result<(), ReadError> {
    let sealed = transaction.open_table(SEALED)?;
    let batches = transaction.open_table(BATCHES)?;
    found.compare("batches", "bodies", batches.len()?, sealed.len()?);
    let posted = found.positions.map_or(Sequence::ZERO, |positions| positions.posted_sequence);
    let mut before = None;
    for entry in batches.iter()? {
        let (sequence, record) = entry?;
        let sequence = Sequence(sequence.value());
        found.took(record.value().len());
        found.first = found.first.or(Some(sequence));
        found.last = Some(sequence);
        let row = match BatchRow::decode(record.value()) {
            Ok(row) => row,
            Err(error) => {
                found.tell(format!("batches, row {sequence}"), error, SET_ASIDE);
                continue;
            }
        };
        found.took(usize::try_from(row.bytes).unwrap_or(usize::MAX));
        let remedy = if sequence <= posted { POSTED } else { UNPOSTED };
        if sequence <= posted {
            found.retained.add(row.events(), row.bytes);
        } else {
            found.unposted.add(row.events(), row.bytes);
            let BatchRow { opening, first_event, end_event, .. } = row;
            found.hold(HeldOpening { opening, first: first_event, end: end_event });
        }
        let place = format!("batch {sequence}");
        let mut problems = Vec::new();
        let mut evidence = None;
        match sealed.get(sequence.0)? {
            Some(bytes) => {
                evidence = judge(sequence, &row, bytes.value(), depth, found, &mut problems);
                follows(sequence, &row, bytes.value(), before.as_ref(), found, &mut problems);
            }
            None => problems.push("its body is missing".to_owned()),
        }
        for problem in problems {
            found.tell(&place, problem, remedy);
        }
        let evidence = evidence.unwrap_or_default();
        before = Some(Before { sequence, digest: row.digest, end_event: row.end_event, evidence });
    }
    ends(before.as_ref(), found);
    Ok(())
}

/// Judges one batch by itself; its evidence, where its body was read.
fn judge(
    sequence: Sequence,
    row: &BatchRow,
    bytes: &[u8],
    depth: Depth,
    found: &mut Examined,
    problems: &mut Vec<String>,
) -> Option<Evidence> {
    if row.bytes != to_u64(bytes.len()) {
        problems.push(format!("it has {} bytes, and its row says {}", bytes.len(), row.bytes));
    }
    let (header, stored) = match SealedBatch::split(bytes) {
        Ok(split) => split,
        Err(error) => {
            problems.push(error.to_string());
            return None;
        }
    };
    let digest = header.digest();
    let Header { stream, opening, first_event, end_event, .. } = header;
    let says = [
        ("sequence", header.sequence == sequence),
        ("stream", found.stream.is_none_or(|own| own == stream)),
        ("opening", opening == row.opening),
        ("events", (first_event, end_event) == (row.first_event, row.end_event)),
    ];
    for (what, _) in says.into_iter().filter(|(_, agrees)| !agrees) {
        problems.push(format!("its header's {what} is not that of its row"));
    }
    if digest != row.digest {
        problems.push(format!("its header's digest is {digest}, and its row says {}", row.digest));
    }
    if depth == Depth::Rows {
        return None;
    }
    match Body::open(&header, stored) {
        Ok(body) => {
            found.lines = found.lines.saturating_add(to_u64(body.lines.len()));
            Some(body.evidence)
        }
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    }
}

/// Judges one batch by the one before it.
fn follows(
    sequence: Sequence,
    row: &BatchRow,
    bytes: &[u8],
    before: Option<&Before>,
    found: &Examined,
    problems: &mut Vec<String>,
) {
    let previous = SealedBatch::split(bytes).ok().map(|(header, _)| header.previous);
    let expected = match before {
        Some(before) => Some(before.digest),
        None => first_previous(sequence, found),
    };
    if let (Some(previous), Some(expected)) = (previous, expected)
        && previous != expected
    {
        problems.push(format!("it follows digest {previous}, and the batch before has {expected}"));
    }
    let Some(before) = before else { return };
    if before.sequence.0.checked_add(1) != Some(sequence.0) {
        problems.push(format!("it follows batch {}: those between are missing", before.sequence));
    }
    if before.end_event != row.first_event {
        let (end, first) = (before.end_event, row.first_event);
        problems.push(format!("its events begin at {first}, and the batch before ends at {end}"));
    }
}

/// The digest before the first batch that is held, where it is known.
fn first_previous(sequence: Sequence, found: &Examined) -> Option<Digest> {
    let positions = found.positions?;
    if sequence == Sequence::ZERO.next() {
        return Some(genesis(found.ledger?, found.stream?));
    }
    (positions.posted_sequence.next() == sequence).then_some(positions.posted_digest)
}

/// The last batch must be where the counters say that the stream is sealed.
fn ends(last: Option<&Before>, found: &mut Examined) {
    let Some(positions) = found.positions else { return };
    let place = "counters";
    match last {
        Some(last) => {
            found.compare(place, "sealed sequence", positions.sealed_sequence, last.sequence);
            found.compare(place, "sealed events", positions.sealed_events, last.end_event.0);
            found.compare(place, "sealed digest", positions.sealed_digest, last.digest);
            for (code, count) in last.evidence.iter() {
                let stored = found.evidence.iter().find(|(known, _)| *known == code);
                if stored.is_none_or(|(_, stored)| stored < count) {
                    let problem = format!("evidence {code} went back from {count}");
                    found.tell("meta, row EVIDENCE", problem, SET_ASIDE);
                }
            }
        }
        None => {
            let (sealed, posted) = (positions.sealed_sequence, positions.posted_sequence);
            found.compare(place, "sealed sequence, as no batch is held,", sealed, posted);
        }
    }
}
