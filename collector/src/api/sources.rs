//! Which batches a line's usage came in: `explain?sources=true`.
//!
//! **Owns** the search. It reads every stored batch of the line's time, so it takes as long as that, and is asked for by name. What it finds
//! comes to the line's events exactly, with what persons corrected.
//!
//! Limits: at most [`STORED_BYTES_MAX`] are read, and [`BATCHES_MAX`] batches named.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::ops::ControlFlow;

use axum::http::StatusCode;
use serde::Serialize;

use tidemark_common::id::{CustomerId, Sequence, StreamId};

use crate::billing::is_of;
use crate::catalog::Catalog;
use crate::ledger::books::correction::Corrections;
use crate::ledger::store::{ShownBatch, StoreError, UsageQuestion, WhichBatches};
use crate::ledger::{Ledger, Snapshot};
use crate::rating::UsageLine;
use crate::usage::{Accumulator, Sign, UsageRow};

use super::problem::Problem;

const STORED_BYTES_MAX: u64 = 4 << 30;
const BATCHES_MAX: usize = 100_000;

/// Where the usage of a line came from.
#[derive(Debug, Serialize)]
pub(super) struct Sources {
    streams: Vec<SourceStream>,
    /// Events that persons added, less those that they took away.
    corrected_events: i64,
    /// Of all batches and corrections: those of the line.
    events: u64,
}

#[derive(Debug, Serialize)]
struct SourceStream {
    stream: String,
    batches: Vec<SourceBatch>,
}

#[derive(Debug, Serialize)]
struct SourceBatch {
    sequence: u64,
    events: u64,
}

/// Searches all batches up to the snapshot's cut. Blocks.
pub(super) fn of(
    ledger: &Ledger,
    snapshot: &Snapshot,
    catalog: &Catalog,
    id: &CustomerId,
    line: &UsageLine<'_>,
) -> Result<Sources, Problem> {
    let mut posted: HashMap<StreamId, Sequence> = snapshot.posted().collect();
    let mut unreadable = None;
    let period = line.part.share.part;
    let question = UsageQuestion {
        customer: id,
        meter: Some(&line.meter.name),
        from: period.start,
        to: period.end,
    };
    let corrections = Corrections::of(&*snapshot.books, &question)?;
    let mut found: BTreeMap<StreamId, Vec<SourceBatch>> = BTreeMap::new();
    let (mut read, mut named, mut events) = (0_u64, 0_usize, 0_u64);
    let mut too_many = false;
    let which = WhichBatches { first: period.start, last: period.end, ..WhichBatches::ALL };
    ledger.visit_batches(which, &mut |batch| {
        let ShownBatch { header, bytes, lines, .. } = *batch;
        read = read.saturating_add(bytes);
        if read > STORED_BYTES_MAX || named > BATCHES_MAX {
            too_many = true;
            return ControlFlow::Break(());
        }
        match posted_of(&mut posted, snapshot, header.stream) {
            Ok(last) if header.sequence <= last => {}
            Ok(_) => return ControlFlow::Continue(()),
            Err(error) => {
                unreadable = Some(error);
                return ControlFlow::Break(());
            }
        }
        let rows = lines.of(id).iter().map(|classed| UsageRow {
            class: classed.class,
            sign: Sign::Added,
            meter: classed.line.key.meter.clone(),
            dimensions: classed.line.key.dimensions.clone(),
            bucket: classed.line.key.bucket,
            usage: Accumulator::from(&classed.line.value),
        });
        let of_line = rows.filter(|row| is_of(catalog, id, line, row) && !corrections.replace(row));
        let here = of_line.fold(0_u64, |sum, row| sum.saturating_add(row.usage.events));
        if here > 0 {
            named = named.saturating_add(1);
            events = events.saturating_add(here);
            let batch = SourceBatch { sequence: header.sequence.0, events: here };
            found.entry(header.stream).or_default().push(batch);
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = unreadable {
        return Err(error.into());
    }
    if too_many {
        return Err(too_many_batches());
    }
    let rows = corrections.into_rows().filter(|row| is_of(catalog, id, line, row));
    let corrected = rows.fold(0_i64, |sum, row| {
        let count = i64::try_from(row.usage.events).unwrap_or(i64::MAX);
        match row.sign {
            Sign::Added => sum.saturating_add(count),
            Sign::Taken => sum.saturating_sub(count),
        }
    });
    let streams = found
        .into_iter()
        .map(|(stream, batches)| SourceStream { stream: stream.to_string(), batches });
    Ok(Sources {
        streams: streams.collect(),
        corrected_events: corrected,
        events: events.saturating_add_signed(corrected),
    })
}

/// Up to where the snapshot has a stream: one that is not live has retired, or is newer.
pub(super) fn posted_of(
    posted: &mut HashMap<StreamId, Sequence>,
    snapshot: &Snapshot,
    stream: StreamId,
) -> Result<Sequence, StoreError> {
    Ok(match posted.entry(stream) {
        Entry::Occupied(last) => *last.get(),
        Entry::Vacant(place) => {
            let retired = snapshot.retired_stream(stream)?;
            *place.insert(retired.map_or(Sequence::ZERO, |found| found.record.posted_sequence))
        }
    })
}

fn too_many_batches() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "too-many-batches",
        "There are too many batches to be searched",
    )
    .detail(format!(
        "more than {STORED_BYTES_MAX} bytes are stored, or {BATCHES_MAX} batches are of the line"
    ))
    .remedy("leave `sources` out")
}
