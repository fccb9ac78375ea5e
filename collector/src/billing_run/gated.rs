//! A run's one cut, and its gate.
//!
//! ```text
//! snapshot --draft--> what is due --quick: streams, lists, waivers--> kept back
//!                                 --deep: totals from the batches---> kept back, or on to the books
//! ```
//! **Owns** that usage, gate and every draft of a run are of one snapshot, and that what costs reading is read once, when
//! the first draft needs it: a run of which nothing is due reads no batch. **Does not own** findings (`reconcile`).
//!
//! Reads block.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tidemark_common::id::CustomerId;
use tidemark_common::time::Bucket;

use super::reading::{Drafted, Reading, why_blocked};
use super::{KeptBack, Mode, Problem, RunRequest};
use crate::billing::Terms;
use crate::catalog::Catalog;
use crate::certificate::make::Made;
use crate::ledger::books::{Paper, rows};
use crate::ledger::store::Books;
use crate::ledger::{Ledger, LedgerError, Snapshot};
use crate::reconcile::{Due, Gate, Reconciling, RunWaiver, Span, Wanted, default_cut, waivers};

/// What all drafts of a run are made of.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(super) ledger: Ledger,
    pub(super) catalog: Arc<Catalog>,
    pub(super) request: Arc<RunRequest>,
    pub(super) snapshot: Snapshot,
    blocked: Option<String>,
    waiver: Option<RunWaiver>,
    quick: OnceLock<Result<Gate, LedgerError>>,
    deep: OnceLock<Result<Gate, LedgerError>>,
    /// Of a run that issues (`certifying.rs`).
    pub(super) made: OnceLock<Result<Made, String>>,
}

impl Gated {
    pub(super) fn open(
        ledger: &Ledger,
        catalog: Arc<Catalog>,
        request: Arc<RunRequest>,
    ) -> Result<Self, LedgerError> {
        let snapshot = ledger.snapshot()?;
        let blocked = why_blocked(&catalog, &*snapshot.books)?;
        let reason = request.although_incomplete.clone();
        let waiver = reason.map(|reason| RunWaiver { actor: request.actor.clone(), reason });
        let (quick, deep, made) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let ledger = ledger.clone();
        Ok(Self { ledger, catalog, request, snapshot, blocked, waiver, quick, deep, made })
    }

    pub(super) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// What is due of a customer, by the run's snapshot and by `books`, unless findings keep it back.
    pub(super) fn draft_for(&self, books: &dyn Books, id: &CustomerId) -> Result<Drafted, Problem> {
        let drafted = self.reading().draft_for(books, id)?;
        let Drafted::Draft { mut issue, bill, due, provenance, .. } = drafted else {
            return Ok(drafted);
        };
        let kept_back = match &due {
            Some(due) => self.keeps_back(id, due)?,
            None => None,
        };
        match (kept_back, self.request.mode) {
            (Some(kept_back), Mode::Issue) => Err(Problem::KeptBack(Box::new(kept_back))),
            (kept_back, mode) => {
                if mode == Mode::Issue && issue.paper == Paper::Document {
                    self.prove(id, &mut issue, &provenance)?;
                }
                Ok(Drafted::Draft { issue, bill, due, kept_back, provenance })
            }
        }
    }

    pub(super) fn reading(&self) -> Reading<'_> {
        let Self { catalog, snapshot, request, .. } = self;
        Reading { catalog, snapshot, request, blocked: self.blocked.clone() }
    }

    /// What the customer waits for; batches are read only if there is nothing else.
    fn keeps_back(&self, id: &CustomerId, due: &Due) -> Result<Option<KeptBack>, Problem> {
        let quick = self.quick()?.keeps_back(&self.catalog, id, due);
        if !quick.is_empty() {
            return Ok(Some(KeptBack { findings: quick }));
        }
        let findings = self.deep()?.keeps_back(&self.catalog, id, due);
        Ok((!findings.is_empty()).then_some(KeptBack { findings }))
    }

    fn quick(&self) -> Result<&Gate, LedgerError> {
        let gate = self.quick.get_or_init(|| {
            let quick = self.reconciling().quick(self.cut()?)?;
            let waivers = waivers(&*self.snapshot.books)?;
            Ok(Gate::new(&self.catalog, quick, waivers, self.waiver.clone()))
        });
        gate.as_ref().map_err(Clone::clone)
    }

    /// The whole reconciliation of the run, with the totals of all that it may issue. It is made once, before the first
    /// document that passes is booked, and does not change after: what certifies the cut that this run's documents cite
    /// is made here, of the snapshot and of this.
    pub(super) fn deep(&self) -> Result<&Gate, LedgerError> {
        let gate = self.deep.get_or_init(|| {
            let quick = &self.quick()?.reconciliation;
            let wanted = self.due_spans()?;
            let deep = self.reconciling().deepen(quick, Wanted::Only(&wanted))?;
            let waivers = waivers(&*self.snapshot.books)?;
            Ok(Gate::new(&self.catalog, deep, waivers, self.waiver.clone()))
        });
        gate.as_ref().map_err(Clone::clone)
    }

    fn reconciling(&self) -> Reconciling<'_> {
        Reconciling {
            ledger: &self.ledger,
            catalog: &self.catalog,
            snapshot: &self.snapshot,
            settings: &self.request.settings.reconcile,
            run: self.waiver.as_ref(),
        }
    }

    /// The usual cut, or the last end of periods that are due now, if that is after it.
    fn cut(&self) -> Result<Bucket, LedgerError> {
        let mut cut = default_cut(&self.snapshot);
        let mut zones: BTreeMap<&str, Bucket> = BTreeMap::new();
        for customer in self.catalog.customers.values() {
            let zone = &customer.zone;
            if !zones.contains_key(zone.name())
                && let Ok(edge) = zone.start_of(self.request.date)
            {
                zones.insert(zone.name(), edge);
            }
        }
        for edge in zones.into_values().filter(|edge| self.is_over(*edge)) {
            cut = cut.max(edge);
        }
        Ok(cut)
    }

    fn is_over(&self, edge: Bucket) -> bool {
        let due = edge.start().plus_millis(self.request.settings.grace_millis);
        due <= self.snapshot.ledger_time()
    }

    /// The billed time of every customer that this run may issue a document for.
    fn due_spans(&self) -> Result<BTreeMap<CustomerId, Span>, LedgerError> {
        let (date, mut spans) = (self.request.date, BTreeMap::new());
        let asked = self.request.customers.as_ref();
        let is_asked = |id: &CustomerId| asked.is_none_or(|asked| asked.contains(id));
        for (id, customer) in self.catalog.customers.iter().filter(|(id, _)| is_asked(id)) {
            let run = rows::customer_key(rows::RUNS, id, date.to_string().as_bytes());
            let Ok(edge) = customer.zone.start_of(date) else { continue };
            if !self.is_over(edge) || self.snapshot.books.get(&run)?.is_some() {
                continue;
            }
            let before = edge.start().plus_millis(-1);
            let ending = Terms::chosen(&self.catalog, (id, customer), before, |section| {
                section.period.end == edge
            });
            if let Ok(Some(ending)) = ending {
                spans.insert(id.clone(), ending.span().into());
            }
        }
        Ok(spans)
    }
}
