//! What every `LedgerStore` must do, as tests that are generic over the store; and a small journal that
//! seals batches for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemark_common::batch::{
    BodyWriter, Evidence, Extras, HEADER_BYTES, KeyedId, Line, LineId, LineKey, LineValue,
    NewHeader, SealedBatch, genesis, series_bytes,
};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{
    CustomerId, Digest, EventNumber, Fence, LedgerId, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{Close, Confirm, HeldOpening, Hello};

use super::fold::FoldSlice;
use super::marks::Marks;
use super::request::{Admission, HelloRequest, Reply, Request, Welcomed};
use super::store::{Committed, LedgerStore, Recovered, StoreError, UsageQuestion};
use super::stream::StreamState;
use super::tail::{CustomerLines, TailBatch};
use crate::dedupe::Verdict;
use crate::grants::{Grants, Identity, Otherwise, Pattern, Patterns};
use crate::session::claim::ClaimVerdict;
use crate::session::hello::{Contradiction, HelloVerdict};

pub(crate) const NOW: Timestamp = Timestamp(1_000);

/// One event of a batch: customer, meter, bucket, units.
pub(crate) type Use = (&'static str, &'static str, u32, i128);

/// Lines by their keys, some with the id of their event.
type Lines = BTreeMap<(Vec<u8>, u32, u16), (LineValue, Option<u8>)>;

/// An agent's journal, as far as the ledger meets it.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    pub(crate) stream: StreamId,
    pub(crate) opening: OpeningId,
    pub(crate) sealed: Vec<SealedBatch>,
    pub(crate) fence: Fence,
    digest: Digest,
    end: EventNumber,
    evidence: Evidence,
}

impl Journal {
    pub(crate) fn new(stream: u8, ledger: LedgerId) -> Self {
        let stream = StreamId([stream; 16]);
        Self {
            stream,
            opening: OpeningId([1; 16]),
            sealed: Vec::new(),
            fence: Fence(0),
            digest: genesis(ledger, stream),
            end: EventNumber(0),
            evidence: Evidence::default(),
        }
    }

    /// Seals one batch, one event a use.
    pub(crate) fn seal(&mut self, uses: &[Use]) -> SealedBatch {
        let without: Vec<_> = uses.iter().map(|one| (*one, None)).collect();
        self.seal_with_ids(&without)
    }

    /// The same, of events of which some have an id.
    pub(crate) fn seal_with_ids(&mut self, uses: &[(Use, Option<u8>)]) -> SealedBatch {
        let events = u64::try_from(uses.len()).unwrap();
        self.evidence.add(EvidenceCode::Accepted, events);
        let mut lines = Lines::new();
        for ((customer, meter, bucket, units), id) in uses {
            let series = series_bytes(meter, customer, &[]);
            let part = lines.keys().filter(|(held, at, _)| *held == series && at == bucket).count();
            let value = LineValue {
                events: 1,
                quantity_events: 1,
                unique_events: 1,
                sum: Quantity(*units),
                min: Quantity(*units),
                max: Quantity(*units),
                latest_time: Timestamp(i64::from(*bucket) * 900_000),
                latest: Quantity(*units),
                unique_key: 1,
                uniques: vec![[u8::try_from(units.rem_euclid(251)).unwrap(); 16]],
            };
            lines.insert((series, *bucket, u16::try_from(part).unwrap()), (value, *id));
        }
        let ids = (0..)
            .zip(lines.values())
            .filter_map(|(line, (_, id))| Some(LineId { line, id: KeyedId([(*id)?; 16]) }));
        let mut extras = Extras::default();
        extras.set_line_ids(1, &ids.collect::<Vec<_>>());
        let mut body = BodyWriter::with_extras([7; 32], &self.evidence, extras);
        for ((series, bucket, part), (value, _)) in &lines {
            body.line(series, Bucket(*bucket), *part, value).unwrap();
        }
        let header = NewHeader {
            stream: self.stream,
            opening: self.opening,
            sequence: Sequence(u64::try_from(self.sealed.len()).unwrap() + 1),
            first_event: self.end,
            end_event: self.end.plus(events),
            rules: RulesVersion(1),
            previous: self.digest,
        };
        let batch = SealedBatch::assemble(header, body.finish().unwrap());
        (self.digest, self.end) = (batch.header.digest(), batch.header.end_event);
        self.sealed.push(batch.clone());
        batch
    }

    /// Its Hello, when `posted` is what its agent knows to be posted.
    pub(crate) fn hello(&self, posted: usize) -> Hello {
        let known =
            posted.checked_sub(1).map_or(Digest([0; 32]), |last| self.sealed[last].header.digest());
        Hello {
            header_version: 1,
            body_version: 1,
            stream: self.stream,
            ledger: None,
            opening: self.opening,
            posted_sequence: Sequence(u64::try_from(posted).unwrap()),
            posted_digest: known,
            sealed_sequence: Sequence(u64::try_from(self.sealed.len()).unwrap()),
            accepted: self.end.0,
            rules_version: RulesVersion(0),
            openings: vec![HeldOpening {
                opening: self.opening,
                first: EventNumber(0),
                end: self.end,
            }],
            clock: NOW,
            token: None,
            agent: "test".to_owned(),
            extras: Vec::new(),
        }
    }

    pub(crate) fn hello_request(&self, posted: usize, agent: &str) -> Request {
        self.hello_at(Duration::ZERO, posted, agent)
    }

    /// The same, when so much time has passed.
    pub(crate) fn hello_at(&self, said: Duration, posted: usize, agent: &str) -> Request {
        let agent = AgentName::parse(agent).unwrap();
        Request::Hello(Box::new(HelloRequest { hello: self.hello(posted), agent, said }))
    }

    /// Asks to admit the batch with this sequence.
    pub(crate) fn admit(&self, sequence: usize) -> Request {
        admit(&self.sealed[sequence - 1], self.fence)
    }

    pub(crate) fn confirm(&self, ledger_time: Timestamp) -> Request {
        let sequence = Sequence(u64::try_from(self.sealed.len()).unwrap());
        let (accepted, fence, extras) = (self.end.0, self.fence, Vec::new());
        Request::Confirm {
            stream: self.stream,
            confirm: Confirm { ledger_time, sequence, accepted, fence, extras },
        }
    }

    pub(crate) fn close(&self) -> Request {
        let sequence = Sequence(u64::try_from(self.sealed.len()).unwrap());
        let (accepted, fence, extras) = (self.end.0, self.fence, Vec::new());
        Request::Close { stream: self.stream, close: Close { sequence, accepted, fence, extras } }
    }
}

pub(crate) fn admit(batch: &SealedBatch, fence: Fence) -> Request {
    Request::Admit(Box::new(Admission::open(batch.header, batch.bytes.clone(), fence)))
}

/// One of the batch's body bytes is other than its digest says.
pub(crate) fn damaged(batch: &SealedBatch) -> SealedBatch {
    let mut batch = batch.clone();
    batch.bytes[HEADER_BYTES] ^= 1;
    batch
}

pub(crate) async fn commit<S: LedgerStore>(store: &S, group: Vec<Request>) -> Committed {
    store.commit(group, NOW, None).await.unwrap()
}

/// Opens the journal's stream and remembers its fence.
pub(crate) async fn greet<S: LedgerStore>(
    store: &S,
    journal: &mut Journal,
    posted: usize,
) -> Welcomed {
    let committed = commit(store, vec![journal.hello_request(posted, "agent")]).await;
    let [Reply::Welcomed(welcomed)] = committed.replies[..] else {
        panic!("{:?}", committed.replies)
    };
    journal.fence = welcomed.fence;
    welcomed
}

/// A word for each reply.
pub(crate) fn words(committed: &Committed) -> String {
    let word = |reply: &Reply| match reply {
        Reply::Welcomed(_) => "welcome".to_owned(),
        Reply::HelloRefused { verdict, .. } => format!("{verdict:?}"),
        Reply::Judged { verdict, posted, .. } => {
            let verdict = match verdict {
                Verdict::Admit => "admit".to_owned(),
                Verdict::Duplicate => "duplicate".to_owned(),
                Verdict::Gap { expected } => format!("gap{expected}"),
                Verdict::Conflict { sequence } => format!("conflict{sequence}"),
                Verdict::Fenced { .. } => "fenced".to_owned(),
                Verdict::OtherLedger => "other_ledger".to_owned(),
                Verdict::NotOpen => "not_open".to_owned(),
                Verdict::Invalid(_) => "invalid".to_owned(),
            };
            format!("{verdict}@{posted}")
        }
        Reply::Claimed(ClaimVerdict::Take) => "take".to_owned(),
        Reply::Claimed(verdict) => format!("{verdict:?}"),
        Reply::Booked(booked) => format!("{booked:?}"),
        Reply::Archived => "archived".to_owned(),
        Reply::Retired(streams) => format!("retired{streams}"),
    };
    committed.replies.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// One event, and the largest sum that an accumulator holds.
pub(crate) fn huge() -> LineValue {
    let sum = Quantity(i128::MAX);
    LineValue { events: 1, quantity_events: 1, sum, ..LineValue::default() }
}

/// The batch, as if these were its lines.
pub(crate) fn with_lines(batch: &TailBatch, lines: Vec<Line>) -> Arc<TailBatch> {
    let TailBatch { stream, sequence, position, admitted, bytes, .. } = *batch;
    let (agent, lines) = (batch.agent.clone(), CustomerLines::new(lines, &Marks::default()));
    Arc::new(TailBatch { stream, agent, sequence, position, admitted, bytes, lines })
}

/// A customer's sums in the totals, by meter and bucket.
fn totals_of<S: LedgerStore>(store: &S, customer: &str) -> String {
    let customer = CustomerId::parse(customer).unwrap();
    let question =
        UsageQuestion { customer: &customer, meter: None, from: Bucket(0), to: Bucket(u32::MAX) };
    let rows = store.totals().unwrap().usage(&question).unwrap();
    let row = |row: &crate::usage::UsageRow| {
        let (usage, uniques) = (&row.usage, row.usage.uniques.len());
        format!("{}@{}:{}x{}u{uniques}", row.meter, row.bucket, usage.sum.0, usage.events)
    };
    rows.iter().map(row).collect::<Vec<_>>().join(" ")
}

async fn fold<S: LedgerStore>(store: &S, batches: &[Arc<TailBatch>]) -> Result<(), StoreError> {
    store.fold(Arc::new(FoldSlice::of(batches.iter().map(AsRef::as_ref)))).await
}

/// Runs every test of the suite, each on a new store.
pub(crate) async fn all<S: LedgerStore, F: Future<Output = (S, Recovered)>>(open: impl Fn() -> F) {
    let (store, new) = open().await;
    admits_in_order_and_once(store, new.ledger).await;
    let (store, new) = open().await;
    a_newer_session_fences_the_older(store, new.ledger).await;
    let (store, new) = open().await;
    finds_conflicts_before_and_after_a_fold(store, new.ledger).await;
    let (store, new) = open().await;
    names_posted_openings_on_conflict(store, new.ledger).await;
    let (store, new) = open().await;
    quarantines_unreadable_bodies(store, new.ledger).await;
    let (store, new) = open().await;
    folds_once_and_splits_overflow(store, new.ledger).await;
    let (store, new) = open().await;
    takes_claims(store, new.ledger).await;
    let (store, new) = open().await;
    keeps_unauthorised_lines_apart(store, new.ledger).await;
}

async fn admits_in_order_and_once<S: LedgerStore>(store: S, ledger: LedgerId) {
    let mut a = Journal::new(1, ledger);
    let mut b = Journal::new(2, ledger);
    for bucket in 1..=3 {
        a.seal(&[("c", "m", bucket, 5)]);
        b.seal(&[("c", "m", bucket, 7)]);
    }
    assert_eq!(words(&commit(&store, vec![a.admit(1)]).await), "not_open@0");
    let welcomed = greet(&store, &mut a, 0).await;
    assert_eq!(
        (welcomed.posted_sequence, welcomed.posted_digest),
        (Sequence(0), genesis(ledger, a.stream))
    );
    greet(&store, &mut b, 0).await;

    let group = vec![a.admit(1), b.admit(1), a.admit(1), a.admit(3), a.admit(2), b.admit(3)];
    let committed = commit(&store, group).await;
    assert_eq!(words(&committed), "admit@1 admit@1 duplicate@1 gap2@1 admit@2 gap2@1");
    let admitted: Vec<_> =
        committed.admitted.iter().map(|batch| (batch.stream, batch.sequence.0)).collect();
    assert_eq!(admitted, [(a.stream, 1), (b.stream, 1), (a.stream, 2)]);
    assert_eq!(words(&commit(&store, vec![a.admit(3), a.admit(1)]).await), "admit@3 duplicate@3");

    assert_eq!(store.batch(a.stream, Sequence(2)).await.unwrap(), Some(a.sealed[1].bytes.clone()));
    assert_eq!(store.batch(a.stream, Sequence(4)).await.unwrap(), None);
    let welcomed = greet(&store, &mut a, 3).await;
    assert_eq!(
        (welcomed.posted_sequence, welcomed.posted_digest),
        (Sequence(3), a.sealed[2].header.digest())
    );
    let stranger = Journal::new(3, LedgerId([0; 16]));
    let mut stranger = Journal { fence: Fence(0), ..stranger };
    stranger.seal(&[("c", "m", 1, 1)]);
    greet(&store, &mut stranger, 0).await;
    assert_eq!(words(&commit(&store, vec![stranger.admit(1)]).await), "other_ledger@0");
}

async fn a_newer_session_fences_the_older<S: LedgerStore>(store: S, ledger: LedgerId) {
    let mut old = Journal::new(1, ledger);
    old.seal(&[("c", "m", 1, 5)]);
    let first = greet(&store, &mut old, 0).await;
    let mut new = old.clone();
    let second = greet(&store, &mut new, 0).await;
    assert!(second.fence > first.fence);
    let group = vec![old.admit(1), new.admit(1), old.confirm(NOW), old.close()];
    let fenced = format!("{:?}", ClaimVerdict::Fenced { current: second.fence });
    assert_eq!(words(&commit(&store, group).await), format!("fenced@0 admit@1 {fenced} {fenced}"));
    let other = commit(&store, vec![new.hello_request(1, "somebody-else")]).await;
    assert_eq!(words(&other), "OtherIdentity");
    assert_eq!(words(&commit(&store, vec![new.admit(1)]).await), "duplicate@1");
}

async fn finds_conflicts_before_and_after_a_fold<S: LedgerStore>(store: S, ledger: LedgerId) {
    let mut journal = Journal::new(1, ledger);
    let mut fork = Journal::new(1, ledger);
    for bucket in 1..=3 {
        journal.seal(&[("c", "m", bucket, 5)]);
        fork.seal(&[("c", "m", bucket, 6)]);
    }
    greet(&store, &mut journal, 0).await;
    let committed =
        commit(&store, vec![journal.admit(1), journal.admit(2), journal.admit(3)]).await;
    for turn in 0..2 {
        fork.fence = journal.fence;
        assert_eq!(words(&commit(&store, vec![fork.admit(3)]).await), "conflict3@3", "turn {turn}");
        assert_eq!(words(&commit(&store, vec![fork.admit(1)]).await), "conflict1@3", "turn {turn}");
        let other = HelloVerdict::Conflict(Contradiction::OtherDigest { sequence: Sequence(2) });
        let hello = commit(&store, vec![fork.hello_request(2, "agent")]).await;
        assert_eq!(words(&hello), format!("{other:?}"), "turn {turn}");
        assert_eq!(hello.streams[0].state, StreamState::Conflict);
        // The journal whose chain fits goes on.
        greet(&store, &mut journal, 3).await;
        if turn == 0 {
            fold(&store, &committed.admitted).await.unwrap();
        }
    }
    assert_eq!(
        store.batch(journal.stream, Sequence(2)).await.unwrap(),
        Some(journal.sealed[1].bytes.clone())
    );
}

async fn names_posted_openings_on_conflict<S: LedgerStore>(store: S, ledger: LedgerId) {
    let mut journal = Journal::new(1, ledger);
    journal.seal(&[("c", "m", 1, 5), ("c", "m", 2, 5)]);
    journal.opening = OpeningId([2; 16]);
    journal.seal(&[("c", "m", 3, 5)]);
    greet(&store, &mut journal, 0).await;
    commit(&store, vec![journal.admit(1), journal.admit(2)]).await;
    greet(&store, &mut journal, 0).await;
    let mut rolled_back = Journal::new(1, ledger);
    rolled_back.seal(&[("c", "m", 1, 9)]);
    let held = |opening, first| HeldOpening {
        opening: OpeningId([opening; 16]),
        first: EventNumber(first),
        end: EventNumber(9),
    };
    let ask = |journal: &Journal, own, openings| {
        let mut hello = journal.hello(0);
        hello.opening = OpeningId([own; 16]);
        hello.accepted = 9;
        hello.openings = openings;
        let agent = AgentName::parse("agent").unwrap();
        Request::Hello(Box::new(HelloRequest { hello, agent, said: Duration::ZERO }))
    };
    let answer = |committed: &Committed| match &committed.replies[..] {
        [Reply::HelloRefused { verdict: HelloVerdict::Conflict(_), openings, .. }] => {
            openings.iter().map(|posted| (posted.opening.0[0], posted.end.0)).collect::<Vec<_>>()
        }
        replies => panic!("{replies:?}"),
    };
    // Of 3 to 5 nothing is posted. The ledger's third event is of opening 2, so 3 can never be; 4 may still
    // come from another copy, and 5 is the asker's own.
    let openings = vec![held(1, 0), held(2, 0), held(3, 2), held(4, 3), held(5, 9)];
    let committed = commit(&store, vec![ask(&rolled_back, 5, openings.clone())]).await;
    assert_eq!(answer(&committed), [(1, 2), (2, 3), (4, 3)]);
    // It may ask again; a copy of it, or its next opening, is not told that 5 is free.
    let committed = commit(&store, vec![ask(&rolled_back, 5, openings.clone())]).await;
    assert_eq!(answer(&committed), [(1, 2), (2, 3), (4, 3)]);
    let committed = commit(&store, vec![ask(&rolled_back, 6, openings.clone())]).await;
    assert_eq!(answer(&committed), [(1, 2), (2, 3), (4, 3), (5, 3)]);

    // The journal that fits goes on, unless it ships what was given away.
    let committed = commit(&store, vec![ask(&journal, 2, vec![held(5, 3)])]).await;
    assert_eq!(answer(&committed), [(5, 3), (2, 3)]);
    greet(&store, &mut journal, 0).await;
    journal.seal(&[("c", "m", 4, 5)]);
    journal.opening = OpeningId([5; 16]);
    journal.seal(&[("c", "m", 5, 5)]);
    let committed = commit(&store, vec![journal.admit(3), journal.admit(4)]).await;
    assert_eq!(words(&committed), "admit@3 conflict4@3");
}

async fn quarantines_unreadable_bodies<S: LedgerStore>(store: S, ledger: LedgerId) {
    let mut journal = Journal::new(1, ledger);
    journal.seal(&[("c", "m", 1, 5)]);
    journal.seal(&[("c", "m", 1, 6), ("c", "m", 2, 6)]);
    journal.seal(&[("c", "m", 1, 7)]);
    greet(&store, &mut journal, 0).await;
    let unreadable = damaged(&journal.sealed[1]);
    let group = vec![journal.admit(1), admit(&unreadable, journal.fence), journal.admit(3)];
    let committed = commit(&store, group).await;
    assert_eq!(words(&committed), "admit@1 admit@2 admit@3");
    assert_eq!(committed.quarantined, 1);
    let record = committed.streams[0].clone();
    assert_eq!((record.quarantined_batches, record.quarantined_events), (1, 2));
    assert_eq!(record.status().posted_events, 2);
    fold(&store, &committed.admitted).await.unwrap();
    assert_eq!(totals_of(&store, "c"), "m@1:12x2u2");
    assert_eq!(store.batch(journal.stream, Sequence(2)).await.unwrap(), Some(unreadable.bytes));
}

async fn folds_once_and_splits_overflow<S: LedgerStore>(store: S, ledger: LedgerId) {
    let mut journal = Journal::new(1, ledger);
    journal.seal(&[("c", "m", 1, 5), ("c", "n", 200, 5), ("cc", "m", 1, 4)]);
    journal.seal(&[("c", "m", 1, 9), ("c", "m", 1, 9)]);
    journal.seal(&[("c", "m", 1, 5)]);
    greet(&store, &mut journal, 0).await;
    let committed = commit(&store, (1..=3).map(|sequence| journal.admit(sequence)).collect()).await;
    let mut batches = committed.admitted;
    // No line of two events has such sums, but those of many batches may.
    let key = |part| LineKey { part, ..batches[1].lines.iter().next().unwrap().line.key.clone() };
    let lines = [0, 1].map(|part| Line { key: key(part), value: huge() }).to_vec();
    batches[1] = with_lines(&batches[1], lines);
    let elsewhere = fold(&store, &batches[1..]).await.unwrap_err();
    assert!(
        matches!(elsewhere, StoreError::FoldedElsewhere { due: Sequence(1), .. }),
        "{elsewhere}"
    );
    fold(&store, &batches[..1]).await.unwrap();
    assert_eq!(totals_of(&store, "c"), "m@1:5x1u1 n@200:5x1u1");
    assert!(fold(&store, &batches[..1]).await.is_err(), "a slice is folded once");
    assert_eq!(totals_of(&store, "c"), "m@1:5x1u1 n@200:5x1u1");
    fold(&store, &batches[1..]).await.unwrap();
    let max = i128::MAX;
    assert_eq!(
        totals_of(&store, "c"),
        format!("m@1:5x1u1 m@1:{max}x1u0 m@1:{max}x1u0 m@1:5x1u0 n@200:5x1u1")
    );
    assert_eq!(totals_of(&store, "cc"), "m@1:4x1u1");
    let totals = store.totals().unwrap();
    assert_eq!(
        (totals.events().unwrap(), totals.folded_sequence(journal.stream).unwrap()),
        (6, Sequence(3))
    );
    let seen: Vec<_> = totals
        .seen()
        .unwrap()
        .into_iter()
        .map(|seen| (seen.events, seen.first.0, seen.last.0))
        .collect();
    assert_eq!(seen, [(4, 1, 1), (1, 200, 200), (1, 1, 1)]);
}

async fn keeps_unauthorised_lines_apart<S: LedgerStore>(store: S, ledger: LedgerId) {
    let mut journal = Journal::new(1, ledger);
    journal.seal(&[("c", "m", 1, 5), ("c", "n", 1, 6), ("d", "m", 1, 7)]);
    journal.seal(&[("c", "m", 1, 8)]);
    greet(&store, &mut journal, 0).await;
    let committed = commit(&store, vec![only_for_d(&journal, 1), journal.admit(2)]).await;
    assert_eq!(words(&committed), "admit@1 admit@2");
    fold(&store, &committed.admitted).await.unwrap();
    assert_eq!(
        classes_of(&store),
        ["c m normal 8", "c m unauthorised 5", "c n unauthorised 6", "d m normal 7"]
    );
    let totals = store.totals().unwrap();
    assert_eq!(totals.events().unwrap(), 4, "all are posted");
    let seen: Vec<_> = totals
        .seen()
        .unwrap()
        .into_iter()
        .map(|seen| format!("{} {} {:?} {}", seen.customer, seen.meter, seen.seen_as, seen.events))
        .collect();
    let unauthorised = r#"Unauthorised(AgentName("agent"))"#;
    assert_eq!(
        seen,
        [
            "c m Normal 1".to_owned(),
            format!("c m {unauthorised} 1"),
            format!("c n {unauthorised} 1"),
            "d m Normal 1".to_owned()
        ]
    );
}

/// Asks to admit the batch with this sequence, from an identity that may bill d only.
pub(crate) fn only_for_d(journal: &Journal, sequence: usize) -> Request {
    let pattern = |text| Pattern::parse(text).unwrap();
    let grants = Grants {
        otherwise: Otherwise::Deny,
        identities: vec![Identity {
            name: pattern("agent"),
            meters: Patterns::new([pattern("*")]),
            customers: Patterns::new([pattern("d")]),
        }],
    };
    let batch = &journal.sealed[sequence - 1];
    let agent = AgentName::parse("agent").unwrap();
    let grant = grants.of(&agent);
    let admission = Admission::open_for(&grant, batch.header, batch.bytes.clone(), journal.fence);
    Request::Admit(Box::new(admission))
}

/// The sums in the totals, by customer, meter and class.
pub(crate) fn classes_of<S: LedgerStore>(store: &S) -> Vec<String> {
    let mut found = Vec::new();
    for customer in ["c", "d"] {
        let customer = CustomerId::parse(customer).unwrap();
        let (from, to) = (Bucket(0), Bucket(u32::MAX));
        let question = UsageQuestion { customer: &customer, meter: None, from, to };
        for row in store.totals().unwrap().usage(&question).unwrap() {
            let sum = row.usage.sum.0;
            found.push(format!("{customer} {} {} {sum}", row.meter, row.class.name()));
        }
    }
    found
}

async fn takes_claims<S: LedgerStore>(store: S, ledger: LedgerId) {
    let mut journal = Journal::new(1, ledger);
    journal.seal(&[("c", "m", 1, 5)]);
    greet(&store, &mut journal, 0).await;
    let committed = commit(&store, vec![journal.confirm(Timestamp(900))]).await;
    assert_eq!(
        (words(&committed).as_str(), committed.streams[0].complete_through()),
        ("take", None)
    );
    let committed = commit(&store, vec![journal.admit(1)]).await;
    assert_eq!(committed.streams[0].complete_through(), Some(Timestamp(900)));
    let committed = commit(&store, vec![journal.close(), journal.admit(1)]).await;
    assert_eq!(words(&committed), "take not_open@1");
    assert_eq!(committed.streams[0].state, StreamState::Closed);
    greet(&store, &mut journal, 1).await;
    assert_eq!(words(&commit(&store, vec![journal.admit(1)]).await), "duplicate@1");
}
