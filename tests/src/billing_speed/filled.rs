//! A ledger with so many rows of usage of each customer, posted as one agent would, whose stream is then closed.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tidemark_collector::dedupe::Verdict;
use tidemark_collector::ledger::request::{Admission, Reply, Request};
use tidemark_collector::ledger::{Ledger, LedgerOptions};
use tidemark_collector::period::Period;
use tidemark_common::batch::{
    BodyWriter, Evidence, LineValue, NewHeader, SealedBatch, genesis, series_bytes,
};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{
    Digest, EventNumber, Fence, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Bucket;
use tidemark_common::wire::Close;

use crate::welcome::welcome;

const CATALOGUE: &str = r#"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["region"]
[[meter]]
name = "tokens"
aggregation = "sum"
dimensions = ["model"]
[[plan]]
name = "standard"
currency = "EUR"
[[plan.fee]]
name = "Base"
amount = "10"
[[plan.price]]
meter = "api.calls"
model = "graduated"
[[plan.price.tier]]
up_to = "1000"
unit_price = "0"
[[plan.price.tier]]
unit_price = "0.002"
[[plan.price]]
meter = "tokens"
where = { model = "large" }
unit_price = "0.00004"
[[plan.price]]
meter = "tokens"
unit_price = "0.00001"
[[tax]]
name = "standard"
label = "VAT 19 %"
percent = "19"
[[seller]]
name = "main"
legal_name = "Tide GmbH"
address = ["Am Ufer 1", "20095 Hamburg"]
tax = "standard"
"#;
const STREAM: StreamId = StreamId([7; 16]);
const OPENING: OpeningId = OpeningId([8; 16]);
/// A batch has about so many lines.
const BATCH_LINES: u32 = 20_000;
/// What a customer's rows differ in, beside the hour.
const SERIES: [(&str, (&str, &str)); 4] = [
    ("api.calls", ("region", "eu")),
    ("api.calls", ("region", "us")),
    ("tokens", ("model", "large")),
    ("tokens", ("model", "small")),
];
const BUCKETS_PER_HOUR: u32 = 4;
const NANOS_PER_UNIT: i128 = 1_000_000_000;

/// The id of the customer with this number.
pub(crate) fn customer(number: u32) -> String {
    format!("c{number:06}")
}

pub(crate) fn catalogue(customers: u32) -> String {
    let mut text = CATALOGUE.to_owned();
    for number in 0..customers {
        let id = customer(number);
        text.push_str(&format!("[[customer]]\nid = \"{id}\"\nplan = \"standard\"\n"));
    }
    text
}

/// What a ledger is filled with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filling {
    pub(crate) customers: u32,
    pub(crate) rows_each: u32,
    /// Beside the one that posts the usage: each has posted one event of an hour that has usage already, and is closed.
    pub(crate) streams: u32,
    pub(crate) month: Period,
}

/// Makes the ledger in `data_dir`; all is folded, and complete.
pub(crate) async fn fill(data_dir: &Path, filling: Filling) -> Result<()> {
    let Filling { customers, rows_each, streams, month } = filling;
    let mut options = LedgerOptions::default();
    options.redb.streams_per_hour_max = streams.max(options.redb.streams_per_hour_max);
    let ledger = Ledger::open(data_dir, options).await?;
    let mut stream = Stream::open(&ledger, STREAM).await?;
    let at_once = (BATCH_LINES / rows_each).max(1);
    let mut first = 0;
    while first < customers {
        let end = customers.min(first.saturating_add(at_once));
        stream.post(&lines(first..end, rows_each, month)?).await?;
        first = end;
    }
    stream.close().await?;
    let one = lines(0..1, 1, month)?;
    for number in 0..streams {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let mut stream = Stream::open(&ledger, StreamId(id)).await?;
        stream.post(&one).await?;
        stream.close().await?;
    }
    // What is in the tail is folded by the end.
    Ok(ledger.shutdown().await?)
}

type Lines = Vec<(Vec<u8>, Bucket, LineValue)>;

/// One event a row, ascending as a body has them.
fn lines(customers: std::ops::Range<u32>, rows_each: u32, month: Period) -> Result<Lines> {
    let mut lines = Vec::new();
    for number in customers {
        let customer = customer(number);
        for row in 0..rows_each {
            let (meter, dimension) = SERIES[usize::try_from(row)? % SERIES.len()];
            let hour = row / u32::try_from(SERIES.len())?;
            let bucket = Bucket(month.start.0 + hour * BUCKETS_PER_HOUR);
            ensure!(bucket < month.end, "{rows_each} rows are more than a month holds");
            let quantity = Quantity(i128::from(1 + (number + row * 31) % 97) * NANOS_PER_UNIT);
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
            lines.push((series_bytes(meter, &customer, &[dimension]), bucket, value));
        }
    }
    lines.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
    Ok(lines)
}

/// An agent's stream, as far as the ledger meets it.
struct Stream<'l> {
    ledger: &'l Ledger,
    stream: StreamId,
    fence: Fence,
    sequence: Sequence,
    digest: Digest,
    end: EventNumber,
    evidence: Evidence,
}

impl<'l> Stream<'l> {
    async fn open(ledger: &'l Ledger, stream: StreamId) -> Result<Self> {
        let digest = genesis(ledger.ledger(), stream);
        let fence = welcome(ledger, (stream, OPENING), 1).await?;
        let evidence = Evidence::default();
        let (sequence, end) = (Sequence::ZERO, EventNumber(0));
        Ok(Self { ledger, stream, fence, sequence, digest, end, evidence })
    }

    async fn post(&mut self, lines: &Lines) -> Result<()> {
        let events = u64::try_from(lines.len())?;
        self.evidence.add(EvidenceCode::Accepted, events);
        let mut body = BodyWriter::new([9; 32], &self.evidence);
        for (series, bucket, value) in lines {
            body.line(series, *bucket, 0, value)?;
        }
        let header = NewHeader {
            stream: self.stream,
            opening: OPENING,
            sequence: self.sequence.next(),
            first_event: self.end,
            end_event: self.end.plus(events),
            rules: RulesVersion(1),
            previous: self.digest,
        };
        let batch = SealedBatch::assemble(header, body.finish()?);
        self.sequence = batch.header.sequence;
        (self.digest, self.end) = (batch.header.digest(), batch.header.end_event);
        let admission = Admission::open(batch.header, batch.bytes, self.fence);
        match self.ledger.submit(Request::Admit(Box::new(admission))).await?.await? {
            Reply::Judged { verdict: Verdict::Admit, .. } => Ok(()),
            other => bail!("{other:?}"),
        }
    }

    async fn close(self) -> Result<()> {
        let Self { stream, sequence, fence, end, .. } = self;
        let close = Close { sequence, accepted: end.0, fence, extras: Vec::new() };
        let request = Request::Close { stream, close };
        let reply = self.ledger.submit(request).await?;
        reply.await.map(drop).context("the ledger ended")
    }
}
