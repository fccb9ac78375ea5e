//! The agent's side with a real journal and its commit thread.

use tidemark_common::batch::{BodyWriter, Evidence, SealedBatch};
use tidemark_common::id::{Digest, EventNumber, OpeningId, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{FirstHeld, Rules, UniqueKey};

use super::*;
use crate::Machine;
use crate::commit::{CommitError, CommitStart, Committer, Shared};
use crate::intake::Control;
use crate::journal::{FreshIds, Journal, JournalOptions, RawEvents, Seal};

const LEDGER: LedgerId = LedgerId([1; 16]);
const FRESH: FreshIds = FreshIds { stream: StreamId([2; 16]), opening: OpeningId([3; 16]) };

fn options() -> JournalOptions {
    JournalOptions {
        path: "memory".into(),
        bytes_max: 1 << 30,
        retain_acked_millis: 1_000_000,
        retain_acked_bytes_max: 1 << 20,
        raw_events_bytes_max: 0,
        ids_max: 10,
        ids_window_millis: 1_000,
        dead_letters_max: 10,
        dead_letter_bytes_max: 1_000,
    }
}

/// A batch of evidence alone.
fn seal() -> Write {
    let body = BodyWriter::new([0; 32], &Evidence::default()).finish().unwrap();
    Write::Seal(Seal {
        group: None,
        opening: FRESH.opening,
        rules: RulesVersion(4),
        first_event: EventNumber(0),
        end_event: EventNumber(0),
        body,
        raw_events: RawEvents::Dropped,
    })
}

type CommitThread = std::thread::JoinHandle<Result<(), CommitError>>;

/// A commit thread with a journal in memory.
fn commit_thread(shared: &Arc<Shared>) -> (CommitHandle, CommitThread) {
    let backend = redb::backends::InMemoryBackend::new();
    let (journal, _) = Journal::open_on(backend, options(), FRESH, Timestamp(0)).unwrap();
    let start = CommitStart {
        journal,
        groups: vec![],
        rules: None,
        unique_key: None,
        shared: Arc::clone(shared),
        machine: Machine { wall: || Timestamp(0), ..Machine::real() },
    };
    let (committer, sealer, commit, _jobs) = Committer::new(start).unwrap();
    std::thread::spawn(move || sealer.run());
    (commit, std::thread::spawn(|| committer.run()))
}

#[test]
fn the_journal_answers_for_the_session() {
    let shared = Arc::new(Shared::default());
    let (commit, thread) = commit_thread(&shared);
    let (intake, mut inbox) = IntakeHandle::channel(Arc::clone(&shared), None, Arc::new(|| {}));
    let mut home = AgentHome::new(commit.clone(), intake);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert_eq!((home.facts().ledger, home.facts().rules_version), (None, RulesVersion(0)));
        let genesis = genesis(LEDGER, FRESH.stream);
        let looked = home.look(LEDGER, Sequence::ZERO).await;
        assert_eq!(looked, Ok(Looked { digest: Some(genesis), first_held: None }));

        let unique_key = UniqueKey { id: 1, key: [5; 32] };
        let rules = Rules { version: RulesVersion(4), ..Rules::default() };
        let welcomed = Welcomed {
            ledger: LEDGER,
            rules: Some(rules),
            unique_key,
            posted_sequence: Sequence::ZERO,
            raw_events_taken: false,
            clock_offset_millis: 77,
        };
        let write = home.write(JournalWrite::Welcomed(Box::new(welcomed)));
        let taken_over = async {
            let Some(Control::Adopt { clock_offset_millis: 77, rules: Some(_), reply, .. }) =
                inbox.controls.recv().await
            else {
                panic!("not taken over")
            };
            reply.send(()).unwrap();
        };
        let (written, ()) = tokio::join!(write, taken_over);
        written.unwrap();
        home.changed().await.unwrap();
        assert_eq!(
            (home.facts().ledger, home.facts().rules_version),
            (Some(LEDGER), RulesVersion(4))
        );

        let sealed = commit.write(vec![seal(), seal()]).await.unwrap().sealed;
        let digests: Vec<Digest> =
            [genesis].into_iter().chain(sealed.iter().map(|(_, digest)| *digest)).collect();
        let held = FirstHeld { sequence: Sequence(1), event: EventNumber(0) };
        for (sequence, digest) in (0..).zip(&digests) {
            let looked = home.look(LEDGER, Sequence(sequence)).await;
            assert_eq!(
                looked,
                Ok(Looked { digest: Some(*digest), first_held: Some(held) }),
                "{sequence}"
            );
        }
        let bytes = home.read(Sequence(1)).await.unwrap().unwrap();
        assert_eq!(SealedBatch::split(&bytes).unwrap().0.digest(), digests[1]);
        assert_eq!(home.read(Sequence(3)).await, Ok(None));

        home.write(JournalWrite::Posted(Sequence(1))).await.unwrap();
        let facts = home.facts();
        assert_eq!((facts.posted_sequence, facts.posted_digest), (Sequence(1), digests[1]));
        assert_eq!((facts.sealed_sequence, facts.unsealed_events), (Sequence(2), 0));
        home.room(true);
        assert!(shared.may_seal());

        drop(inbox);
        assert_eq!(home.barrier().await, None);
        commit.stop().await;
    });
    thread.join().unwrap().unwrap();
    let ended = runtime.block_on(home.write(JournalWrite::Closed));
    assert_eq!(ended, Err(HomeError::Stopped));
}
