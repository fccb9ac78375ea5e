//! What deduplication costs: admission of the same lines without ids, with new ones, and with known ones.
//!
//! A ledger in a folder of its own takes batches through its writer, as sessions hand them over, [`AT_ONCE`] at a time. In
//! each round three streams post as many batches of as many lines: one without ids, one with ids that nobody has seen, one
//! with those that the second posted. Bodies are sealed and opened before the clock starts: sessions do that on their own.
//!
//! **Owns** the measurement. **Does not own** a verdict: it prints figures, and what the table of ids takes on disk.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow ends the measurement")]

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use tidemark_collector::dedupe::Verdict;
use tidemark_collector::ledger::request::{Admission, Reply, Request};
use tidemark_collector::ledger::{Ledger, LedgerOptions};
use tidemark_common::batch::{
    BodyWriter, Evidence, Extras, KeyedId, LineId, LineValue, NewHeader, SealedBatch, genesis,
    series_bytes,
};
use tidemark_common::id::{
    Digest, EventNumber, Fence, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tokio::runtime::Runtime;

use crate::random::Random;
use crate::wait::{Stopwatch, unix_seconds};
use crate::welcome::welcome;

const IDS: TableDefinition<'_, &[u8; 18], &[u8; 32]> = TableDefinition::new("ids");
const OPENING: OpeningId = OpeningId([8; 16]);
/// Batches that the writer is given together.
const AT_ONCE: usize = 8;
const PAGE_BYTES: u64 = 4_096;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub rounds: u32,
    pub batches: u32,
    pub lines: u32,
}

/// Fills a ledger, and prints how fast it took what.
///
/// # Errors
/// When the ledger fails, or suppresses other lines than it should.
pub fn run(options: Options, out: &mut impl Write) -> Result<()> {
    let folder = tempfile::tempdir()?;
    Runtime::new()?.block_on(measure(options, folder.path(), out))?;
    table(&folder.path().join("ledger.redb"), out)
}

async fn measure(options: Options, data_dir: &Path, out: &mut impl Write) -> Result<()> {
    let Options { rounds, batches, lines } = options;
    let ledger = Ledger::open(data_dir, LedgerOptions::default()).await?;
    let mut streams = Vec::new();
    for name in 1..=3 {
        streams.push(Stream::open(&ledger, StreamId([name; 16])).await?);
    }
    writeln!(out, "{batches} batches of {lines} lines a round; lines/s admitted")?;
    writeln!(out, "{:>12} {:>12} {:>12} {:>12}", "ids before", "without", "new ids", "known ids")?;
    for round in 0..rounds {
        let seed = u64::from(round);
        let all = u64::from(batches) * u64::from(lines);
        let mut rates = Vec::new();
        let expected = ledger.figures()?.suppressed;
        for (stream, ids) in streams.iter_mut().zip([None, Some(seed), Some(seed)]) {
            let admissions = stream.seal(options, ids)?;
            let taken = post(&ledger, admissions).await?;
            rates.push(u128::from(all) * 1_000_000 / taken.as_micros().max(1));
        }
        let suppressed = ledger.figures()?.suppressed - expected;
        ensure!(suppressed == all, "{suppressed} of {all} were suppressed");
        let before = seed * all;
        writeln!(out, "{before:>12} {:>12} {:>12} {:>12}", rates[0], rates[1], rates[2])?;
    }
    Ok(ledger.shutdown().await?)
}

async fn post(ledger: &Ledger, admissions: Vec<Admission>) -> Result<Duration> {
    let clock = Stopwatch::start();
    let mut waiting = Vec::new();
    for admission in admissions {
        waiting.push(ledger.submit(Request::Admit(Box::new(admission))).await?);
        if waiting.len() < AT_ONCE {
            continue;
        }
        for reply in waiting.drain(..) {
            match reply.await? {
                Reply::Judged { verdict: Verdict::Admit, .. } => {}
                other => bail!("{other:?}"),
            }
        }
    }
    for reply in waiting {
        reply.await?;
    }
    Ok(clock.elapsed())
}

/// An agent's stream, as far as the ledger meets it.
struct Stream {
    stream: StreamId,
    fence: Fence,
    sequence: Sequence,
    digest: Digest,
    end: EventNumber,
}

impl Stream {
    async fn open(ledger: &Ledger, stream: StreamId) -> Result<Self> {
        let digest = genesis(ledger.ledger(), stream);
        let fence = welcome(ledger, (stream, OPENING), 2).await?;
        let (sequence, end) = (Sequence::ZERO, EventNumber(0));
        Ok(Self { stream, fence, sequence, digest, end })
    }

    /// The next batches; with ids, those that `seed` gives.
    fn seal(&mut self, options: Options, seed: Option<u64>) -> Result<Vec<Admission>> {
        let mut random = seed.map(Random::new);
        (0..options.batches).map(|_| self.seal_one(options.lines, random.as_mut())).collect()
    }

    fn seal_one(&mut self, lines: u32, random: Option<&mut Random>) -> Result<Admission> {
        let mut extras = Extras::default();
        if let Some(random) = random {
            let mut half = || u128::from(random.below(u64::MAX));
            let mut id = || KeyedId((half() << 64 | half()).to_be_bytes());
            let ids: Vec<_> = (0..lines).map(|line| LineId { line, id: id() }).collect();
            extras.set_line_ids(1, &ids);
        }
        let now = i64::try_from(unix_seconds())? * 1_000;
        let bucket = Bucket::of(Timestamp(now)).unwrap_or_default();
        let mut body = BodyWriter::with_extras([9; 32], &Evidence::default(), extras);
        let value = LineValue {
            events: 1,
            quantity_events: 1,
            sum: Quantity::ONE,
            min: Quantity::ONE,
            max: Quantity::ONE,
            latest_time: Timestamp(now),
            latest: Quantity::ONE,
            ..LineValue::default()
        };
        let series = series_bytes("api.calls", "acme", &[("region", "eu")]);
        for part in 0..lines {
            body.line(&series, bucket, u16::try_from(part)?, &value)?;
        }
        let header = NewHeader {
            stream: self.stream,
            opening: OPENING,
            sequence: self.sequence.next(),
            first_event: self.end,
            end_event: self.end.plus(u64::from(lines)),
            rules: RulesVersion(1),
            previous: self.digest,
        };
        let batch = SealedBatch::assemble(header, body.finish()?);
        self.sequence = batch.header.sequence;
        (self.digest, self.end) = (batch.header.digest(), batch.header.end_event);
        Ok(Admission::open(batch.header, batch.bytes, self.fence))
    }
}

fn table(ledger: &Path, out: &mut impl Write) -> Result<()> {
    let database = Database::open(ledger)?;
    let table = database.begin_read()?.open_table(IDS)?;
    let (ids, stats) = (table.len()?, table.stats()?);
    let pages = (stats.leaf_pages() + stats.branch_pages()) * PAGE_BYTES;
    let each = pages.checked_div(ids).unwrap_or(0);
    writeln!(out, "{ids} ids in {} MiB of the ledger's file: {each} bytes each", pages >> 20)?;
    Ok(())
}
