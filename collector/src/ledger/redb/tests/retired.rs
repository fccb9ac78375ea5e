//! Streams that retire and return: nothing else tells the ledger from one that knows of no retirement.

use std::ops::ControlFlow;

use tidemark_common::id::EventNumber;

use super::*;
use crate::ledger::check::{Bodies, Checked, Checker, FindingKind, LedgerTable};
use crate::ledger::codec;
use crate::ledger::retired::{RetiredStream, RetiredSums};
use crate::ledger::stream::StreamRecord;

/// Streams retire once they were not heard of for this long.
const AFTER: i64 = 100;
const JOURNALS: usize = 4;

type Rows = Vec<(LedgerTable, Vec<u8>, Vec<u8>)>;
type Change<'c> = &'c dyn Fn(&mut Rows);

/// A ledger and the agents' journals.
struct World {
    disks: (Disk, Disk),
    store: RedbStore,
    journals: Vec<Journal>,
    tail: Vec<Arc<TailBatch>>,
    at: Timestamp,
}

impl World {
    fn new() -> Self {
        let disks = (Disk::default(), Disk::default());
        let options = RedbOptions { random: same, ..options() };
        let (store, recovered) =
            RedbStore::open_on(disks.0.clone(), disks.1.clone(), &options, NOW).unwrap();
        let journal = |number| Journal::new(u8::try_from(number).unwrap(), recovered.ledger);
        let journals = (0..JOURNALS).map(journal).collect();
        Self { disks, store, journals, tail: Vec::new(), at: NOW }
    }

    async fn ask(&mut self, request: Request) -> Committed {
        let committed = self.store.commit(vec![request], self.at, None).await.unwrap();
        self.tail.extend(committed.admitted.iter().cloned());
        committed
    }

    /// A word for the reply.
    async fn step(&mut self, step: &Step) -> String {
        match *step {
            Step::Hello(number, posted) => {
                let journal = &self.journals[number];
                let posted = posted.min(journal.sealed.len());
                let request = journal.hello_request(posted, "agent");
                let committed = self.ask(request).await;
                if let [Reply::Welcomed(welcomed)] = committed.replies[..] {
                    self.journals[number].fence = welcomed.fence;
                    let (posted, digest) = (welcomed.posted_sequence, welcomed.posted_digest);
                    return format!("welcome@{posted} {digest}");
                }
                words(&committed)
            }
            Step::Admit(number) => {
                let request = {
                    let journal = &mut self.journals[number];
                    journal.seal(&[("c", "m", 1, 5), ("c", "n", 1, 5)]);
                    journal.admit(journal.sealed.len())
                };
                words(&self.ask(request).await)
            }
            Step::Resend(number) => {
                let journal = &self.journals[number];
                let Some(last) = journal.sealed.len().checked_sub(1) else {
                    return String::new();
                };
                let request = journal.admit(1 + last / 2);
                words(&self.ask(request).await)
            }
            Step::NewOpening(number) => {
                self.journals[number].opening.0[1] += 1;
                String::new()
            }
            Step::Stranger(number) => {
                let request = self.journals[number].hello_request(0, "stranger");
                words(&self.ask(request).await)
            }
            Step::Confirm(number) => words(&self.ask(self.journals[number].confirm(self.at)).await),
            Step::Close(number) => words(&self.ask(self.journals[number].close()).await),
            Step::Leave(number) => {
                let posted = self.journals[number].sealed.len();
                let mut said = Vec::new();
                for step in [Step::Hello(number, posted), Step::Close(number), Step::Fold] {
                    said.push(Box::pin(self.step(&step)).await);
                }
                self.at = self.at.plus_millis(AFTER);
                said.join(" ")
            }
            Step::Fold => {
                let slice = FoldSlice::of(self.tail.iter().map(AsRef::as_ref));
                self.store.fold(Arc::new(slice)).await.unwrap();
                self.tail.clear();
                String::new()
            }
            Step::Checkpoint => {
                self.store.checkpoint().await.unwrap();
                String::new()
            }
            Step::Wait => {
                self.at = self.at.plus_millis(AFTER);
                String::new()
            }
        }
    }

    /// Retires what is due.
    async fn retire(&mut self) -> usize {
        let streams = self.journals.iter().map(|journal| journal.stream).collect();
        let committed = self.ask(Request::Retire { streams, after_millis: AFTER }).await;
        let [Reply::Retired(count)] = committed.replies[..] else { panic!() };
        assert_eq!(committed.retired.len(), count);
        count
    }

    /// Power fails: what is not synced is gone. The totals may be gone altogether.
    fn crash(&mut self, totals: bool) {
        let kept = if totals { self.disks.1.crash(0) } else { Disk::default() };
        self.disks = (self.disks.0.crash(0), kept);
        let (store, recovered) = open(&self.disks.0, &self.disks.1);
        // Both stay live: agents say hello again.
        (self.store, self.tail) = (store, recovered.tail);
        assert_eq!(self.store.inner.memory().unwrap().retired, recovered.retired);
    }

    /// All streams, live and retired, and what the latter come to.
    fn streams(&self) -> (Vec<StreamRecord>, RetiredSums) {
        let memory = self.store.inner.memory().unwrap();
        let mut all: Vec<_> = memory.streams.values().cloned().collect();
        let mut sums = RetiredSums::default();
        for RetiredStream { record, .. } in self.retired(Timestamp(0)) {
            assert!(!memory.streams.contains_key(&record.stream), "live and retired");
            sums.add(&record);
            all.push(record);
        }
        assert_eq!(memory.retired, sums, "the sums are those of the rows");
        all.sort_by_key(|record| record.stream);
        (all, sums)
    }

    fn retired(&self, since: Timestamp) -> Vec<RetiredStream> {
        let mut found = Vec::new();
        let mut take = |retired| {
            found.push(retired);
            ControlFlow::Continue(())
        };
        let _all = self.store.retired().unwrap().visit_since(since, &mut take).unwrap();
        found
    }

    fn rows(&self) -> Rows {
        let mut rows = Vec::new();
        let mut take = |table, key: &[u8], value: &[u8]| {
            rows.push((table, key.to_vec(), value.to_vec()));
            Ok::<_, StoreError>(())
        };
        self.store.export(&mut take).unwrap();
        rows
    }
}

/// Both ledgers have one id and one key.
fn same(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    bytes.fill(7);
    Ok(())
}

fn check(rows: &Rows) -> Checked {
    let mut checker = Checker::new(Bodies::Open);
    for (table, key, value) in rows {
        checker.row(*table, key, value);
    }
    checker.finish()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// An agent that knows so many to be posted.
    Hello(usize, usize),
    Admit(usize),
    Resend(usize),
    NewOpening(usize),
    /// A hello of another identity.
    Stranger(usize),
    Confirm(usize),
    Close(usize),
    /// Says hello, closes, and is not heard of until it is due.
    Leave(usize),
    Fold,
    Checkpoint,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let number = || 0..JOURNALS;
    let step = prop_oneof![
        3 => (number(), 0_usize..4).prop_map(|(number, posted)| Step::Hello(number, posted)),
        5 => number().prop_map(Step::Admit),
        2 => number().prop_map(Step::Resend),
        1 => number().prop_map(Step::NewOpening),
        1 => number().prop_map(Step::Stranger),
        2 => number().prop_map(Step::Confirm),
        2 => number().prop_map(Step::Close),
        5 => number().prop_map(Step::Leave),
        2 => Just(Step::Fold),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Wait),
    ];
    proptest::collection::vec((step, any::<bool>()), 1..32)
}

/// One ledger retires whatever is due after every step, and loses power after many; the other does neither.
async fn side_by_side(steps: &[(Step, bool)]) {
    let (mut with, mut without) = (World::new(), World::new());
    for (index, (step, crashes)) in steps.iter().enumerate() {
        let (said, expected) = (with.step(step).await, without.step(step).await);
        // A fence tells of the incarnation.
        let plain = |said: &str| said.split("Fence(").next().unwrap_or_default().to_owned();
        assert_eq!(plain(&said), plain(&expected), "step {index}: {step:?}");
        with.retire().await;
        if *crashes {
            with.crash(index % 3 > 0);
        }
        let ((found, sums), (others, none)) = (with.streams(), without.streams());
        assert_eq!(none, RetiredSums::default());
        let told = |records: &[StreamRecord]| -> Vec<StreamRecord> {
            // Fences tell of incarnations; of openings the newest stands in the row; what batches that came again changed
            // since the last row is lost with the power.
            let plain = |record: &StreamRecord| StreamRecord {
                fence: without.journals[0].fence,
                last_heard: NOW,
                duplicates: 0,
                openings: record.openings.last().copied().into_iter().collect(),
                ..record.clone()
            };
            records.iter().map(plain).collect()
        };
        assert_eq!(told(&found), told(&others), "step {index}: {step:?}");
        let live: u64 = with.store.inner.memory().unwrap().streams.values().map(posted).sum();
        let all: u64 = others.iter().map(posted).sum();
        assert_eq!(live + sums.events, all, "the sums are over all streams");
        assert_eq!(events(&with.store, &with.tail, "c"), all, "every event is there once");
    }
    let checked = check(&with.rows());
    let found: Vec<_> = checked.findings.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(checked.counts.retired_streams, with.streams().1.streams);
}

fn posted(record: &StreamRecord) -> u64 {
    let EventNumber(end) = record.posted_end;
    end
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn retirement_changes_no_answer(steps in steps()) {
        runtime().block_on(side_by_side(&steps));
    }
}

/// Three batches of the first journal, closed, folded, silent.
async fn done() -> World {
    let mut world = World::new();
    for step in
        [Step::Hello(0, 0), Step::Admit(0), Step::Admit(0), Step::NewOpening(0), Step::Admit(0)]
    {
        world.step(&step).await;
    }
    for step in [Step::Confirm(0), Step::Close(0)] {
        assert_eq!(world.step(&step).await, "take");
    }
    world
}

#[test]
fn what_is_not_folded_or_was_heard_of_stays() {
    runtime().block_on(async {
        let mut world = done().await;
        assert_eq!(world.retire().await, 0, "it was just heard of");
        world.step(&Step::Wait).await;
        assert_eq!(world.retire().await, 0, "its batches are not folded");
        world.step(&Step::Fold).await;
        assert_eq!(world.retire().await, 1);
        assert_eq!(world.retire().await, 0);
        assert!(world.store.inner.memory().unwrap().streams.is_empty());
    });
}

#[test]
fn a_retired_stream_is_out_of_memory_and_returns_as_it_was() {
    runtime().block_on(async {
        let mut world = done().await;
        for step in [Step::Fold, Step::Wait] {
            world.step(&step).await;
        }
        let before = world.streams().0;
        assert_eq!(world.retire().await, 1);
        for totals in [true, false] {
            world.crash(totals);
            assert!(world.store.inner.memory().unwrap().streams.is_empty());
            assert_eq!(events(&world.store, &world.tail, "c"), 6, "the totals are whole");
        }
        world.step(&Step::Fold).await;
        let retired = world.store.retired().unwrap();
        assert_eq!(retired.find(StreamId([0; 16])).unwrap().unwrap().record, before[0]);
        assert_eq!(retired.find(StreamId([9; 16])).unwrap(), None);
        assert!(retired.has_agent(&AgentName::parse("agent").unwrap()).unwrap());
        assert!(!retired.has_agent(&AgentName::parse("another").unwrap()).unwrap());
        let at = world.at;
        assert_eq!((world.retired(at).len(), world.retired(at.plus_millis(1)).len()), (1, 0));

        let digest = world.journals[0].sealed[2].header.digest();
        assert_eq!(world.step(&Step::Hello(0, 3)).await, format!("welcome@3 {digest}"));
        assert_eq!(world.streams().1, RetiredSums::default());
        assert_eq!(world.step(&Step::Resend(0)).await, "duplicate@3");
        assert_eq!(world.step(&Step::Admit(0)).await, "admit@4");
        world.crash(true);
        assert_eq!(events(&world.store, &world.tail, "c"), 8);
        let retired = world.store.retired().unwrap();
        assert!(retired.has_agent(&AgentName::parse("agent").unwrap()).unwrap(), "for ever");
    });
}

#[test]
fn the_format_tells_older_collectors_of_retired_streams() {
    runtime().block_on(async {
        let mut world = done().await;
        for step in [Step::Fold, Step::Wait] {
            world.step(&step).await;
        }
        let format = |world: &World| check(&world.rows()).facts.format;
        assert!(format(&world) < FORMAT_WITH_RETIRED);
        world.retire().await;
        assert_eq!(format(&world), FORMAT_WITH_RETIRED);
    });
}

#[test]
fn a_stream_may_retire_and_return_in_one_transaction() {
    runtime().block_on(async {
        let mut world = done().await;
        for step in [Step::Fold, Step::Wait] {
            world.step(&step).await;
        }
        let journal = &world.journals[0];
        let retire = || Request::Retire { streams: vec![journal.stream], after_millis: AFTER };
        let group = vec![retire(), journal.hello_request(3, "agent"), retire()];
        let committed = world.store.commit(group, world.at, None).await.unwrap();
        assert_eq!(words(&committed), "retired1 welcome retired0");
        assert_eq!((committed.retired.len(), committed.streams.len()), (0, 1));
        assert_eq!(world.streams().1, RetiredSums::default());
        assert_eq!(check(&world.rows()).findings.count(), 0);
        world.crash(true);
        assert_eq!(world.streams().0.len(), 1);
    });
}

#[test]
fn totals_of_streams_that_the_ledger_does_not_know_are_made_anew() {
    runtime().block_on(async {
        let mut world = done().await;
        for step in [Step::Fold, Step::Wait] {
            world.step(&step).await;
        }
        assert_eq!(world.retire().await, 1);
        let before = (world.disks.0.crash(0), world.disks.1.crash(0));
        let more = async |world: &mut World, number| {
            for step in [Step::Hello(number, 0), Step::Admit(number), Step::Fold] {
                world.step(&step).await;
            }
        };
        more(&mut world, 1).await;
        let others = world.disks.1.crash(0);
        // The ledger is rolled back and goes on to the same position, with another stream.
        world.disks = before;
        world.crash(true);
        more(&mut world, 2).await;
        let (store, recovered) = open(&world.disks.0.crash(0), &others);
        assert_eq!(events(&store, &recovered.tail, "c"), 8);
        let folded = store.totals().unwrap();
        assert_eq!(folded.folded_sequence(StreamId([1; 16])).unwrap(), Sequence::ZERO);
    });
}

#[test]
fn pages_ascend_by_id_and_time() {
    runtime().block_on(async {
        let mut world = World::new();
        for number in [2, 0, 3, 1] {
            for step in [Step::Hello(number, 0), Step::Close(number), Step::Wait] {
                world.step(&step).await;
            }
            assert_eq!(world.retire().await, 1, "{number}");
        }
        let by_time: Vec<_> =
            world.retired(Timestamp(0)).iter().map(|one| one.record.stream.0[0]).collect();
        assert_eq!(by_time, [2, 0, 3, 1]);
        let since = world.retired(NOW.plus_millis(3 * AFTER));
        assert_eq!(since.iter().map(|one| one.record.stream.0[0]).collect::<Vec<_>>(), [3, 1]);
        let page = |after: Option<u8>, most: usize| {
            let mut page = Vec::new();
            let mut take = |retired: RetiredStream| {
                page.push(retired.record.stream.0[0]);
                if page.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let after = after.map(|id| StreamId([id; 16]));
            let _more = world.store.retired().unwrap().visit_after(after, &mut take).unwrap();
            page
        };
        assert_eq!(page(None, 3), [0, 1, 2]);
        assert_eq!(page(Some(2), 3), [3]);
        assert_eq!(page(Some(3), 3), Vec::<u8>::new());
    });
}

#[test]
fn retired_rows_that_were_changed_are_found() {
    runtime().block_on(async {
        let mut world = World::new();
        for number in [0, 1] {
            for step in [Step::Hello(number, 0), Step::Admit(number), Step::Close(number)] {
                world.step(&step).await;
            }
        }
        for step in [Step::Hello(2, 0), Step::Admit(2), Step::Fold, Step::Wait] {
            world.step(&step).await;
        }
        assert_eq!(world.retire().await, 2);
        let rows = world.rows();
        let find =
            |kind: LedgerTable| rows.iter().position(|(table, _, _)| *table == kind).unwrap();
        let (live, first) = (find(LedgerTable::Streams), find(LedgerTable::Retired));
        let record = codec::read_stream(&rows[first].2).unwrap();
        let altered = |change: fn(&mut StreamRecord)| {
            let mut record = record.clone();
            change(&mut record);
            codec::write_stream(&record).unwrap()
        };
        let cases: [(&str, Change<'_>); 7] = [
            ("sound", &|_| ()),
            ("come to the sums", &|rows| drop(rows.remove(first))),
            ("still to come", &|rows| rows[first].2 = altered(|record| record.accepted += 1)),
            ("come to the sums", &|rows| rows[first].2 = altered(|record| record.duplicates += 1)),
            ("retired before them", &|rows| {
                rows[first].2 = altered(|record| {
                    *record = StreamRecord {
                        state: record.state,
                        ..StreamRecord::new(
                            record.stream,
                            record.agent.clone(),
                            LedgerId([7; 16]),
                            Timestamp(0),
                        )
                    }
                })
            }),
            ("several rows", &|rows| {
                let (key, row) = (record.stream.0.to_vec(), rows[first].2.clone());
                rows.insert(live, (LedgerTable::Streams, key, row));
            }),
            ("a time and a stream's id", &|rows| rows[first].1.push(0)),
        ];
        for (expected, change) in cases {
            let mut rows = rows.clone();
            change(&mut rows);
            let findings = check(&rows).findings;
            let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
            match expected {
                "sound" => assert_eq!(told, Vec::<String>::new()),
                expected => {
                    assert!(
                        told.iter().any(|told| told.contains(expected)),
                        "{expected}: {told:?}"
                    );
                    assert!(findings.iter().all(|found| found.kind == FindingKind::StreamRow));
                }
            }
        }
    });
}
