//! The commit thread with a real journal on a real file: what is answered is durable, what is
//! recovered is sealed, and a replay makes the very lines that the aggregate had.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test panics, as it should")]

use std::path::Path;
use std::thread;

use tidemark_common::batch::{Body, Line, SealedBatch};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{LedgerId, MeterName, OpeningId, RulesVersion, Sequence, StreamId};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::MeterRule;

use super::*;
use crate::event::{Door, TimeLimits};
use crate::intake::answer::Answer;
use crate::intake::core::Core;
use crate::intake::job::{IntakeSettings, IntakeStart, Job};
use crate::journal::{FreshIds, JournalOptions, Recovered, Welcomed};
use crate::parse::naming::{Naming, Patterns};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const KEY: UniqueKey = UniqueKey { id: 1, key: [3; 32] };

fn rules() -> Rules {
    Rules {
        version: RulesVersion(1),
        seal_interval_millis: 1_000,
        meters: vec![MeterRule {
            meter: MeterName::parse("calls").unwrap(),
            dimensions: vec!["plan".to_owned()],
            negative: false,
        }],
        cloud_events: vec![],
        deduplicated: vec![MeterName::parse("logins").unwrap()],
    }
}

/// One life of the agent's inner half, without doors and uplink.
struct Life {
    core: Core,
    jobs: JobSender,
    handle: CommitHandle,
    shared: Arc<Shared>,
    thread: thread::JoinHandle<Result<(), CommitError>>,
}

fn options(path: &Path) -> JournalOptions {
    JournalOptions {
        path: path.to_owned(),
        bytes_max: 1 << 30,
        retain_acked_millis: 86_400_000,
        retain_acked_bytes_max: 1 << 20,
        raw_events_bytes_max: 0,
        ids_max: 1_000,
        ids_window_millis: 86_400_000,
        dead_letters_max: 100,
        dead_letter_bytes_max: 1 << 20,
    }
}

fn fresh(opening: u8) -> FreshIds {
    FreshIds { stream: StreamId([1; 16]), opening: OpeningId([opening; 16]) }
}

fn open(path: &Path, opening: u8) -> (Journal, Recovered) {
    // The life before may still be letting go of the file.
    Journal::open(options(path), fresh(opening), NOW, std::time::Duration::from_secs(30)).unwrap()
}

fn settings() -> IntakeSettings {
    IntakeSettings {
        naming: Naming::default(),
        negative: Patterns::default(),
        time: TimeLimits::default(),
        linger_millis: 5,
        linger_max_millis: 50,
        open_lines_max: 1_000,
        open_chunk_bytes_max: 1 << 20,
        ids_max: 1_000,
        ids_window_millis: 86_400_000,
    }
}

impl Life {
    fn begin(path: &Path, opening: u8) -> Self {
        Self::on(open(path, opening))
    }

    fn on((journal, recovered): (Journal, Recovered)) -> Self {
        let rules = recovered.rules.map(Arc::new);
        let core = Core::new(
            settings(),
            IntakeStart {
                opening: recovered.state.opening,
                accepted: recovered.state.accepted,
                evidence: recovered.state.evidence.clone(),
                next_group: recovered.next_group,
                newest: recovered.newest,
                ids: recovered.ids,
                sources: recovered.sources,
                rules: rules.clone(),
                unique_key: recovered.unique_key,
            },
        );
        let shared = Arc::new(Shared::default());
        let start = CommitStart {
            journal,
            groups: recovered.groups,
            rules,
            unique_key: recovered.unique_key,
            shared: Arc::clone(&shared),
            machine: Machine { wall: || NOW, ..Machine::real() },
        };
        let (committer, sealer, handle, jobs) = Committer::new(start).unwrap();
        thread::spawn(move || sealer.run());
        let thread = thread::spawn(move || committer.run());
        Self { core, jobs, handle, shared, thread }
    }

    fn send(&mut self, datagram: &str) {
        self.core.datagram(Door::Udp, datagram.as_bytes(), true, NOW);
    }

    /// Hands over all jobs and waits until they are durable.
    fn commit(&mut self) {
        self.core.hand_over(NOW);
        self.pass_jobs();
        let (reply, answered) = oneshot::channel();
        self.jobs.send(Task::Answer { waiters: vec![Waiter { reply, answers: vec![] }] }).unwrap();
        assert_eq!(answered.blocking_recv(), Ok(Answered::Durable(vec![])));
    }

    fn pass_jobs(&mut self) {
        for job in self.core.take_jobs() {
            let task = match job {
                Job::Commit(commit) => Task::Commit { commit, waiters: vec![] },
                Job::Close(close) => Task::close(close, &self.shared),
            };
            self.jobs.send(task).unwrap();
        }
    }

    fn seal(&mut self) -> Barrier {
        self.core.close(NOW);
        self.pass_jobs();
        let (reply, barrier) = oneshot::channel();
        self.jobs.send(Task::Barrier { reply, accepted: self.core.accepted() }).unwrap();
        barrier.blocking_recv().unwrap()
    }

    fn welcome(&mut self) {
        let welcomed = Welcomed {
            ledger: LedgerId([5; 16]),
            rules: Some(rules()),
            unique_key: KEY,
            posted_sequence: Sequence::ZERO,
        };
        let (reply, committed) = oneshot::channel();
        self.jobs.send(Task::Write { writes: vec![Write::Welcomed(welcomed)], reply }).unwrap();
        committed.blocking_recv().unwrap();
        self.core.adopt(Some(Arc::new(rules())), KEY, NOW);
        self.pass_jobs();
    }

    fn state(&self) -> Arc<JournalState> {
        Arc::clone(&self.handle.state().borrow())
    }

    fn lines(&self, sequence: u64) -> Vec<Line> {
        self.body(sequence).lines
    }

    fn body(&self, sequence: u64) -> Body {
        let bytes = self.handle.reader().batch(Sequence(sequence)).unwrap().expect("it is sealed");
        let (header, stored) = SealedBatch::split(&bytes).unwrap();
        Body::open(&header, stored).unwrap()
    }

    /// Ends as by kill -9, as far as the journal can tell: nothing more is written.
    fn die(self) {
        let Self { core, jobs, handle, shared: _, thread } = self;
        jobs.send(Task::Stop).unwrap();
        thread.join().unwrap().unwrap();
        drop((core, jobs, handle));
    }
}

fn assert_conserved(state: &JournalState) {
    let in_transit = state.events_in_chunks + state.events_in_unposted_batches;
    assert_eq!(state.accepted, state.posted_events + in_transit, "{state:?}");
}

const EVENTS: &str = "calls:1:2|c|#customer:a,plan:x,host:h1\ncalls:4|c|#customer:a,plan:x,host:h2\n\
                      calls:8|c|#customer:b,plan:y\nusers:u1|s|#customer:a\nusers:u1|s|#customer:a\nusers:u2|s|#customer:a\n\
                      logins:1:1|c|#customer:a,id:9\nlogins:1|c|#customer:a\ncalls:1|c|#customer:c,id:9";
/// Of [`EVENTS`].
const ALL: u64 = 11;

fn same_but_for_salt_and_evidence(found: &Body, expected: &Body) {
    assert_eq!((&found.lines, &found.extras), (&expected.lines, &expected.extras));
}

#[test]
fn a_replay_makes_the_lines_that_the_aggregate_had() {
    let folder = tempfile::tempdir().unwrap();
    let mut live = Life::begin(&folder.path().join("live.redb"), 1);
    live.welcome();
    live.send(EVENTS);
    assert_eq!(live.seal(), Barrier { sequence: Sequence(1), accepted: ALL });
    let expected = live.body(1);
    let ids: Vec<_> = expected.extras.line_ids().collect();
    assert_eq!((ids.len(), expected.extras.id_key()), (2, KEY.id));
    assert_ne!(ids[0].id, ids[1].id, "two values of one line are two events");
    assert_eq!(expected.evidence.get(EvidenceCode::WithoutId), 1);
    live.die();

    // Under rules, and killed before the seal.
    let path = folder.path().join("killed.redb");
    let mut killed = Life::begin(&path, 1);
    killed.welcome();
    killed.send(EVENTS);
    killed.commit();
    killed.die();
    let mut next = Life::begin(&path, 2);
    assert_eq!(next.seal(), Barrier { sequence: Sequence(1), accepted: ALL });
    same_but_for_salt_and_evidence(&next.body(1), &expected);
    next.die();

    // Before any rules were known.
    let mut early = Life::begin(&folder.path().join("early.redb"), 1);
    early.send(EVENTS);
    early.commit();
    assert_conserved(&early.state());
    early.welcome();
    assert_eq!(early.seal(), Barrier { sequence: Sequence(1), accepted: ALL });
    same_but_for_salt_and_evidence(&early.body(1), &expected);
    assert_eq!(early.shared.take_at_replay(), AtReplay { dropped_dimensions: 3, without_id: 1 });
    assert_conserved(&early.state());
    early.die();
}

#[test]
fn earlier_openings_are_sealed_before_anything_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let mut first = Life::begin(&path, 1);
    first.welcome();
    first.send("calls:1|c|#customer:a");
    first.commit();
    first.die();
    let mut second = Life::begin(&path, 2);
    second.send("calls:2|c|#customer:a");
    second.commit();
    second.die();
    let mut third = Life::begin(&path, 3);
    third.send("calls:4|c|#customer:a");
    assert_eq!(third.seal(), Barrier { sequence: Sequence(3), accepted: 3 });
    let sums: Vec<Quantity> = (1..=3).map(|sequence| third.lines(sequence)[0].value.sum).collect();
    assert_eq!(sums, [Quantity::whole(1), Quantity::whole(2), Quantity::whole(4)]);
    assert_eq!(third.state().evidence.get(EvidenceCode::UncleanStarts), 2);
    assert_conserved(&third.state());
    third.die();
}

#[test]
fn ids_are_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let mut first = Life::begin(&path, 1);
    first.send("calls:1|c|#customer:a,id:1");
    first.commit();
    first.die();
    let mut second = Life::begin(&path, 2);
    second.send("calls:1|c|#customer:a,id:1\ncalls:1|c|#customer:a,id:2");
    second.commit();
    assert_eq!(second.state().accepted, 2);
    second.die();
}

#[test]
fn many_closed_batches_are_sealed_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut life = Life::begin(&folder.path().join("journal.redb"), 1);
    life.welcome();
    for number in 0..20 {
        life.send(&format!("calls:{number}|c|#customer:a"));
        life.core.close(NOW);
        life.pass_jobs();
    }
    assert_eq!(life.seal(), Barrier { sequence: Sequence(20), accepted: 20 });
    for number in 0..20_u32 {
        assert_eq!(life.lines(u64::from(number) + 1)[0].value.sum, Quantity::whole(number));
    }
    assert_conserved(&life.state());
    life.die();
}

/// A disk whose syncs wait at a gate, and say that they do.
#[derive(Debug, Clone, Default)]
struct GatedDisk {
    memory: Arc<redb::backends::InMemoryBackend>,
    gate: Arc<(Mutex<Gate>, std::sync::Condvar)>,
}

#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    waiting: bool,
}

impl GatedDisk {
    fn set_closed(&self, closed: bool) {
        self.gate.0.lock().unwrap().closed = closed;
        self.gate.1.notify_all();
    }

    fn wait_until_a_sync_waits(&self) {
        let gate = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(gate, |gate| !gate.waiting).unwrap());
    }
}

impl redb::StorageBackend for GatedDisk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.memory.set_len(len)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.memory.write(offset, data)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        let mut gate = self.gate.0.lock().unwrap();
        gate.waiting = true;
        self.gate.1.notify_all();
        let mut gate = self.gate.1.wait_while(gate, |gate| gate.closed).unwrap();
        gate.waiting = false;
        self.memory.sync_data()
    }
}

#[test]
fn nobody_is_answered_before_the_sync() {
    let disk = GatedDisk::default();
    let path = Path::new("in memory");
    let mut life = Life::on(Journal::open_on(disk.clone(), options(path), fresh(1), NOW).unwrap());
    life.commit();
    disk.set_closed(true);
    life.send("calls:1|c|#customer:a,id:1");
    life.core.hand_over(NOW);
    let (reply, mut answered) = oneshot::channel();
    let Some(Job::Commit(commit)) = life.core.take_jobs().pop() else {
        panic!("one commit is due")
    };
    let waiters = vec![Waiter { reply, answers: vec![Answer::Accepted] }];
    life.jobs.send(Task::Commit { commit, waiters }).unwrap();
    // A duplicate of the event that is not durable yet, in a commit of its own.
    let (reply, mut duplicate) = oneshot::channel();
    let waiters = vec![Waiter { reply, answers: vec![Answer::Duplicate] }];
    life.jobs.send(Task::Answer { waiters }).unwrap();
    disk.wait_until_a_sync_waits();
    assert!(answered.try_recv().is_err(), "the event is not synced");
    assert!(duplicate.try_recv().is_err(), "nor is what it duplicates");
    disk.set_closed(false);
    assert_eq!(answered.blocking_recv(), Ok(Answered::Durable(vec![Answer::Accepted])));
    assert_eq!(duplicate.blocking_recv(), Ok(Answered::Durable(vec![Answer::Duplicate])));
    life.die();
}

#[test]
fn an_end_before_the_first_welcome_is_an_end_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let mut first = Life::begin(&path, 1);
    first.send("calls:1|c|#customer:a");
    first.core.close_evidence(NOW);
    assert_eq!(first.seal().sequence, Sequence::ZERO);
    first.die();
    let mut second = Life::begin(&path, 2);
    second.core.close_evidence(NOW);
    assert_eq!(second.seal(), Barrier { sequence: Sequence::ZERO, accepted: 1 });
    assert_conserved(&second.state());
    second.die();
}

#[test]
fn more_closed_batches_than_memory_has_room_for_are_made_from_their_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let mut life = Life::begin(&folder.path().join("journal.redb"), 1);
    life.welcome();
    let others = life.shared.room.reserve(2 * ROOM_BYTES);
    life.send(EVENTS);
    assert_eq!(life.seal(), Barrier { sequence: Sequence(1), accepted: ALL });
    assert_eq!(life.lines(1).iter().map(|line| line.value.events).sum::<u64>(), ALL);
    drop(others);
    life.die();
}
