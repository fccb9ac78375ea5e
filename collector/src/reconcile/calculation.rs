//! The calculation check: totals against the stored batches, and the books against themselves.
//!
//! ```text
//! batches as stored -> chain, digest, lines -> sums  \
//!                                                      by (customer, meter, dimensions, class, bucket): the same?
//! totals of the snapshot + what is not folded -> sums /
//! ```
//! **Owns** these sums: nothing of it is shared with the folder (`ledger/fold.rs`, `ledger/redb/totals.rs` and
//! `usage.rs`), but for the codecs of a body and of a row. **Does not own** what is done about a difference.
//!
//! Only batches up to the snapshot's posted sequences count. Events are compared, those with quantities and with unique
//! values, sums in 256 bits (so that it does not matter how a sum is split into rows), extremes, latest values, distinct
//! values.
//!
//! Limits: at most [`KEYS_MAX`] keys and distinct values are held at once. Where there are more, keys are divided by their
//! hash, and everything is read once for each part; into at most [`PARTS_MAX`], since distinct values of one key stay together.

mod sums;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;

use hashbrown::{HashMap, HashSet};

use tidemark_common::batch::{Body, Dimensions, HEADER_BYTES, Header, Line, LineKey};
use tidemark_common::hex;
use tidemark_common::id::{CustomerId, Digest, MeterName, Sequence, StreamId};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Bucket;

use super::late::{self, Invoiced, Late};
use super::{Certainty, Finding, Kind, Scope, Span, StreamPart, suspense};
use crate::catalog::{Catalog, Unbilled};
use crate::ledger::books::check::BooksCheck;
use crate::ledger::books::sha256;
use crate::ledger::check::Findings;
use crate::ledger::duplicates::Suppressed;
use crate::ledger::marks::Marks;
use crate::ledger::store::{Books, StoreError, StoredBatch};
use crate::ledger::stream::StreamRecord;
use crate::ledger::{Ledger, LedgerError, Snapshot};
use crate::terms;
use crate::usage::{Class, Sign, UsageRow};

use self::sums::Pair;

/// Keys and distinct values held at once.
const KEYS_MAX: usize = 250_000;
/// So many parts at most.
const PARTS_MAX: u64 = 4_096;
/// So many damaged batches are named.
const DAMAGED_MAX: usize = 1_000;
/// So many findings of the books are told.
const BOOKS_FINDINGS_MAX: usize = 100;

/// Whose totals are recomputed.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// Everybody's, of the time looked at.
    Everything,
    /// Of these customers, each of a time of its own.
    Only(&'a BTreeMap<CustomerId, Span>),
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) findings: Vec<Finding>,
    pub(super) batches: u64,
    pub(super) rows: u64,
    unpriced: Unpriced,
    late: Late,
}

impl Checked {
    fn unpriced(&mut self, more: Unpriced) {
        for (key, (events, first, last)) in more {
            let held = self.unpriced.entry(key).or_insert((0, first, last));
            *held = (held.0.saturating_add(events), held.1.min(first), held.2.max(last));
        }
    }
}

/// Usage without a price: events, first and last bucket.
type Unpriced = BTreeMap<(CustomerId, MeterName), (u64, Bucket, Bucket)>;

type Differences = BTreeMap<(CustomerId, MeterName), Difference>;

/// What a sum is of: as a line's key, and its class.
type Key = (LineKey, Class);

pub(super) struct Check<'a> {
    ledger: &'a Ledger,
    catalog: &'a Catalog,
    snapshot: &'a Snapshot,
    wanted: Wanted<'a>,
    /// All buckets that anything is wanted of.
    from: Bucket,
    to: Bucket,
    streams: HashMap<StreamId, &'a StreamRecord>,
    /// Nothing, where it is about some customers alone.
    invoiced: Invoiced,
    keys_max: usize,
}

/// One part of the keys.
#[derive(Debug)]
struct Pass {
    part: u64,
    of: u64,
    span: Span,
    sums: HashMap<Key, Pair>,
    /// Distinct values held.
    uniques: usize,
    batches: u64,
    rows: u64,
    damaged: Vec<Finding>,
    /// Of each stream, the last sequence that was read, and its digest.
    chains: HashMap<StreamId, (Sequence, Digest)>,
    /// Usage that no price covers though its meter has one: events, first and last bucket.
    unpriced: Unpriced,
    late: Late,
}

/// There are more keys than one pass holds.
struct TooMany;

impl<'a> Check<'a> {
    pub(super) fn new(
        (ledger, catalog): (&'a Ledger, &'a Catalog),
        snapshot: &'a Snapshot,
        span: Span,
        wanted: Wanted<'a>,
    ) -> Result<Self, StoreError> {
        let all = match wanted {
            Wanted::Everything => Some(span),
            Wanted::Only(spans) => spans
                .values()
                .copied()
                .reduce(|all, one| Span { from: all.from.min(one.from), to: all.to.max(one.to) }),
        };
        let edge = |at| Bucket::of(at).unwrap_or_default();
        let (from, to) = all.map_or_else(Default::default, |all| (edge(all.from), edge(all.to)));
        let records = snapshot.records.iter();
        let streams = records.map(|record| (record.stream, record.as_ref())).collect();
        let invoiced = match wanted {
            Wanted::Everything => Invoiced::of(&*snapshot.books, span)?,
            Wanted::Only(_) => Invoiced::default(),
        };
        let keys_max = KEYS_MAX;
        Ok(Self { ledger, catalog, snapshot, wanted, from, to, streams, invoiced, keys_max })
    }

    /// # Errors
    /// If the ledger cannot be read.
    pub(super) fn run(&self) -> Result<Checked, LedgerError> {
        let mut parts = 1_u64;
        loop {
            if let Some(checked) = self.divided(parts)? {
                return Ok(checked);
            }
            parts = parts.saturating_mul(4).min(PARTS_MAX);
        }
    }

    /// Everything, read once for each part; `None` if a part is too large.
    fn divided(&self, parts: u64) -> Result<Option<Checked>, LedgerError> {
        let span = Span { from: self.from.start(), to: self.to.start() };
        let (mut checked, mut differences) = (Checked::default(), Differences::new());
        for part in 0..parts {
            let mut pass = Pass::new(part, parts, span);
            if self.read(&mut pass)?.is_err() {
                return Ok(None);
            }
            pass.note_differences(&mut differences);
            checked.findings.append(&mut pass.damaged);
            checked.unpriced(pass.unpriced);
            late::merge(&mut checked.late, pass.late);
            checked.batches = checked.batches.saturating_add(pass.batches);
            checked.rows = checked.rows.saturating_add(pass.rows);
        }
        let told = differences.into_iter();
        checked.findings.extend(told.map(|((id, meter), differs)| differs.told(&id, &meter)));
        let unpriced = std::mem::take(&mut checked.unpriced).into_iter();
        checked.findings.extend(unpriced.map(|((customer, meter), (events, first, last))| {
            let span = Span { from: first.start(), to: last.end() };
            suspense::finding(&customer, &meter, Unbilled::Unpriced, events, span)
        }));
        checked.findings.extend(late::findings(std::mem::take(&mut checked.late)));
        Ok(Some(checked))
    }

    fn read(&self, pass: &mut Pass) -> Result<Result<(), TooMany>, LedgerError> {
        let proceed = |pass: &Pass| match pass.held() > self.keys_max && pass.of < PARTS_MAX {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let mut taken = Ok(());
        self.ledger.visit_stored(&mut |batch| {
            taken = self.take_batch(pass, batch);
            if taken.is_ok() { proceed(pass) } else { ControlFlow::Break(()) }
        })?;
        taken?;
        if proceed(pass).is_break() {
            return Ok(Err(TooMany));
        }
        if pass.part == 0 {
            self.check_ends(pass)?;
        }
        let totals = &self.snapshot.totals;
        totals.visit_all(self.from, self.to, &mut |customer, row| {
            self.take_row(pass, customer, &row);
            proceed(pass)
        })?;
        for batch in self.snapshot.unfolded()? {
            for classed in batch.lines.iter() {
                self.note_unfolded(pass, &classed.line, classed.class);
                self.take_line(pass, &classed.line, classed.class, Pair::take_tail);
            }
        }
        Ok(if proceed(pass).is_break() { Err(TooMany) } else { Ok(()) })
    }

    /// Verifies a batch, and sums the lines that this pass is about.
    fn take_batch(&self, pass: &mut Pass, batch: &StoredBatch<'_>) -> Result<(), StoreError> {
        let head = batch.bytes.get(..HEADER_BYTES).unwrap_or(batch.bytes);
        let header = match Header::decode(head) {
            Ok(header) => header,
            Err(error) => {
                let id = "batch/unreadable".to_owned();
                pass.add_damage(id, Vec::new(), Scope::Global, &error.to_string());
                return Ok(());
            }
        };
        // What was posted after the snapshot.
        let Some(record) = self.record_of(header.stream)? else { return Ok(()) };
        if header.sequence > record.posted_sequence {
            return Ok(());
        }
        if pass.part == 0 {
            pass.batches = pass.batches.saturating_add(1);
            let digest = header.digest();
            let before = pass.chains.insert(header.stream, (header.sequence, digest));
            let continues = before.is_none_or(|(sequence, digest)| {
                header.sequence == sequence.next() && header.previous == digest
            });
            if !continues {
                pass.damage_at(
                    &record,
                    header.sequence,
                    "it does not continue the batch before it",
                );
            }
            // Of retired streams there are many, and nothing follows: where one ends well, it is forgotten.
            if matches!(record, Cow::Owned(_))
                && (record.posted_sequence, record.posted_digest) == (header.sequence, digest)
            {
                pass.chains.remove(&header.stream);
            }
        }
        let is_wanted =
            header.lines > 0 && header.first_bucket < self.to && self.from <= header.last_bucket;
        if batch.quarantined || !is_wanted {
            return Ok(());
        }
        let body = Body::open(&header, batch.bytes.get(HEADER_BYTES..).unwrap_or_default());
        let opened = body.map_err(|error| error.to_string()).and_then(|body| {
            let lines = body.lines.len();
            let marks = Marks::read(batch.marks, lines).map_err(|error| error.to_string())?;
            let suppressed = Suppressed::read(batch.suppressed, lines);
            let suppressed = suppressed.map_err(|error| error.to_string())?;
            Ok((body, marks, suppressed))
        });
        match opened {
            Ok((body, marks, suppressed)) => {
                for (index, line) in body.lines.iter().enumerate() {
                    let place = u32::try_from(index).unwrap_or(u32::MAX);
                    let class = match suppressed.first_of(place) {
                        Some(_) => Class::Suppressed,
                        None => marks.class(index),
                    };
                    self.take_line(pass, line, class, Pair::take_batch);
                    self.note_late(pass, line, class, batch.position);
                }
            }
            Err(reason) if pass.part == 0 => pass.damage_at(&record, header.sequence, &reason),
            Err(_) => {}
        }
        Ok(())
    }

    /// A stream as of the snapshot, live or retired; `None` of one that came later.
    fn record_of(&self, stream: StreamId) -> Result<Option<Cow<'a, StreamRecord>>, StoreError> {
        if let Some(record) = self.streams.get(&stream) {
            return Ok(Some(Cow::Borrowed(*record)));
        }
        let retired = self.snapshot.retired_stream(stream)?;
        Ok(retired.map(|retired| Cow::Owned(retired.record)))
    }

    /// A stream's batches end where its record says.
    fn check_ends(&self, pass: &mut Pass) -> Result<(), StoreError> {
        let mut short = Vec::new();
        for (stream, (sequence, digest)) in &pass.chains {
            let Some(record) = self.record_of(*stream)? else { continue };
            let ends = (record.posted_sequence, record.posted_digest);
            if ends != (*sequence, *digest) {
                short.push((record, sequence.next()));
            }
        }
        short.sort_by_key(|(record, _)| record.stream);
        for (record, sequence) in short {
            pass.damage_at(&record, sequence, "it should be in the ledger and is not");
        }
        Ok(())
    }

    fn take_line(
        &self,
        pass: &mut Pass,
        line: &Line,
        class: Class,
        take: fn(&mut Pair, &Line) -> usize,
    ) {
        let key = &line.key;
        if self.wants(&key.customer, key.bucket) && pass.is_of(key) {
            let more = take(pass.pair((key.clone(), class)), line);
            pass.uniques = pass.uniques.saturating_add(more);
        }
    }

    fn note_late(&self, pass: &mut Pass, line: &Line, class: Class, position: u64) {
        let LineKey { customer, bucket, .. } = &line.key;
        if class == Class::Normal
            && self.invoiced.is_late(customer, *bucket, position)
            && self.wants(customer, *bucket)
            && pass.is_of(&line.key)
        {
            late::note(&mut pass.late, customer, *bucket, line.value.events);
        }
    }

    fn note_unfolded(&self, pass: &mut Pass, line: &Line, class: Class) {
        let key = &line.key;
        if self.wants(&key.customer, key.bucket) && pass.is_of(key) {
            let row = UsageRow {
                class,
                sign: Sign::Added,
                meter: key.meter.clone(),
                dimensions: key.dimensions.clone(),
                bucket: key.bucket,
                usage: (&line.value).into(),
            };
            self.note_unpriced(pass, &key.customer, &row);
        }
    }

    fn take_row(&self, pass: &mut Pass, customer: &CustomerId, row: &UsageRow) {
        if !self.wants(customer, row.bucket) {
            return;
        }
        let key = LineKey {
            meter: row.meter.clone(),
            customer: customer.clone(),
            dimensions: row.dimensions.clone(),
            bucket: row.bucket,
            part: 0,
        };
        if !pass.is_of(&key) {
            return;
        }
        pass.rows = pass.rows.saturating_add(1);
        self.note_unpriced(pass, customer, row);
        let more = pass.pair((key, row.class)).take_row(&row.usage);
        pass.uniques = pass.uniques.saturating_add(more);
    }

    /// A report of everything tells too what no price covers for its dimensions or its time; a run's bills say it
    /// themselves.
    fn note_unpriced(&self, pass: &mut Pass, customer: &CustomerId, row: &UsageRow) {
        let is_asked = matches!(self.wanted, Wanted::Everything) && row.usage.events > 0;
        if is_asked
            && row.class == Class::Normal
            && self.catalog.unbilled(customer, &row.meter).is_none()
            && terms::charged_by(self.catalog, customer, row).is_none()
        {
            let key = (customer.clone(), row.meter.clone());
            let held = pass.unpriced.entry(key).or_insert((0, row.bucket, row.bucket));
            let (events, first, last) = *held;
            let events = events.saturating_add(row.usage.events);
            *held = (events, first.min(row.bucket), last.max(row.bucket));
        }
    }

    fn wants(&self, customer: &CustomerId, bucket: Bucket) -> bool {
        match self.wanted {
            Wanted::Everything => self.from <= bucket && bucket < self.to,
            Wanted::Only(spans) => spans
                .get(customer)
                .is_some_and(|span| span.from <= bucket.start() && bucket.start() < span.to),
        }
    }
}

impl Pass {
    fn new(part: u64, of: u64, span: Span) -> Self {
        Self {
            part,
            of,
            span,
            sums: HashMap::new(),
            uniques: 0,
            batches: 0,
            rows: 0,
            damaged: Vec::new(),
            chains: HashMap::new(),
            unpriced: BTreeMap::new(),
            late: Late::new(),
        }
    }

    /// Whatever part of a line it is of.
    fn is_of(&self, key: &LineKey) -> bool {
        if self.of == 1 {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        (&key.customer, &key.meter, &key.dimensions, key.bucket).hash(&mut hasher);
        hasher.finish().checked_rem(self.of) == Some(self.part)
    }

    fn pair(&mut self, (mut key, class): Key) -> &mut Pair {
        // Lines of one key are summed, whatever part they are of.
        key.part = 0;
        self.sums.entry((key, class)).or_default()
    }

    fn held(&self) -> usize {
        self.sums.len().saturating_add(self.uniques)
    }

    fn damage_at(&mut self, record: &StreamRecord, sequence: Sequence, reason: &str) {
        let (stream, agent) = (record.stream, record.agent.clone());
        let sequences = Some((sequence, sequence));
        let part = StreamPart { stream, agent: agent.clone(), sequences };
        let id = format!("batch/{stream}/{sequence}");
        self.add_damage(id, vec![part], Scope::Billable(agent), reason);
    }

    fn add_damage(&mut self, id: String, streams: Vec<StreamPart>, scope: Scope, reason: &str) {
        if self.damaged.len() == DAMAGED_MAX || self.damaged.iter().any(|held| held.id == id) {
            return;
        }
        self.damaged.push(Finding {
            kind: Kind::DamagedBatch,
            told: format!("a stored batch is damaged ({id}): {reason}"),
            id,
            remedy: "stop the collector, run `tidemark-collector fsck`, and restore a backup"
                .to_owned(),
            events: 0,
            certainty: Certainty::AtLeast,
            quantity: None,
            money: Vec::new(),
            streams,
            meter: None,
            scope,
            span: self.span,
            since: self.span.from,
            cover: None,
        });
    }

    /// What differs, by customer and meter.
    fn note_differences(&mut self, found: &mut Differences) {
        for ((key, _), pair) in self.sums.drain().filter(|(_, pair)| pair.differs()) {
            let LineKey { customer, meter, bucket, dimensions, .. } = key;
            let differs = found.entry((customer, meter)).or_default();
            differs.take(bucket, dimensions, &pair);
        }
    }
}

/// How a customer's totals of a meter differ.
#[derive(Debug, Default)]
struct Difference {
    buckets: Option<(Bucket, Bucket)>,
    keys: u64,
    events_in_totals: u64,
    events_in_batches: u64,
    /// What the totals have more, or less; `None`: beyond 128 bits.
    quantity: Option<Quantity>,
    series: HashSet<Dimensions>,
}

impl Difference {
    fn take(&mut self, bucket: Bucket, dimensions: Dimensions, pair: &Pair) {
        let (first, last) = self.buckets.unwrap_or((bucket, bucket));
        self.buckets = Some((first.min(bucket), last.max(bucket)));
        let more = pair.quantity_more();
        let held = if self.keys == 0 { Some(Quantity(0)) } else { self.quantity };
        self.quantity = held.and_then(|held| held.checked_add(more?));
        self.keys = self.keys.saturating_add(1);
        let (batches, totals) = pair.events();
        self.events_in_batches = self.events_in_batches.saturating_add(batches);
        self.events_in_totals = self.events_in_totals.saturating_add(totals);
        self.series.insert(dimensions);
    }

    fn told(&self, customer: &CustomerId, meter: &MeterName) -> Finding {
        let (first, last) = self.buckets.unwrap_or_default();
        let events = self.events_in_totals.abs_diff(self.events_in_batches);
        let (keys, series) = (self.keys, self.series.len());
        let quantity =
            self.quantity.map_or_else(String::new, |more| format!(", {more} more in quantity"));
        let told = format!(
            "totals of {meter} by {:?} are not what the batches add up to: {} events in place of {}{quantity}; {keys} rows of {series} series",
            customer.as_str(),
            self.events_in_totals,
            self.events_in_batches,
        );
        Finding {
            kind: Kind::TotalsDiffer,
            id: format!("totals/{}/{meter}", customer.as_str()),
            told,
            remedy: "stop the collector, move totals.redb away, and start it: totals are made anew of the batches"
                .to_owned(),
            events,
            certainty: Certainty::Exact,
            quantity: self.quantity,
            money: Vec::new(),
            streams: Vec::new(),
            meter: Some(meter.clone()),
            scope: Scope::Customer(customer.clone()),
            span: Span { from: first.start(), to: last.end() },
            since: first.start(),
            cover: None,
        }
    }
}

/// Whether documents, their states, what periods were invoiced, credit and the entries agree, and the entries' chain
/// holds. Blocks.
///
/// # Errors
/// If the books cannot be read.
pub(super) fn of_books(books: &dyn Books, span: Span) -> Result<Vec<Finding>, StoreError> {
    let (mut check, mut findings) = (BooksCheck::default(), Findings::default());
    books.visit(&[], &[], &mut |key, value| {
        check.row(key, value, &mut findings);
        ControlFlow::Continue(())
    })?;
    if check.is_empty() {
        return Ok(Vec::new());
    }
    let _counts = check.finish(&mut findings);
    let told = findings.iter().take(BOOKS_FINDINGS_MAX).map(|finding| finding.what.clone());
    let found = told.map(|told| Finding {
        kind: Kind::DocumentsDiffer,
        // As stable as what is told.
        id: format!(
            "books/{}",
            hex::encode(&sha256(told.as_bytes())).get(..16).unwrap_or_default()
        ),
        told,
        remedy: "stop the collector, run `tidemark-collector fsck`, and restore a backup"
            .to_owned(),
        events: 0,
        certainty: Certainty::AtLeast,
        quantity: None,
        money: Vec::new(),
        streams: Vec::new(),
        meter: None,
        scope: Scope::Global,
        span,
        since: span.from,
        cover: None,
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests;
