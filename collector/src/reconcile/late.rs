//! Usage that came after its period was invoiced.
//!
//! **Owns** which usage that is: of a customer's billed periods, in batches that the certificate of the last document about
//! them does not count. **Does not own** what is done about it: the next billing run rates the period anew, and charges the
//! difference.
//!
//! Documents of before there were certificates say nothing of what they were made of.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::Deserialize;
use tidemark_common::id::CustomerId;
use tidemark_common::time::Bucket;

use super::{Certainty, Finding, Kind, Scope, Span};
use crate::certificate::{self, CertificateFile, Head};
use crate::invoice::CutShown;
use crate::ledger::books::rows::{self, DocumentState, Effect, StateRow};
use crate::ledger::store::{Books, StoreError};

/// What was invoiced, by customer.
#[derive(Debug, Default)]
pub(super) struct Invoiced(HashMap<CustomerId, Vec<Billed>>);

/// A period whose usage was charged, and how many batches were counted then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Billed {
    from: Bucket,
    to: Bucket,
    batches: u64,
}

/// Late events by customer, with their first and last bucket.
pub(super) type Late = BTreeMap<CustomerId, (u64, Bucket, Bucket)>;

/// Of a document what says which usage was read.
#[derive(Deserialize)]
struct OfCut {
    #[serde(default)]
    cut: Option<CutShown>,
}

impl Invoiced {
    /// # Errors
    /// If the books cannot be read.
    pub(super) fn of(books: &dyn Books, span: Span) -> Result<Self, StoreError> {
        let mut documents: Vec<(String, CustomerId)> = Vec::new();
        rows::visit(books, rows::STATES, |number, row: StateRow| {
            let number = String::from_utf8_lossy(number).into_owned();
            let customer = CustomerId::parse(&row.customer).ok();
            if row.state != DocumentState::Void {
                documents.extend(customer.map(|customer| (number, customer)));
            }
        })?;
        let (mut invoiced, mut counted) = (Self::default(), BTreeMap::new());
        for (number, customer) in documents {
            let effect: Option<Effect> =
                rows::get(books, &rows::key(rows::EFFECTS, number.as_bytes()))?;
            let charged = effect.into_iter().flat_map(|effect| effect.periods);
            let charged = charged.filter(|change| change.scope == rows::Scope::Whole);
            let periods: Vec<_> = charged.map(|change| change.period()).collect();
            let is_asked = |to: Bucket| to.start() > span.from;
            if !periods.iter().any(|period| is_asked(period.end)) {
                continue;
            }
            let document: Option<OfCut> =
                rows::get(books, &rows::key(rows::DOCUMENTS, number.as_bytes()))?;
            let cut = document.and_then(|document| document.cut?.certificate);
            let Some(batches) = cut
                .map(|certified| batches_of(books, certified.number, &mut counted))
                .transpose()?
                .flatten()
            else {
                continue;
            };
            let held = invoiced.0.entry(customer).or_default();
            held.extend(periods.into_iter().map(|period| Billed {
                from: period.start,
                to: period.end,
                batches,
            }));
        }
        Ok(invoiced)
    }

    /// Whether usage of a batch at this position was invoiced without it.
    pub(super) fn is_late(&self, customer: &CustomerId, bucket: Bucket, position: u64) -> bool {
        let held = self.0.get(customer).into_iter().flatten();
        let of_it = held.filter(|billed| billed.from <= bucket && bucket < billed.to);
        // A later document may have charged it.
        of_it.map(|billed| billed.batches).max().is_some_and(|batches| batches <= position)
    }
}

/// How many batches a certificate counts.
fn batches_of(
    books: &dyn Books,
    number: u64,
    known: &mut BTreeMap<u64, Option<u64>>,
) -> Result<Option<u64>, StoreError> {
    if let Some(batches) = known.get(&number) {
        return Ok(*batches);
    }
    let file: Option<CertificateFile> = rows::get(books, &certificate::row_key(number))?;
    let head = file.and_then(|file| serde_json::from_str::<Head>(&file.head).ok());
    let batches = head.map(|head| head.batches);
    known.insert(number, batches);
    Ok(batches)
}

/// Takes note of late events.
pub(super) fn note(late: &mut Late, customer: &CustomerId, bucket: Bucket, events: u64) {
    let (sum, first, last) = late.get(customer).copied().unwrap_or((0, bucket, bucket));
    let held = (sum.saturating_add(events), first.min(bucket), last.max(bucket));
    late.insert(customer.clone(), held);
}

/// Adds what another part found.
pub(super) fn merge(late: &mut Late, more: Late) {
    for (customer, (events, first, last)) in more {
        note(late, &customer, first, events);
        note(late, &customer, last, 0);
    }
}

pub(super) fn findings(late: Late) -> impl Iterator<Item = Finding> {
    late.into_iter().map(|(customer, (events, first, last))| Finding {
        kind: Kind::Late,
        id: format!("late/{}", customer.as_str()),
        told: format!("{events} events of {customer} came after their period was invoiced"),
        remedy: "nothing: the next billing run charges the difference".to_owned(),
        events,
        certainty: Certainty::Exact,
        quantity: None,
        money: Vec::new(),
        streams: Vec::new(),
        meter: None,
        scope: Scope::Nobody,
        span: Span { from: first.start(), to: last.end() },
        since: first.start(),
        cover: None,
    })
}
