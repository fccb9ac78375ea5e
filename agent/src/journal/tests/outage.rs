//! A day without a collector, in simulated time: what it costs on disk, and that all of it is posted after.

use std::sync::Arc;

use tidemark_common::id::{MeterName, RulesVersion};
use tidemark_common::wire::{MeterRule, Rules};

use super::*;
use crate::event::{Door, TimeLimits};
use crate::intake::core::Core;
use crate::intake::job::{CloseJob, CommitJob, IntakeSettings, IntakeStart, Job};
use crate::parse::naming::{Naming, Patterns};

const MINUTES: u64 = 24 * 60;
const SERIES: u64 = 20;
const OPEN_CHUNK_BYTES_MAX: u64 = 256 << 10;

fn rules() -> Arc<Rules> {
    let meter = MeterRule {
        meter: MeterName::parse("calls").unwrap(),
        dimensions: vec!["key".to_owned()],
        negative: false,
    };
    Arc::new(Rules {
        version: RulesVersion(1),
        seal_interval_millis: 1_000,
        meters: vec![meter],
        cloud_events: vec![],
        deduplicated: vec![],
    })
}

fn core(journal: &Journal) -> Core {
    let settings = IntakeSettings {
        naming: Naming::default(),
        negative: Patterns::default(),
        time: TimeLimits::default(),
        linger_millis: 5,
        linger_max_millis: 50,
        open_lines_max: 100_000,
        open_chunk_bytes_max: OPEN_CHUNK_BYTES_MAX,
        ids_max: 1_000,
        ids_window_millis: 86_400_000,
    };
    let start = IntakeStart {
        opening: journal.state().opening,
        accepted: 0,
        evidence: Evidence::default(),
        next_group: 1,
        newest: NOON,
        ids: vec![],
        sources: vec![],
        rules: Some(rules()),
        unique_key: Some(KEY),
    };
    Core::new(settings, start)
}

/// What the commit thread and the sealer make of a job.
fn writes(job: Job) -> Vec<Write> {
    match job {
        Job::Commit(CommitJob {
            group,
            opening,
            rules,
            first_event,
            oldest,
            chunk,
            evidence,
            ..
        }) => {
            let Some(chunk) = chunk else { return vec![Write::Evidence(evidence)] };
            vec![Write::Append(Append {
                group,
                opening,
                rules,
                first_event,
                events: chunk.events,
                oldest,
                evidence,
                bytes: zstd::bulk::compress(&chunk.bytes, 1).unwrap(),
            })]
        }
        Job::Close(CloseJob { group, batch, position }) => {
            let batch = batch.unwrap_or_else(|| crate::aggregate::OpenBatch::new(KEY.id));
            vec![Write::Seal(Seal {
                group,
                opening: position.opening,
                rules: position.rules,
                first_event: position.first_event,
                end_event: position.end_event,
                body: batch.encode([1; 32], &position.evidence).unwrap(),
                raw_events: RawEvents::Dropped,
            })]
        }
    }
}

/// The journal after a day of so many events a minute and series, its collector away, and what was in it at most.
fn day(events_a_minute: u64) -> (Journal, Timestamp, u64) {
    let limits = JournalOptions { bytes_max: 1 << 30, ..options() };
    let (mut journal, _) = Journal::open_on(Disk::default(), limits, fresh(1), NOON).unwrap();
    journal.commit(vec![welcome(0)], NOON).unwrap();
    let mut core = core(&journal);
    let mut live_bytes_max = 0;
    let mut now = NOON;
    for minute in 0..MINUTES {
        now = NOON.plus_millis(i64::try_from(minute * 60_000).unwrap());
        for series in 0..SERIES {
            let values: Vec<_> =
                (0..events_a_minute).map(|n| ((minute * 7 + n * 13) % 1_000).to_string()).collect();
            let line = format!("calls:{}|d|#customer:acme,key:k{series}", values.join(":"));
            core.datagram(Door::Udp, line.as_bytes(), true, now);
        }
        // The uplink has no room.
        core.turn(minute * 60_000, now, false, false);
        let writes: Vec<Write> = core.take_jobs().into_iter().flat_map(writes).collect();
        journal.commit(writes, now).unwrap();
        live_bytes_max = live_bytes_max.max(journal.state().live_bytes);
    }
    core.close(now);
    let writes: Vec<Write> = core.take_jobs().into_iter().flat_map(writes).collect();
    journal.commit(writes, now).unwrap();
    (journal, now, live_bytes_max)
}

#[test]
fn a_days_outage_costs_disk_by_distinct_lines_and_is_posted_whole() {
    let (few, _, few_max) = day(5);
    let (mut many, now, many_max) = day(40);
    let (few, state) = (few.state().clone(), many.state().clone());
    assert_eq!((few.accepted, state.accepted), (144_000, 1_152_000));
    assert_eq!((state.events_in_chunks, state.events_in_unposted_batches), (0, 1_152_000));
    // Eight times the events: the lines of a day are the same, but for those that a batch's end cuts in two.
    let lines = SERIES * 24 * 4;
    println!(
        "{lines} lines: {} events in {} batches of {} bytes, {few_max} at most; {} events in {} of {}, {many_max} at most",
        few.accepted,
        few.backlog_batches,
        few.backlog_bytes,
        state.accepted,
        state.backlog_batches,
        state.backlog_bytes,
    );
    assert!(
        state.backlog_bytes < few.backlog_bytes * 2,
        "{} {}",
        state.backlog_bytes,
        few.backlog_bytes
    );
    assert!(state.backlog_bytes < lines * 100);
    // What is not summed up yet is bounded by itself, however long the outage.
    assert!(
        many_max < state.live_bytes + 2 * OPEN_CHUNK_BYTES_MAX,
        "{many_max} {}",
        state.live_bytes
    );

    let sealed = state.sealed_sequence;
    many.commit(vec![Write::Posted(sealed)], now).unwrap();
    let state = many.state();
    assert_eq!((state.posted_events, state.events_in_unposted_batches), (1_152_000, 0));
    assert_eq!((state.backlog_batches, state.oldest_unposted), (0, None));
}
