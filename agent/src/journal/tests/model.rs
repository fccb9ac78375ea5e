//! Any sequence of writes, restarts and crashes, against a model that is a few maps.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::event::{Door, IdDigest};
use crate::journal::{DeadLetter, JournalState};
use crate::seal::{Content, Position};

#[derive(Debug, Clone)]
enum Step {
    Append {
        events: u32,
        bytes: usize,
        new_group: bool,
    },
    AppendAndSeal {
        events: u32,
    },
    Seal,
    SealEvidence,
    Post(u64),
    Restore(u64),
    Ids(usize),
    Letters(usize),
    Close,
    Pass {
        millis: i64,
    },
    Restart,
    /// The disk fails after some changes of the next step, and power is lost.
    Crash {
        changes: u64,
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u32..5, 1_usize..9_000, any::<bool>())
            .prop_map(|(events, bytes, new_group)| Step::Append { events, bytes, new_group }),
        2 => (1_u32..5).prop_map(|events| Step::AppendAndSeal { events }),
        3 => Just(Step::Seal),
        1 => Just(Step::SealEvidence),
        3 => (1_u64..4).prop_map(Step::Post),
        1 => (0_u64..5).prop_map(Step::Restore),
        2 => (1_usize..90).prop_map(Step::Ids),
        2 => (1_usize..14).prop_map(Step::Letters),
        1 => Just(Step::Close),
        1 => (0_i64..50_000).prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Restart),
        3 => (0_u64..80, any::<u64>()).prop_map(|(changes, seed)| Step::Crash { changes, seed }),
    ]
}

#[derive(Debug, Clone)]
struct Group {
    number: u64,
    opening: OpeningId,
    first: u64,
    end: u64,
    chunks: Vec<Vec<u8>>,
}

/// Every other group's raw events are kept, as far as there is room.
fn seal_group(group: &Group) -> Write {
    let Write::Seal(seal) = seal(group.number, group.opening, group.first, group.end) else {
        unreachable!()
    };
    let kept = group.number.is_multiple_of(2);
    let raw_events = if kept { RawEvents::Kept } else { RawEvents::Dropped };
    Write::Seal(Seal { raw_events, ..seal })
}

/// What must be on the disk.
#[derive(Debug, Clone)]
struct Model {
    position: Position,
    accepted: u64,
    groups: VecDeque<Group>,
    sealed: BTreeMap<u64, Vec<u8>>,
    ends: Vec<u64>,
    posted: u64,
    letters: usize,
    unclean_starts: u64,
    clean: bool,
}

impl Model {
    fn sealed_events(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn events_before(&self, sequence: u64) -> u64 {
        let index = usize::try_from(sequence).unwrap();
        if index == 0 { 0 } else { self.ends[index - 1] }
    }

    fn seal(&mut self, opening: OpeningId, first: u64, end: u64) {
        let content = Content {
            opening,
            rules: RulesVersion(1),
            first_event: EventNumber(first),
            end_event: EventNumber(end),
        };
        let (batch, position) = self.position.seal(content, body(end));
        self.position = position;
        self.sealed.insert(position.sequence.0, batch.bytes);
        self.ends.push(end);
    }
}

struct World {
    disk: Disk,
    journal: Journal,
    model: Model,
    next_group: u64,
    openings: u8,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let disk = Disk::default();
        let journal = welcomed(&disk);
        let model = Model {
            position: Position::start(LEDGER, STREAM),
            accepted: 0,
            groups: VecDeque::new(),
            sealed: BTreeMap::new(),
            ends: Vec::new(),
            posted: 0,
            letters: 0,
            unclean_starts: 0,
            clean: false,
        };
        Self { disk, journal, model, next_group: 1, openings: 1, now: NOON }
    }

    /// The writes of a step, and the model once they are committed.
    fn plan(&mut self, step: &Step) -> (Vec<Write>, Model) {
        let mut model = self.model.clone();
        let opening = self.journal.state().opening;
        let writes = match *step {
            Step::Append { events, bytes, new_group } => {
                vec![Write::Append(self.plan_append(&mut model, events, bytes, new_group))]
            }
            Step::AppendAndSeal { events } => {
                let append = self.plan_append(&mut model, events, 100, true);
                let mut writes = vec![Write::Append(append)];
                while let Some(group) = model.groups.pop_front() {
                    model.seal(group.opening, group.first, group.end);
                    writes.push(seal_group(&group));
                }
                writes
            }
            Step::Seal => match model.groups.pop_front() {
                Some(group) => {
                    model.clean = false;
                    model.seal(group.opening, group.first, group.end);
                    vec![seal_group(&group)]
                }
                None => Vec::new(),
            },
            Step::SealEvidence => {
                model.clean = false;
                let at = model.sealed_events();
                model.seal(opening, at, at);
                vec![seal_evidence(opening, at)]
            }
            Step::Post(count) => {
                model.posted = (model.posted + count).min(model.position.sequence.0);
                vec![Write::Posted(Sequence(model.posted))]
            }
            Step::Restore(back) => {
                let first = self
                    .journal
                    .reader()
                    .first_held()
                    .unwrap()
                    .map_or(model.posted, |first| first.sequence.0 - 1);
                model.posted = model.posted.saturating_sub(back).max(first.min(model.posted));
                vec![welcome(model.posted)]
            }
            Step::Ids(count) => vec![Write::Ids(vec![IdDigest([1; 16]); count])],
            Step::Letters(count) => {
                model.letters = (model.letters + count).min(options().dead_letters_max);
                let letter = DeadLetter {
                    at: self.now,
                    door: Door::Udp,
                    reason: EvidenceCode::RejectedMalformed,
                    bytes: vec![2; 30],
                };
                vec![Write::DeadLetters(vec![letter; count])]
            }
            Step::Close => {
                model.clean = true;
                vec![Write::Closed]
            }
            Step::Pass { .. } | Step::Restart | Step::Crash { .. } => Vec::new(),
        };
        (writes, model)
    }

    fn plan_append(
        &mut self,
        model: &mut Model,
        events: u32,
        bytes: usize,
        new_group: bool,
    ) -> Append {
        let opening = self.journal.state().opening;
        let same = model.groups.back().filter(|group| group.opening == opening && !new_group);
        let number = same.map_or(self.next_group, |group| group.number);
        if number == self.next_group {
            self.next_group += 1;
            let (first, end) = (model.accepted, model.accepted);
            model.groups.push_back(Group { number, opening, first, end, chunks: Vec::new() });
        }
        let payload = vec![model.accepted.to_le_bytes()[0]; bytes];
        model.accepted += u64::from(events);
        model.clean = false;
        let group = model.groups.back_mut().unwrap();
        group.end = model.accepted;
        group.chunks.push(payload.clone());
        append(&self.journal, number, events, payload)
    }

    fn take(&mut self, step: &Step, crash: Option<(u64, u64)>) {
        match step {
            Step::Pass { millis } => self.now = self.now.plus_millis(*millis),
            Step::Restart => {
                let counted = self.journal.state().clone();
                self.reopen(self.disk.clone(), Some(counted));
            }
            Step::Append { .. }
            | Step::AppendAndSeal { .. }
            | Step::Seal
            | Step::SealEvidence
            | Step::Post(_)
            | Step::Restore(_)
            | Step::Ids(_)
            | Step::Letters(_)
            | Step::Close
            | Step::Crash { .. } => {}
        }
        let (writes, after) = self.plan(step);
        if let Some((changes, _)) = crash {
            self.disk.fail_in(Some(changes));
        }
        match self.journal.commit(writes, self.now) {
            Ok(_) => self.model = after.clone(),
            Err(error) => assert!(error.is_fatal() && crash.is_some(), "{error}"),
        }
        if let Some((_, seed)) = crash {
            let before = self.model.clone();
            let disk = self.disk.after_crash(seed);
            // A commit that failed is there as a whole, or not at all.
            let accepted = peek(&disk);
            self.model = if accepted == key(&after) { after } else { before };
            assert_eq!(accepted, key(&self.model));
            self.reopen(disk, None);
        }
    }

    /// Ends the process and starts another on `disk`; `counted` is the state that it must find.
    fn reopen(&mut self, disk: Disk, counted: Option<JournalState>) {
        self.openings += 1;
        let (journal, recovered) = {
            let closing = std::mem::replace(&mut self.journal, open(&Disk::default(), 0).0);
            drop(closing);
            self.disk = disk;
            open(&self.disk, self.openings)
        };
        assert_eq!(recovered.clean, self.model.clean);
        self.model.unclean_starts += u64::from(!recovered.clean);
        self.model.clean = false;
        self.journal = journal;
        self.next_group = self.next_group.max(recovered.next_group);
        if let Some(mut expected) = counted {
            expected.opening = OpeningId([self.openings; 16]);
            expected.evidence = self.journal.state().evidence.clone();
            expected.file_bytes = self.journal.state().file_bytes;
            // Counted since the journal was opened.
            expected.raw_events.given_up = 0;
            assert_eq!(*self.journal.state(), expected, "the recount is what the commits counted");
        }
        let found: Vec<_> = recovered
            .groups
            .iter()
            .map(|group| (group.group, group.opening, group.first_event.0, group.end_event.0))
            .collect();
        let expected: Vec<_> = self
            .model
            .groups
            .iter()
            .map(|group| (group.number, group.opening, group.first, group.end))
            .collect();
        assert_eq!(found, expected);
    }

    fn check(&self) {
        let (state, model) = (self.journal.state(), &self.model);
        assert_eq!(state.accepted, model.accepted);
        assert_eq!(state.sealed_sequence, model.position.sequence);
        assert_eq!(state.sealed_digest, model.position.digest);
        assert_eq!(state.posted_sequence.0, model.posted);
        assert_eq!(state.posted_events, model.events_before(model.posted));
        assert_eq!(state.events_in_unposted_batches, model.sealed_events() - state.posted_events);
        assert_eq!(
            state.events_in_chunks,
            model.groups.iter().map(|group| group.end - group.first).sum::<u64>()
        );
        assert_eq!(state.dead_letters, u64::try_from(model.letters).unwrap());
        assert_eq!(state.evidence.get(EvidenceCode::Accepted), model.accepted);
        assert_eq!(state.evidence.get(EvidenceCode::UncleanStarts), model.unclean_starts);
        assert_eq!(state.backlog_batches, model.position.sequence.0 - model.posted);
        assert_eq!(
            state.held.iter().map(|held| held.end.0 - held.first.0).sum::<u64>(),
            state.accepted - state.posted_events
        );
        assert_eq!(state.oldest_unposted.is_some(), state.accepted > state.posted_events);

        let reader = self.journal.reader();
        let first = reader.first_held().unwrap().map_or(model.posted + 1, |first| first.sequence.0);
        assert!(first <= model.posted + 1, "an unposted batch is gone");
        for (sequence, bytes) in model.sealed.range(first..) {
            assert_eq!(
                reader.batch(Sequence(*sequence)).unwrap().as_ref(),
                Some(bytes),
                "batch {sequence}"
            );
        }
        for group in &model.groups {
            let chunks: Vec<_> = reader.chunks(group.number).unwrap().map(Result::unwrap).collect();
            assert_eq!(chunks, group.chunks);
        }
    }
}

/// What tells two models apart.
fn key(model: &Model) -> (u64, u64, u64, usize, bool) {
    (model.accepted, model.position.sequence.0, model.posted, model.letters, model.clean)
}

/// The key of what is on `disk`, looked at on a copy.
fn peek(disk: &Disk) -> (u64, u64, u64, usize, bool) {
    let (journal, recovered) = open(&Disk::holding(disk.bytes()), 255);
    let state = journal.state();
    let letters = usize::try_from(state.dead_letters).unwrap();
    (state.accepted, state.sealed_sequence.0, state.posted_sequence.0, letters, recovered.clean)
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    let mut crash = None;
    for step in steps {
        if let Step::Crash { changes, seed } = step {
            crash = Some((*changes, *seed));
            continue;
        }
        world.take(step, crash.take());
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_committed_write_survives(steps in proptest::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}

#[test]
fn a_crash_at_any_change_of_a_seal_leaves_all_or_nothing() {
    for changes in 0..40 {
        let append = Step::Append { events: 3, bytes: 5_000, new_group: false };
        run(&[
            append.clone(),
            append,
            Step::Crash { changes, seed: changes * 7 },
            Step::Seal,
            Step::Seal,
        ]);
    }
}

#[test]
fn a_resend_after_restarts_is_byte_identical() {
    let mut world = World::new();
    let seal = Step::AppendAndSeal { events: 2 };
    for step in [seal.clone(), seal.clone(), Step::Restart, seal, Step::Restart, Step::Restart] {
        world.take(&step, None);
        world.check();
    }
    assert_eq!(world.model.sealed.len(), 3);
}

#[test]
fn a_crash_while_opening_costs_nothing() {
    for changes in 0..40 {
        let mut world = World::new();
        for step in [
            Step::AppendAndSeal { events: 2 },
            Step::Append { events: 3, bytes: 9_000, new_group: true },
        ] {
            world.take(&step, None);
        }
        let disk = world.disk.after_crash(0);
        disk.fail_in(Some(changes));
        drop(Journal::open_on(disk.clone(), options(), fresh(2), NOON));
        let (journal, recovered) = open(&disk.after_crash(changes), 3);
        let held =
            (journal.state().accepted, journal.state().sealed_sequence, recovered.groups.len());
        assert_eq!(held, (5, Sequence(1), 1), "after {changes} changes");
    }
}
