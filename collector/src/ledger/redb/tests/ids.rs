//! Events with ids: of the same id one is billed, whatever comes between.

use std::ops::ControlFlow;

use tidemark_common::batch::SealedBatch;

use super::*;
use crate::grants::{Grants, Otherwise};
use crate::ledger::check::{Bodies, Checker, LedgerTable};
use crate::ledger::fold::FoldSlice;
use crate::ledger::request::Admission;
use crate::usage::Class;

const DAY_MILLIS: i64 = 86_400_000;
/// The first instant of a span, so that 35 days later is the first of the next.
const START: Timestamp = Timestamp(500 * 35 * DAY_MILLIS);

/// A ledger on disks that outlive it, and two agents' streams.
struct Ledger {
    disks: [Disk; 2],
    store: RedbStore,
    tail: Vec<Arc<TailBatch>>,
    at: Timestamp,
    journals: Vec<Journal>,
}

impl Ledger {
    fn new() -> Self {
        let disks = [Disk::default(), Disk::default()];
        let (store, new) = open(&disks[0], &disks[1]);
        let mut journals: Vec<_> = (1..=3).map(|stream| Journal::new(stream, new.ledger)).collect();
        for journal in &mut journals {
            runtime().block_on(greet(&store, journal, 0));
        }
        Self { disks, store, tail: Vec::new(), at: START, journals }
    }

    fn seal(&mut self, stream: usize, ids: &[u8]) -> Request {
        let uses: Vec<_> = ids.iter().map(|id| (("c", "m", 7, 5), Some(*id))).collect();
        self.journals[stream].seal_with_ids(&uses);
        let sealed = self.journals[stream].sealed.len();
        self.journals[stream].admit(sealed)
    }

    /// Seals and admits a batch of events with these ids; how many of them are suppressed.
    fn post(&mut self, stream: usize, ids: &[u8]) -> u64 {
        let request = self.seal(stream, ids);
        self.commit(vec![request])
    }

    fn commit(&mut self, group: Vec<Request>) -> u64 {
        let committed = runtime().block_on(self.store.commit(group, self.at, None)).unwrap();
        for reply in &committed.replies {
            assert!(matches!(reply, Reply::Judged { verdict: crate::dedupe::Verdict::Admit, .. }));
        }
        self.tail.extend(committed.admitted);
        committed.suppressed
    }

    fn pass_days(&mut self, days: i64) {
        self.at = self.at.plus_millis(days * DAY_MILLIS);
    }

    /// Events by class, in totals and tail.
    fn classes(&self) -> (u64, u64, u64) {
        let customer = CustomerId::parse("c").unwrap();
        let (from, to) = (Bucket(0), Bucket(u32::MAX));
        let question = UsageQuestion { customer: &customer, meter: None, from, to };
        let rows = self.store.totals().unwrap().usage(&question).unwrap();
        let folded = rows.iter().map(|row| (row.class, row.usage.events));
        let lines = self.tail.iter().flat_map(|batch| batch.lines.of(&customer));
        let lines = lines.map(|classed| (classed.class, classed.line.value.events));
        let (mut normal, mut unauthorised, mut suppressed) = (0, 0, 0);
        for (class, events) in folded.chain(lines) {
            match class {
                Class::Normal => normal += events,
                Class::Unauthorised => unauthorised += events,
                Class::Suppressed => suppressed += events,
            }
        }
        (normal, unauthorised, suppressed)
    }

    /// What each suppressed line came again of: stream.sequence.line both.
    fn listed(&self) -> Vec<String> {
        let mut listed = Vec::new();
        let told = |stream: StreamId, sequence: Sequence, line| {
            format!("{}.{sequence}.{line}", stream.0[0])
        };
        let mut visit =
            |_, header: &Header, _: &_, suppressed: &crate::ledger::duplicates::Suppressed| {
                listed.extend(suppressed.iter().map(|line| {
                    let first = line.first;
                    let again = told(header.stream, header.sequence, line.line);
                    format!("{again} of {}", told(first.stream, first.sequence, first.line))
                }));
                ControlFlow::Continue(())
            };
        self.store.visit_suppressed(0, &mut visit).unwrap();
        listed
    }

    fn fold(&mut self) {
        let slice =
            FoldSlice::of(self.tail.drain(..).collect::<Vec<_>>().iter().map(AsRef::as_ref));
        runtime().block_on(self.store.fold(Arc::new(slice))).unwrap();
    }

    /// Power fails; the totals are lost too.
    fn crash(self) -> Self {
        let Self { disks, store, at, mut journals, .. } = self;
        drop(store);
        let disks = [disks[0].crash(0), Disk::default()];
        let (store, recovered) = open(&disks[0], &disks[1]);
        for journal in &mut journals {
            runtime().block_on(greet(&store, journal, journal.sealed.len()));
        }
        Self { disks, store, tail: recovered.tail, at, journals }
    }

    fn rows(&self) -> Vec<(LedgerTable, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        self.store
            .export::<StoreError>(&mut |table, key, value| {
                rows.push((table, key.to_vec(), value.to_vec()));
                Ok(())
            })
            .unwrap();
        rows
    }

    /// Ids that are stored.
    fn ids(&self) -> usize {
        self.rows().iter().filter(|(table, _, _)| *table == LedgerTable::Ids).count()
    }
}

#[test]
fn the_same_id_of_two_streams_counts_once() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.post(0, &[1, 2]), 0);
    assert_eq!(ledger.post(1, &[2, 3, 1]), 2);
    assert_eq!(ledger.post(1, &[3]), 1);
    assert_eq!(ledger.classes(), (3, 0, 3));
    let expected = ["2.1.0 of 1.1.1", "2.1.2 of 1.1.0", "2.2.0 of 2.1.1"];
    assert_eq!(ledger.listed(), expected);
    ledger.fold();
    assert_eq!(ledger.classes(), (3, 0, 3));
    assert_eq!(ledger.store.totals().unwrap().events(), Ok(6), "all are counted");
}

#[test]
fn one_transaction_and_one_body_are_no_exception() {
    let mut ledger = Ledger::new();
    let group = vec![ledger.seal(0, &[1, 1, 2]), ledger.seal(1, &[2, 1])];
    assert_eq!(ledger.commit(group), 3);
    assert_eq!(ledger.classes(), (2, 0, 3));
    let expected = ["1.1.1 of 1.1.0", "2.1.0 of 1.1.2", "2.1.1 of 1.1.0"];
    assert_eq!(ledger.listed(), expected);
}

#[test]
fn an_id_is_known_for_35_days_of_its_first_event() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.post(0, &[1]), 0);
    ledger.pass_days(34);
    assert_eq!(ledger.post(1, &[1]), 1);
    ledger.pass_days(1);
    assert_eq!(ledger.post(2, &[1]), 0, "what came again did not make it known for longer");
    ledger.pass_days(20);
    assert_eq!(ledger.post(0, &[1]), 1);
    assert_eq!(ledger.listed(), ["2.1.0 of 1.1.0", "1.2.0 of 3.1.0"]);
}

#[test]
fn a_batch_that_comes_again_is_no_duplicate_of_itself() {
    let mut ledger = Ledger::new();
    ledger.post(0, &[1, 2]);
    let again = ledger.journals[0].admit(1);
    let committed = runtime().block_on(ledger.store.commit(vec![again], START, None)).unwrap();
    assert_eq!((words(&committed).as_str(), committed.suppressed), ("duplicate@1", 0));
    assert_eq!(ledger.classes(), (2, 0, 0));
}

#[test]
fn what_was_judged_outlives_a_crash_and_the_totals() {
    let mut ledger = Ledger::new();
    ledger.post(0, &[1, 2]);
    ledger.post(1, &[2]);
    let mut ledger = ledger.crash();
    assert_eq!(ledger.classes(), (2, 0, 1));
    assert_eq!(ledger.post(2, &[1, 2, 3]), 2);
    ledger.fold();
    let ledger = ledger.crash();
    assert_eq!(ledger.classes(), (3, 0, 3));
    assert_eq!(ledger.listed().len(), 3);
}

fn admit_for(grants: &Grants, batch: &SealedBatch, journal: &Journal) -> Request {
    let grant = grants.of(&AgentName::parse("agent").unwrap());
    let (header, bytes) = (batch.header, batch.bytes.clone());
    Request::Admit(Box::new(Admission::open_for(&grant, header, bytes, journal.fence)))
}

#[test]
fn what_nobody_may_bill_takes_no_place() {
    let grants = Grants { otherwise: Otherwise::Deny, identities: Vec::new() };
    let mut ledger = Ledger::new();
    drop(ledger.seal(0, &[1]));
    let request = admit_for(&grants, &ledger.journals[0].sealed[0], &ledger.journals[0]);
    assert_eq!(ledger.commit(vec![request]), 0);
    assert_eq!(ledger.classes(), (0, 1, 0));
    assert_eq!(ledger.post(1, &[1]), 0, "it is the first that may be billed");
    assert_eq!(ledger.classes(), (1, 1, 0));
    assert_eq!(ledger.ids(), 1);
}

#[test]
fn ids_that_nobody_finds_any_more_are_removed_piece_by_piece() {
    let mut ledger = Ledger::new();
    ledger.post(0, &(0..200).collect::<Vec<_>>());
    ledger.pass_days(35);
    ledger.post(1, &[201]);
    assert_eq!(ledger.ids(), 201, "one may be asked for until the next span");
    ledger.pass_days(35);
    ledger.post(1, &[202]);
    assert_eq!(ledger.ids(), 2);
}

#[test]
fn a_backup_carries_ids_and_what_they_suppress() {
    let mut ledger = Ledger::new();
    ledger.post(0, &[1, 2]);
    ledger.post(1, &[2]);
    let rows = ledger.rows();
    let format = rows.iter().find(|(_, key, _)| key == b"format").map(|(_, _, value)| &value[..]);
    assert_eq!(format, Some(&[0, 5][..]), "older collectors would bill it");
    let disks = [Disk::default(), Disk::default()];
    let mut import = Import::begin_on(disks[0].clone(), disks[1].clone(), &options()).unwrap();
    let mut checker = Checker::new(Bodies::Open);
    for (table, key, value) in &rows {
        let batch = checker.row(*table, key, value);
        import.row(*table, key, value).unwrap();
        if let Some(batch) = batch {
            import.fold(batch).unwrap();
        }
    }
    assert_eq!(checker.finish().findings.count(), 0);
    import.finish(Restored { incarnation: 70, at: START }).unwrap();
    let journals = ledger.journals.clone();
    let before = ledger.listed();
    let (store, recovered) = open(&disks[0].crash(0), &disks[1].crash(0));
    let mut restored = Ledger { disks, store, tail: recovered.tail, at: START, journals };
    for journal in &mut restored.journals {
        runtime().block_on(greet(&restored.store, journal, journal.sealed.len()));
    }
    assert_eq!((restored.classes(), restored.listed()), ((2, 0, 1), before));
    assert_eq!(restored.post(2, &[1, 3]), 1);
}

#[test]
fn rows_that_cannot_be_are_found() {
    let made = || {
        let mut ledger = Ledger::new();
        ledger.post(0, &[1, 2]);
        ledger.post(1, &[2]);
        ledger.rows()
    };
    let check = |table: LedgerTable, change: fn(&mut Vec<u8>, &mut Vec<u8>), expected: &str| {
        let mut checker = Checker::new(Bodies::Open);
        let mut changed = false;
        for (at, mut key, mut value) in made() {
            if at == table && !std::mem::replace(&mut changed, at == table) {
                change(&mut key, &mut value);
            }
            checker.row(at, &key, &value);
        }
        let found: Vec<_> = checker
            .finish()
            .findings
            .iter()
            .map(|finding| {
                format!("{} at {}: {}", finding.kind.name(), finding.place, finding.what)
            })
            .collect();
        assert!(found.iter().any(|found| found.contains(expected)), "{expected}: {found:?}");
    };
    use LedgerTable::{Ids, Suppressed};
    check(Ids, |_, value| value.truncate(31), "failed to read a keyed id row");
    check(Ids, |key, _| key.truncate(9), "a key is not a span and an id");
    check(Ids, |_, value| value[4] = 9, "which has no row");
    check(Suppressed, |key, _| key[7] = 9, "no batch stands where one has suppressed lines");
    check(Suppressed, |key, _| key[7] = 0, "which is not before it");
    check(Suppressed, |_, value| value[3] = 1, "not among its 1 lines");
    check(Suppressed, |_, value| value[4] = 9, "which is not before it");
    check(Suppressed, |_, value| value[27] = 2, "which is not before it");
}
