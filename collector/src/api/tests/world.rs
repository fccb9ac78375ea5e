//! A ledger in memory with what a test posts, and the API on a port of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde_json::Value;
use tidemark_common::batch::{
    BodyWriter, Evidence, Extras, Header, KeyedId, LineId, LineValue, NewHeader, SealedBatch,
    genesis, series_bytes,
};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{
    CustomerId, EventNumber, Fence, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{Confirm, Hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::adopt::{self, AdoptRequest, Adopted};
use crate::api::{Changes, DoorCounters, DoorLimits, Role, Token, router, serve};
use crate::archive::events::RawEvents;
use crate::backup::last::BackupNote;
use crate::billing_run::Settings;
use crate::catalog::{Aggregations, Catalog};
use crate::dedupe::Verdict;
use crate::ledger::clock::Reading;
use crate::ledger::redb::{RedbOptions, RedbStore};
use crate::ledger::request::{Admission, HelloRequest, Reply, Request};
use crate::ledger::{Ledger, LedgerOptions, TimeSource};
use crate::listen::ListenFigures;
use crate::period::parse_edge;

/// The token that the API takes, and one that sees `acme` alone.
pub(super) const TOKEN: &str = "0123456789abcdef";
pub(super) const ACME_TOKEN: &str = "fedcba9876543210";
/// One of each role that may do more than look.
pub(super) const ADMIN_TOKEN: &str = "admin-0123456789";
pub(super) const BILLING_TOKEN: &str = "billing-01234567";
pub(super) const AUDITOR_TOKEN: &str = "auditor-01234567";

pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) stream: StreamId,
    catalogs: watch::Sender<Arc<Catalog>>,
    pub(super) address: std::net::SocketAddr,
    /// Microseconds by the monotonic clock. The wall clock stands still, until it is set.
    pub(super) passed: Arc<AtomicU64>,
    wall: Arc<AtomicI64>,
    keys: AtomicU64,
    _keys_folder: tempfile::TempDir,
    pub(super) raw_events: RawEvents,
    /// Of raw events alone: their objects, and their index.
    pub(super) archive_folder: tempfile::TempDir,
    _running: watch::Sender<bool>,
}

/// A line of a batch, before it is encoded: series, bucket, value.
pub(super) type TestLine = (Vec<u8>, Bucket, LineValue);

/// One event with a quantity.
pub(super) fn line(
    meter: &str,
    customer: &str,
    at: &str,
    dimensions: &[(&str, &str)],
    quantity: &str,
) -> TestLine {
    let bucket = parse_edge(at).unwrap();
    let quantity = Quantity::parse(quantity.as_bytes()).unwrap();
    let value = LineValue {
        events: 1,
        quantity_events: 1,
        sum: quantity,
        min: quantity,
        max: quantity,
        latest_time: bucket.start(),
        latest: quantity,
        ..LineValue::default()
    };
    (series_bytes(meter, customer, dimensions), bucket, value)
}

/// One event for each unique value.
pub(super) fn unique(meter: &str, customer: &str, at: &str, values: &[&str]) -> TestLine {
    let events = u64::try_from(values.len()).unwrap();
    let mut uniques: Vec<[u8; 16]> = values
        .iter()
        .map(|value| {
            let mut digest = [0; 16];
            digest[..value.len()].copy_from_slice(value.as_bytes());
            digest
        })
        .collect();
    uniques.sort_unstable();
    let value =
        LineValue { events, unique_events: events, unique_key: 1, uniques, ..LineValue::default() };
    (series_bytes(meter, customer, &[]), parse_edge(at).unwrap(), value)
}

/// Judges catalogues as the collector does, and takes none into use.
async fn judge_catalogs(ledger: Ledger, mut wishes: mpsc::Receiver<AdoptRequest>) {
    while let Some(AdoptRequest { asked, reply }) = wishes.recv().await {
        let books = ledger.books().unwrap();
        let judged = adopt::judge(&asked.text, "c", None, &Aggregations::default(), &*books);
        let told = judged.map(|judged| Adopted {
            entry: (!asked.dry_run).then_some(1),
            changes: judged.changes.iter().map(|change| change.told()).collect(),
        });
        drop(reply.send(told));
    }
}

/// What the API answered.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    /// In lower case up to each colon, as hyper writes it.
    pub(super) head: String,
    pub(super) body: String,
}

impl Response {
    /// The JSON of an answer that must be one.
    pub(super) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

impl World {
    pub(super) async fn start(catalog: &str, now: &str) -> Self {
        Self::start_behind(catalog, now, DoorLimits::default()).await
    }

    pub(super) async fn start_behind(catalog: &str, now: &str, limits: DoorLimits) -> Self {
        Self::start_with(catalog, now, limits, Settings::default()).await
    }

    pub(super) async fn start_with(
        catalog: &str,
        now: &str,
        limits: DoorLimits,
        billing: Settings,
    ) -> Self {
        Self::start_over(catalog, now, limits, billing, LedgerOptions::default()).await
    }

    pub(super) async fn start_over(
        catalog: &str,
        now: &str,
        limits: DoorLimits,
        billing: Settings,
        options: LedgerOptions,
    ) -> Self {
        let wall = parse_edge(now).unwrap().start();
        let memory = redb::backends::InMemoryBackend::new;
        // The ledger begins at the limit that it stored, which is never behind the clock.
        let (store, recovered) =
            RedbStore::open_on(memory(), memory(), &RedbOptions::default(), wall).unwrap();
        let passed = Arc::new(AtomicU64::new(0));
        let (monotonic, shown) = (Arc::clone(&passed), Arc::new(AtomicI64::new(wall.0)));
        let wall = Arc::clone(&shown);
        let time = TimeSource::new(move || Reading {
            wall: Timestamp(shown.load(Ordering::Relaxed)),
            monotonic_micros: monotonic.load(Ordering::Relaxed),
        })
        .ahead(0);
        let keys_folder = tempfile::tempdir().unwrap();
        let keys = Some(keys_folder.path().to_owned());
        let options = LedgerOptions { keys, ..options };
        let ledger = Ledger::start(store, recovered, options, time).await.unwrap();

        let (catalogs, watched) = watch::channel(Arc::new(Catalog::parse(catalog, "c").unwrap()));
        let acme = Some(CustomerId::parse("acme").unwrap());
        let tokens = vec![
            Token::of_secret("test", TOKEN),
            Token { customer: acme, ..Token::of_secret("acme", ACME_TOKEN) },
            Token { role: Role::Admin, ..Token::of_secret("root", ADMIN_TOKEN) },
            Token { role: Role::Billing, ..Token::of_secret("bill", BILLING_TOKEN) },
            Token { role: Role::Auditor, ..Token::of_secret("audit", AUDITOR_TOKEN) },
        ];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sessions =
            ListenFigures { sessions_open: 1, sessions_begun: 2, ..ListenFigures::default() };
        let counters = Arc::new(DoorCounters::default());
        let (adoptions, wishes) = mpsc::channel(1);
        tokio::spawn(judge_catalogs(ledger.clone(), wishes));
        let archive_folder = tempfile::tempdir().unwrap();
        let raw_events = RawEvents::in_folder(archive_folder.path());
        let changes = Changes {
            adoptions,
            billing,
            sweeps: Arc::default(),
            raw_events: Some(raw_events.clone()),
            backups: BackupNote::of(archive_folder.path()),
        };
        let sessions = Arc::new(move || sessions);
        let router =
            router(ledger.clone(), watched, sessions, tokens, Arc::clone(&counters), changes);
        let (running, stopping) = watch::channel(false);
        tokio::spawn(serve(listener, router, limits, counters, stopping));
        let (stream, keys) = (StreamId([7; 16]), AtomicU64::new(0));
        Self {
            ledger,
            stream,
            catalogs,
            address,
            passed,
            wall,
            keys,
            _keys_folder: keys_folder,
            raw_events,
            archive_folder,
            _running: running,
        }
    }

    /// Sets the wall clock; ledger time follows with the next commit.
    pub(super) async fn set_clock(&self, now: &str) {
        let wall = parse_edge(now).unwrap().start();
        self.wall.store(wall.0, Ordering::Relaxed);
        let confirm = Confirm {
            ledger_time: Timestamp(0),
            sequence: Sequence::ZERO,
            accepted: 0,
            fence: Fence(0),
            extras: Vec::new(),
        };
        // Whatever is committed takes the clock's limit along.
        self.ask(Request::Confirm { stream: StreamId([0; 16]), confirm }).await;
        assert!(self.ledger.now() >= wall, "{now}");
    }

    /// Asks for a change, with a key that no other request has.
    pub(super) async fn post_json(&self, target: &str, body: &str) -> Response {
        let key = self.keys.fetch_add(1, Ordering::Relaxed);
        self.post_keyed(target, body, ADMIN_TOKEN, Some(&format!("key-{key}"))).await
    }

    pub(super) async fn post_keyed(
        &self,
        target: &str,
        body: &str,
        token: &str,
        key: Option<&str>,
    ) -> Response {
        self.send_body("POST", target, body, token, key).await
    }

    pub(super) async fn put(&self, target: &str, body: &str, token: &str) -> Response {
        self.send_body("PUT", target, body, token, None).await
    }

    async fn send_body(
        &self,
        method: &str,
        target: &str,
        body: &str,
        token: &str,
        key: Option<&str>,
    ) -> Response {
        let key = key.map_or_else(String::new, |key| format!("Idempotency-Key: {key}\r\n"));
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             {key}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(&head).await
    }

    pub(super) fn adopt(&self, catalog: &str) {
        self.catalogs.send_replace(Arc::new(Catalog::parse(catalog, "c").unwrap()));
    }

    /// Posts one batch of these lines, as the agent `edge-1`.
    pub(super) async fn post(&self, lines: &[TestLine]) {
        self.post_from(self.stream, lines).await;
    }

    /// The same from a stream that has posted nothing yet.
    pub(super) async fn post_from(&self, stream: StreamId, lines: &[TestLine]) {
        self.post_with_ids(stream, lines, &[]).await;
    }

    /// The same; the first lines in the body's order have these ids.
    pub(super) async fn post_with_ids(&self, stream: StreamId, lines: &[TestLine], ids: &[u8]) {
        let id = |(line, id): (u32, &u8)| LineId { line, id: KeyedId([*id; 16]) };
        let mut extras = Extras::default();
        extras.set_line_ids(1, &(0..).zip(ids).map(id).collect::<Vec<_>>());
        self.post_with(stream, lines, extras).await;
    }

    /// The same, with these extras in the body; its header.
    pub(super) async fn post_with(
        &self,
        stream: StreamId,
        lines: &[TestLine],
        extras: Extras,
    ) -> Header {
        let events: u64 = lines.iter().map(|(_, _, value)| value.events).sum();
        let fence = match self.ask(Request::Hello(Box::new(self.hello(stream)))).await {
            Reply::Welcomed(welcomed) => welcomed.fence,
            other => panic!("{other:?}"),
        };
        let batch = self.batch_with(stream, lines, events, extras);
        let admission = Admission::open(batch.header, batch.bytes, fence);
        match self.ask(Request::Admit(Box::new(admission))).await {
            Reply::Judged { verdict: Verdict::Admit, .. } => batch.header,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn ask(&self, request: Request) -> Reply {
        self.ledger.submit(request).await.unwrap().await.unwrap()
    }

    pub(super) fn batch(&self, stream: StreamId, lines: &[TestLine], events: u64) -> SealedBatch {
        self.batch_with(stream, lines, events, Extras::default())
    }

    fn batch_with(
        &self,
        stream: StreamId,
        lines: &[TestLine],
        events: u64,
        extras: Extras,
    ) -> SealedBatch {
        let mut evidence = Evidence::default();
        evidence.add(EvidenceCode::Accepted, events);
        evidence.add(EvidenceCode::RejectedMalformed, 3);
        evidence.add(EvidenceCode::KernelDrops, 2);
        let mut ordered: Vec<_> = lines.iter().collect();
        ordered.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
        let mut writer = BodyWriter::with_extras([9; 32], &evidence, extras);
        let (mut before, mut part) = (None, 0_u16);
        for (series, bucket, value) in ordered {
            let again = before.replace((series, bucket)) == Some((series, bucket));
            part = if again { part.saturating_add(1) } else { 0 };
            writer.line(series, *bucket, part, value).unwrap();
        }
        let header = NewHeader {
            stream,
            opening: OpeningId([8; 16]),
            sequence: Sequence(1),
            first_event: EventNumber(0),
            end_event: EventNumber(events),
            rules: RulesVersion(1),
            previous: genesis(self.ledger.ledger(), stream),
        };
        SealedBatch::assemble(header, writer.finish().unwrap())
    }

    pub(super) fn hello(&self, stream: StreamId) -> HelloRequest {
        let hello = Hello {
            header_version: 1,
            body_version: 1,
            stream,
            ledger: None,
            opening: OpeningId([8; 16]),
            posted_sequence: Sequence::ZERO,
            posted_digest: genesis(self.ledger.ledger(), stream),
            sealed_sequence: Sequence::ZERO,
            accepted: 0,
            rules_version: RulesVersion(0),
            openings: Vec::new(),
            clock: Timestamp(0),
            token: None,
            agent: "test".to_owned(),
            extras: Vec::new(),
        };
        let agent = AgentName::parse("edge-1").unwrap();
        HelloRequest { hello, agent, said: self.ledger.monotonic() }
    }

    /// With a valid token.
    pub(super) async fn get(&self, target: &str) -> Response {
        self.get_with(target, Some(&format!("Bearer {TOKEN}"))).await
    }

    /// With this `Authorization`, or none.
    pub(super) async fn get_with(&self, target: &str, authorization: Option<&str>) -> Response {
        self.request("GET", target, authorization).await
    }

    pub(super) async fn request(
        &self,
        method: &str,
        target: &str,
        authorization: Option<&str>,
    ) -> Response {
        let authorization =
            authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{authorization}\r\n"
        );
        self.send(&request).await
    }

    async fn send(&self, request: &str) -> Response {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).await.unwrap();
        // A PDF is no text; its head is.
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head: head.to_owned(), body: body.to_owned() }
    }
}
