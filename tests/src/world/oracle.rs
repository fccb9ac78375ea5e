//! What must be true of a world: every promise, checked against what was sent and what was told.
//!
//! **Owns** the rules, in few lines each. It knows no mechanism of the product: only events, answers, what a
//! snapshot of the ledger shows, and the batches that crossed the network.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_collector::ledger::redb::RedbStore;
use tidemark_collector::ledger::store::{LedgerStore as _, UsageQuestion};
use tidemark_collector::ledger::{Missing, Snapshot, StreamState, StreamStatus};
use tidemark_collector::live::ReadError;
use tidemark_common::batch::{Body, Dimensions, SealedBatch, genesis};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{CustomerId, Digest, EventNumber, Sequence, StreamId};
use tidemark_common::time::{Bucket, Timestamp};

use super::collector::{Acknowledged, at_once};
use super::load::{Load, Series};
use super::uplink::Shipped;

const ROWS_MAX: u64 = 1_000_000;

/// A promise that was broken.
pub type Broken = String;

/// Which events are posted: for each series a bit an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Posted(BTreeMap<usize, u128>);

impl Posted {
    /// Adds the sum of some events of a series. Each event is a power of two, so a sum that does not show
    /// as many events as were counted, or one that is there already, was counted more than once.
    fn add(&mut self, load: &Load, series: &Series, sum: i128, events: u64) -> Result<(), Broken> {
        let number = load.find(series).ok_or_else(|| format!("nobody sent for {series:?}"))?;
        let sum = u128::try_from(sum).map_err(|_| format!("{series:?}: the sum is negative"))?;
        let held = self.0.entry(number).or_default();
        if u64::from(sum.count_ones()) != events || *held & sum != 0 {
            return Err(format!(
                "counted more than once: {series:?} holds {events} events with the sum {sum:#x} beside {held:#x}"
            ));
        }
        *held |= sum;
        Ok(())
    }

    fn holds(&self, load: &Load, event: usize) -> bool {
        let event = &load.events[event];
        self.0.get(&event.series).is_some_and(|bits| bits >> event.bit & 1 == 1)
    }

    /// Both together: what one holds, the other must not.
    pub fn and(mut self, other: &Self) -> Result<Self, Broken> {
        for (series, bits) in &other.0 {
            let held = self.0.entry(*series).or_default();
            if *held & bits != 0 {
                return Err(format!("counted in two ledgers: series {series}"));
            }
            *held |= bits;
        }
        Ok(self)
    }

    #[must_use]
    pub fn events(&self) -> u32 {
        self.0.values().map(|bits| bits.count_ones()).sum()
    }
}

/// What the promises are checked against, besides the load.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Journals that two hosts had, or that were rolled back: what they were told may be held by a file that
    /// was set aside. Nothing of it may be counted twice all the same.
    pub contested: BTreeSet<StreamId>,
    /// Events whose journal was destroyed after they were told.
    pub destroyed: BTreeSet<usize>,
    /// What crossed the network, by stream and sequence.
    shipped: BTreeMap<(StreamId, Sequence), Vec<u8>>,
    /// Up to where each collector said that a stream is posted.
    acknowledged: BTreeMap<(usize, StreamId), Sequence>,
    ledger_time: BTreeMap<usize, Timestamp>,
    /// Streams of which a restored ledger lacks what their journals have forgotten.
    pub lacking: BTreeSet<StreamId>,
}

impl Oracle {
    /// Numbered means frozen: a batch never changes.
    pub fn shipped(&mut self, shipped: Shipped) -> Result<(), Broken> {
        let Shipped { header, bytes } = shipped;
        if self.contested.contains(&header.stream) {
            return Ok(());
        }
        let first =
            self.shipped.entry((header.stream, header.sequence)).or_insert_with(|| bytes.clone());
        if *first != bytes {
            return Err(format!(
                "not byte-identical: batch {} of stream {} was sent before with other bytes",
                header.sequence, header.stream
            ));
        }
        Ok(())
    }

    /// What crossed the network, by stream and sequence.
    pub fn batches(&self) -> impl Iterator<Item = (&(StreamId, Sequence), &Vec<u8>)> {
        self.shipped.iter().filter(|((stream, _), _)| !self.contested.contains(stream))
    }

    pub fn acknowledged(&mut self, collector: usize, said: Acknowledged) {
        let known = self.acknowledged.entry((collector, said.stream)).or_insert(said.posted);
        *known = said.posted.max(*known);
    }

    /// What a ledger names as missing is just what was sent to it once.
    pub fn missing(&mut self, stream: StreamId, missing: Missing) -> Result<(), Broken> {
        self.lacking.insert(stream);
        if self.contested.contains(&stream) {
            return Ok(());
        }
        let mut sent = 0;
        for (_, bytes) in self.shipped.range((stream, missing.first)..=(stream, missing.last)) {
            let (header, _) = SealedBatch::split(bytes).map_err(|error| error.to_string())?;
            sent += header.events();
        }
        if sent != missing.events {
            return Err(format!(
                "stream {stream}: {missing:?} held {sent} events when it was sent"
            ));
        }
        Ok(())
    }

    /// The ledger was replaced by an older one.
    pub fn restored(&mut self, collector: usize) {
        self.acknowledged.retain(|(of, _), _| *of != collector);
        self.ledger_time.remove(&collector);
    }

    /// Ledger time never goes back.
    pub fn ledger_time(&mut self, collector: usize, read: Timestamp) -> Result<(), Broken> {
        match self.ledger_time.insert(collector, read) {
            Some(before) if before > read => {
                Err(format!("ledger time went back from {before:?} to {read:?}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What may be checked at any moment: nothing is counted twice, what was acknowledged is in the ledger,
    /// and all that was accepted before `complete_through` is there.
    pub fn check(
        &self,
        collector: usize,
        snapshot: &Snapshot,
        load: &Load,
    ) -> Result<Posted, Broken> {
        let posted = posted(snapshot, load)?;
        let known: BTreeMap<StreamId, Sequence> = snapshot.posted().collect();
        for ((_, stream), said) in self.acknowledged.iter().filter(|((of, _), _)| *of == collector)
        {
            let is = known.get(stream).copied().unwrap_or(Sequence::ZERO);
            if is < *said {
                return Err(format!(
                    "acknowledged and not in the ledger: batch {said} of stream {stream}, which is at {is}"
                ));
            }
        }
        for status in snapshot.streams() {
            if status.accepted
                != status.posted_events + status.quarantined_events + status.in_transit
            {
                return Err(format!("not conserved: {status:?}"));
            }
        }
        if collector == 0
            && let Some(through) = snapshot.complete_through().through
        {
            // A stream that is closed may begin again, and is late then, as one that nobody knows is.
            let open: BTreeSet<StreamId> = snapshot
                .streams()
                .iter()
                .filter(|status| status.state != StreamState::Closed)
                .map(|status| status.stream)
                .collect();
            let before = |event: &usize| {
                load.events[*event].told.is_some_and(|told| {
                    told.ledger_time.is_some_and(|at| at < through)
                        && open.contains(&told.stream)
                        && !self.contested.contains(&told.stream)
                })
            };
            let missing = (0..load.events.len())
                .filter(|event| !self.destroyed.contains(event))
                .filter(before)
                .find(|event| !posted.holds(load, *event));
            if let Some(event) = missing {
                return Err(format!(
                    "not complete through {through:?}: event {event} ({:?}) is not posted",
                    load.events[event].told
                ));
            }
        }
        Ok(posted)
    }

    /// Durable means billed once: all that anybody was told is posted, unless its journal is known to be lost.
    pub fn check_told(&self, posted: &Posted, load: &Load) -> Result<(), Broken> {
        for (event, sent) in load.events.iter().enumerate() {
            let Some(told) = sent.told else { continue };
            let excused = self.contested.contains(&told.stream)
                || self.lacking.contains(&told.stream)
                || self.destroyed.contains(&event);
            if !excused && !posted.holds(load, event) {
                return Err(format!(
                    "told and not posted: event {event} of {:?}, accepted by stream {}",
                    load.series[sent.series], told.stream
                ));
            }
        }
        Ok(())
    }

    /// Nothing is dropped in silence: what applications were told is rejected, the ledger has counted.
    pub fn check_rejected(&self, snapshots: &[&Snapshot], load: &Load) -> Result<(), Broken> {
        for (stream, told) in &load.rejected {
            let counted = |status: &StreamStatus| -> u64 {
                let codes = EvidenceCode::ALL.into_iter().filter(|code| code.is_rejection());
                codes.map(|code| status.evidence.get(code)).sum()
            };
            let counted: u64 = statuses(snapshots, *stream).iter().map(counted).sum();
            let excused = self.contested.contains(stream) || self.lacking.contains(stream);
            if counted < *told && !excused {
                return Err(format!(
                    "rejected in silence: stream {stream} told of {told} rejections, {counted} are counted"
                ));
            }
        }
        Ok(())
    }
}

/// What each ledger says of a stream. An agent whose Welcome was lost is known to a ledger that it never
/// sent anything to.
pub fn statuses(snapshots: &[&Snapshot], stream: StreamId) -> Vec<StreamStatus> {
    let all = snapshots.iter().flat_map(|snapshot| snapshot.streams());
    all.filter(|status| status.stream == stream).cloned().collect()
}

fn posted(snapshot: &Snapshot, load: &Load) -> Result<Posted, Broken> {
    let mut posted = Posted::default();
    for customer in load.customers() {
        let id = CustomerId::parse(customer).map_err(|error| error.to_string())?;
        let question =
            UsageQuestion { customer: &id, meter: None, from: Bucket(0), to: Bucket(u32::MAX) };
        let mut broken = None;
        snapshot
            .visit_usage::<ReadError>(&question, ROWS_MAX, |row| {
                let series = series(customer, row.meter.as_str(), &row.dimensions);
                let added = posted.add(load, &series, row.usage.sum.0, row.usage.events);
                broken = broken.take().or(added.err());
                Ok(())
            })
            .map_err(|error| error.to_string())?;
        if let Some(broken) = broken {
            return Err(broken);
        }
    }
    Ok(posted)
}

fn series(customer: &str, meter: &str, dimensions: &Dimensions) -> Series {
    let plan = dimensions.value("plan").unwrap_or_default().to_owned();
    Series { customer: customer.to_owned(), meter: meter.to_owned(), plan }
}

/// A gap is never skipped, and usage is what the stored batches add up to: read back one by one, their chain
/// and their numbers have no holes, and together they hold just what a snapshot shows.
pub fn check_batches(
    store: &RedbStore,
    snapshot: &Snapshot,
    shown: &Posted,
    load: &Load,
    strangers: &BTreeSet<StreamId>,
) -> Result<(), Broken> {
    let mut recomputed = Posted::default();
    for (stream, last) in snapshot.posted() {
        let mut before: (Digest, EventNumber) =
            (genesis(snapshot.ledger(), stream), EventNumber(0));
        for sequence in (1..=last.0).map(Sequence) {
            let bytes = at_once(Box::pin(store.batch(stream, sequence)))
                .map_err(|error| error.to_string())?
                .ok_or_else(|| format!("batch {sequence} of stream {stream} is not stored"))?;
            let (header, stored) = SealedBatch::split(&bytes).map_err(|error| error.to_string())?;
            if (header.previous, header.first_event) != before || header.sequence != sequence {
                return Err(format!("the chain of stream {stream} breaks at batch {sequence}"));
            }
            before = (header.digest(), header.end_event);
            if strangers.contains(&stream) {
                continue;
            }
            let body = Body::open(&header, stored)
                .map_err(|error| format!("batch {sequence} of stream {stream}: {error}"))?;
            for line in body.lines {
                let (key, value) = (line.key, line.value);
                let series = series(key.customer.as_str(), key.meter.as_str(), &key.dimensions);
                recomputed.add(load, &series, value.sum.0, value.events)?;
            }
        }
    }
    if recomputed != *shown {
        return Err("usage is not what the stored batches add up to".to_owned());
    }
    Ok(())
}
