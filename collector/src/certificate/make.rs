//! One certificate, from one snapshot and what reconciliation says of it.
//!
//! **Owns** what stands in head and statement. **Does not own** the order in which a run does things.
//!
//! Reads block, for as long as reading all usage of the time takes. Memory: [`UsageTree`], and a day of one customer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;

use serde::Serialize;
use thiserror::Error;

use tidemark_common::code::EvidenceCode;
use tidemark_common::hex;
use tidemark_common::id::{CustomerId, Digest};
use tidemark_common::time::{Bucket, Timestamp};

use super::keys::Signer;
use super::streams::{Streams, text};
use super::tree::{Keyed, Node, UsageTree};
use super::usage::{DAY_BUCKETS, Days, TextKind, Unfolded, WideSum, customer_digest};
use super::{CertificateFile, Certified, Head, digest, row_key};
use crate::ledger::books::correction;
use crate::ledger::books::rows::{self, Head as Entries};
use crate::ledger::books::{Certify, sha256};
use crate::ledger::store::{Books, StoreError};
use crate::ledger::stream::StreamRecord;
use crate::live::Snapshot;
use crate::reconcile::{Cover, Finding, Reconciliation};

const DAY_MILLIS: i64 = 86_400_000;
/// Two customers have one position once in a great while: not so often in a row.
const SALTS_MAX: u32 = 16;

/// Failed to make a certificate.
#[derive(Debug, Error)]
pub enum CertifyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("failed to certify: {0}")]
    Io(#[from] io::Error),
    #[error(
        "failed to certify: the collector has no key to sign with; its log says why, `tidemark-collector keys rotate` makes another"
    )]
    NoKey,
    #[error("failed to certify: the operating system gives no random bytes, or positions collide")]
    Salt,
}

/// A certificate that is not booked yet, and what proofs are made of.
#[derive(Debug)]
pub struct Made {
    pub certified: Certified,
    pub head: String,
    pub signature: String,
    pub keyed: Keyed,
    pub tree: UsageTree,
    from: Bucket,
    tail: Unfolded,
}

impl Made {
    /// The days that the tree is made of; `snapshot` is the one that was certified.
    #[must_use]
    pub fn days<'a>(&'a self, snapshot: &'a Snapshot) -> Days<'a> {
        Days { snapshot, from: self.from, tail: &self.tail }
    }
}

/// What is certified.
pub struct Cut<'a> {
    pub snapshot: &'a Snapshot,
    pub reconciliation: &'a Reconciliation,
    /// The certificate before.
    pub before: Certified,
    /// As a certificate names it.
    pub state_of: &'a dyn Fn(&StreamRecord) -> &'static str,
}

impl std::fmt::Debug for Cut<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cut").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

#[derive(Debug, Serialize)]
struct Statement<'a> {
    format: &'static str,
    salt: String,
    usage: UsageShown,
    streams: StreamsShown,
    evidence: BTreeMap<String, u64>,
    duplicates: u64,
    findings: Vec<FindingShown<'a>>,
    waivers: Vec<WaiverShown<'a>>,
    policies: Vec<PolicyShown<'a>>,
}

#[derive(Debug, Default, Serialize)]
struct UsageShown {
    customers: u64,
    days: u64,
    rows: u64,
    corrections: u64,
    meters: Vec<MeterShown>,
}

#[derive(Debug, Serialize)]
struct MeterShown {
    meter: String,
    class: &'static str,
    rows: u64,
    events: u128,
    sum: String,
}

#[derive(Debug, Default, Serialize)]
struct StreamsShown {
    listed: u64,
    open: u64,
    closed: u64,
    lost: u64,
    conflict: u64,
    accepted: u64,
    posted: u64,
    quarantined: u64,
    in_transit: u64,
}

#[derive(Debug, Serialize)]
struct FindingShown<'a> {
    id: &'a str,
    kind: &'static str,
    events: u64,
}

#[derive(Debug, Serialize)]
struct WaiverShown<'a> {
    finding: &'a str,
    kind: &'static str,
    events: u64,
    actor: &'a str,
    reason: &'a str,
}

#[derive(Debug, Serialize)]
struct PolicyShown<'a> {
    policy: &'a str,
    signed_by: &'a str,
    streams: u64,
    events: u64,
}

/// Makes the next certificate, and what is to be booked for it.
///
/// # Errors
/// What cannot be read, or signed.
pub fn make(cut: &Cut<'_>, signer: &Signer) -> Result<(Made, Certify), CertifyError> {
    let Cut { snapshot, reconciliation, ref before, .. } = *cut;
    let books = &*snapshot.books;
    let key = signer.key().ok_or(CertifyError::NoKey)?;
    let day = reconciliation.from.0.div_euclid(DAY_MILLIS);
    let from_day = u32::try_from(day).unwrap_or(0);
    let (tail, from) = (Unfolded::of(snapshot)?, Bucket(from_day.saturating_mul(DAY_BUCKETS)));
    let (usage, digests) = usage(&Days { snapshot, from, tail: &tail })?;
    let (salt, keyed, tree) = plant(&digests)?;
    let (streams, streams_root, pieces) = streams(cut)?;
    let (findings, waivers, policies) = findings(&reconciliation.findings);
    let statement = Statement {
        format: "tidemark statement 1",
        salt: hex::encode(&salt),
        usage,
        streams,
        evidence: evidence(snapshot),
        duplicates: duplicates(snapshot),
        findings,
        waivers,
        policies,
    };
    let statement = written(&statement);
    let entries: Entries = rows::get(books, rows::HEAD)?.unwrap_or_default();
    let number = before.number.saturating_add(1);
    let head = written(&Head {
        format: Head::FORMAT.to_owned(),
        ledger: hex::encode(&snapshot.ledger().0),
        number,
        previous: before.sha256.clone(),
        at: reconciliation.at.0,
        as_of: snapshot.ledger_time().0,
        complete_through: reconciliation.complete_through.map(|Timestamp(at)| at),
        from_day,
        batches: snapshot.batches()?,
        entries: entries.entries,
        entries_digest: entries.previous().to_string(),
        usage_root: hex::encode(&tree.root()),
        streams_root: streams_root.to_string(),
        statement_sha256: hex::encode(&sha256(statement.as_bytes())),
        key,
    });
    let signature = signer.sign(&[b"tidemark/certificate/1", head.as_bytes()].concat());
    let signature = signature.ok_or(CertifyError::NoKey)?;
    let certified = Certified { number, sha256: digest(&head) };
    let certify = Certify {
        certified: certified.clone(),
        previous: before.sha256.clone(),
        file: super::file(&head, &signature, &statement),
        streams: pieces,
    };
    Ok((Made { certified, head, signature, keyed, tree, from, tail }, certify))
}

fn written(text: &impl Serialize) -> String {
    serde_json::to_string(text).expect("texts and numbers are JSON")
}

/// Customers and their digests.
type Digests = Vec<(CustomerId, Node)>;

/// All customers' digests, and what their usage comes to.
fn usage(days: &Days<'_>) -> Result<(UsageShown, Digests), StoreError> {
    let mut shown = UsageShown::default();
    let mut meters: BTreeMap<(String, &'static str), (u64, u128, WideSum)> = BTreeMap::new();
    let mut digests = Vec::new();
    for customer in customers(days.snapshot)? {
        let days = days.digests(&customer, &mut |day| {
            shown.days = shown.days.saturating_add(1);
            for text in &day.texts {
                match &text.kind {
                    TextKind::Correction => shown.corrections = shown.corrections.saturating_add(1),
                    TextKind::Row { events, sum } => {
                        shown.rows = shown.rows.saturating_add(1);
                        let key = (text.meter.as_str().to_owned(), text.class.name());
                        let held = meters.entry(key).or_default();
                        held.0 = held.0.saturating_add(1);
                        held.1 = held.1.saturating_add(*events);
                        held.2.merge(*sum);
                    }
                }
            }
        })?;
        if !days.is_empty() {
            let digest = customer_digest(&customer, &days);
            digests.push((customer, digest));
        }
    }
    shown.customers = u64::try_from(digests.len()).unwrap_or(u64::MAX);
    let of_meter = |((meter, class), (rows, events, sum)): ((_, _), (_, _, WideSum))| MeterShown {
        meter,
        class,
        rows,
        events,
        sum: sum.text(),
    };
    shown.meters = meters.into_iter().map(of_meter).collect();
    Ok((shown, digests))
}

/// Everybody who has usage, or corrections of it.
fn customers(snapshot: &Snapshot) -> Result<BTreeSet<CustomerId>, StoreError> {
    let mut customers = correction::customers(&*snapshot.books)?;
    snapshot.visit_seen(&[], |seen| {
        customers.insert(seen.customer);
        ControlFlow::Continue(())
    })?;
    Ok(customers)
}

/// The tree under a salt by which no two customers have one position.
fn plant(digests: &[(CustomerId, Node)]) -> Result<([u8; 32], Keyed, UsageTree), CertifyError> {
    for _ in 0..SALTS_MAX {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|_| CertifyError::Salt)?;
        let keyed = Keyed::new(&salt);
        let placed = digests.iter().map(|(id, digest)| (keyed.position(id), *digest)).collect();
        if let Ok(tree) = UsageTree::new(keyed.clone(), placed) {
            return Ok((salt, keyed, tree));
        }
    }
    Err(CertifyError::Salt)
}

fn streams(cut: &Cut<'_>) -> Result<(StreamsShown, Digest, Vec<Vec<u8>>), CertifyError> {
    let Cut { snapshot, before, state_of, .. } = cut;
    let retired = &*snapshot.retired_sums;
    let mut shown = StreamsShown {
        closed: retired.streams,
        accepted: retired.accepted,
        posted: retired.posted_events(),
        quarantined: retired.quarantined_events,
        in_transit: retired.in_transit,
        ..StreamsShown::default()
    };
    let mut texts = Vec::with_capacity(snapshot.records.len());
    for record in &snapshot.records {
        let state = state_of(record);
        let count = match state {
            "open" => &mut shown.open,
            "closed" => &mut shown.closed,
            "lost" => &mut shown.lost,
            _ => &mut shown.conflict,
        };
        *count = count.saturating_add(1);
        let posted = record.posted_end.0.saturating_sub(record.quarantined_events);
        shown.accepted = shown.accepted.saturating_add(record.accepted);
        shown.posted = shown.posted.saturating_add(posted);
        shown.quarantined = shown.quarantined.saturating_add(record.quarantined_events);
        shown.in_transit = shown.in_transit.saturating_add(record.in_transit());
        texts.push((record.stream, text(record, state)));
    }
    let since = as_of(&*snapshot.books, before)?;
    let _all = snapshot.visit_retired(since, |retired| {
        let record = &retired.record;
        texts.push((record.stream, text(record, state_of(record))));
        ControlFlow::Continue(())
    })?;
    texts.sort_unstable();
    let mut streams = Streams::default();
    for (_, text) in &texts {
        streams.add(text)?;
    }
    let (listed, root, pieces) = streams.finish()?;
    shown.listed = listed;
    Ok((shown, root, pieces))
}

/// When the cut of an earlier certificate was; before the first, the beginning.
fn as_of(books: &dyn Books, certified: &Certified) -> Result<Timestamp, StoreError> {
    let file: Option<CertificateFile> = rows::get(books, &row_key(certified.number))?;
    let Some(file) = file else { return Ok(Timestamp(0)) };
    let head: Result<Head, _> = serde_json::from_str(&file.head);
    head.map(|head| Timestamp(head.as_of)).map_err(|error| StoreError::books(error.to_string()))
}

fn duplicates(snapshot: &Snapshot) -> u64 {
    let retired = snapshot.retired_sums.duplicates;
    snapshot.records.iter().fold(retired, |sum, one| sum.saturating_add(one.duplicates))
}

/// What all agents counted, by name.
fn evidence(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let retired = snapshot.retired_sums.evidence.iter().map(|(code, count)| (*code, *count));
    let live = snapshot.records.iter().flat_map(|record| record.evidence.iter());
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (code, count) in retired.chain(live) {
        let name = match EvidenceCode::from_number(code) {
            Some(code) => code.name().to_owned(),
            None => format!("code_{code}"),
        };
        let sum = sums.entry(name).or_default();
        *sum = sum.saturating_add(count);
    }
    sums
}

/// What nothing covers, what persons waived, and what policies cover.
fn findings(
    findings: &[Finding],
) -> (Vec<FindingShown<'_>>, Vec<WaiverShown<'_>>, Vec<PolicyShown<'_>>) {
    let (mut open, mut waived) = (Vec::new(), Vec::new());
    let mut policies: BTreeMap<&str, PolicyShown<'_>> = BTreeMap::new();
    for Finding { kind, id, events, cover, .. } in findings {
        let (kind, events) = (*kind, *events);
        match cover {
            None if kind.class().blocks() => {
                open.push(FindingShown { id, kind: kind.name(), events });
            }
            None => {}
            Some(Cover::Waiver { actor, reason, .. }) => {
                waived.push(WaiverShown { finding: id, kind: kind.name(), events, actor, reason });
            }
            Some(Cover::Policy { name, signed_by }) => {
                let zero = PolicyShown { policy: name, signed_by, streams: 0, events: 0 };
                let sum = policies.entry(name).or_insert(zero);
                sum.streams = sum.streams.saturating_add(1);
                sum.events = sum.events.saturating_add(events);
            }
        }
    }
    (open, waived, policies.into_values().collect())
}
