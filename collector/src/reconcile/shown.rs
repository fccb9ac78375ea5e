//! A report as JSON, for the API and the command line alike.
//!
//! **Owns** names and shapes; quantities are decimal texts. **Does not own** any figure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Certainty, Concerned, Cover, Finding, Reconciliation, Scope};
use crate::catalog::Catalog;
use crate::money::Money;
use crate::period::Zone;

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct ReportShown {
    pub ledger: String,
    /// The ledger time of the snapshot.
    pub as_of: String,
    /// The cut: findings are of the time from `from` to it.
    pub at: String,
    pub from: String,
    pub complete_through: Option<String>,
    /// `quick`: totals were not recomputed, and the books not checked.
    pub depth: &'static str,
    /// No finding keeps an invoice back.
    pub passes: bool,
    pub counts: CountsShown,
    pub findings: Vec<FindingShown>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CountsShown {
    /// By state: open, closed, lost, conflict.
    pub streams: BTreeMap<&'static str, u64>,
    pub events_accepted: u64,
    pub events_posted: u64,
    pub events_quarantined: u64,
    pub events_in_transit: u64,
    /// Read to recompute totals.
    pub batches_read: u64,
    pub rows_compared: u64,
    /// Findings that keep invoices back, and those that are waived or covered.
    pub blocking: u64,
    pub covered: u64,
}

/// One finding.
#[derive(Debug, Clone, Serialize)]
pub struct FindingShown {
    /// The same at every reconciliation: what a waiver names.
    pub id: String,
    pub class: &'static str,
    pub kind: &'static str,
    /// Whether invoices wait for it.
    pub blocks: bool,
    pub told: String,
    pub remedy: String,
    pub events: u64,
    pub certainty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<String>,
    /// What the events may come to, in a full report: of each currency the greatest of the customers concerned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<Exposed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
    pub streams: Vec<StreamShown>,
    pub scope: &'static str,
    /// Whose streams it is about, where it keeps back whom they may bill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The first of the customers that it may keep back, and how many they are.
    pub customers: Vec<String>,
    pub customers_concerned: usize,
    pub from: String,
    pub to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cover: Option<CoverShown>,
}

/// An estimate, by the average of a customer's bill, as if all were its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    pub amount: String,
    pub currency: String,
}

impl Exposed {
    /// For people; `None` where nobody can say.
    #[must_use]
    pub fn told(exposed: &[Self]) -> Option<String> {
        let each = exposed.iter().map(|Self { amount, currency }| format!("{amount} {currency}"));
        let all: Vec<_> = each.collect();
        (!all.is_empty()).then(|| format!("up to {} for one customer", all.join(" or ")))
    }
}

impl From<Money> for Exposed {
    fn from(money: Money) -> Self {
        Self { amount: money.amount(), currency: money.currency.to_string() }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct StreamShown {
    pub stream: String,
    pub agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sequence: Option<u64>,
}

/// Why no invoice waits for it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CoverShown {
    Waiver {
        #[serde(skip_serializing_if = "Option::is_none")]
        entry: Option<u64>,
        actor: String,
        reason: String,
    },
    Policy {
        name: String,
        signed_by: String,
    },
}

impl ReportShown {
    #[must_use]
    pub fn of(report: &Reconciliation, catalog: &Catalog) -> Self {
        let utc = Zone::utc();
        let mut concerned = Concerned::new(catalog);
        let findings = report.findings.iter().map(|finding| shown(finding, &mut concerned, &utc));
        let findings: Vec<_> = findings.collect();
        let count = |is: fn(&Finding) -> bool| {
            u64::try_from(report.findings.iter().filter(|finding| is(finding)).count())
                .unwrap_or(u64::MAX)
        };
        let blocking = count(Finding::blocks);
        let counts = &report.counts;
        Self {
            ledger: report.ledger.to_string(),
            as_of: utc.rfc3339(report.as_of),
            at: utc.rfc3339(report.at),
            from: utc.rfc3339(report.from),
            complete_through: report.complete_through.map(|through| utc.rfc3339(through)),
            depth: report.depth.name(),
            passes: blocking == 0,
            counts: CountsShown {
                streams: counts.streams.clone(),
                events_accepted: counts.events_accepted,
                events_posted: counts.events_posted,
                events_quarantined: counts.events_quarantined,
                events_in_transit: counts.events_in_transit,
                batches_read: counts.batches,
                rows_compared: counts.rows,
                blocking,
                covered: count(|finding| finding.cover.is_some()),
            },
            findings,
        }
    }
}

fn shown(finding: &Finding, concerned: &mut Concerned<'_>, utc: &Zone) -> FindingShown {
    let customers = concerned.of(finding);
    let (scope, identity) = match &finding.scope {
        Scope::Global => ("global", None),
        Scope::Billable(agent) => ("billable", Some(agent.to_string())),
        Scope::Customer(_) => ("customer", None),
        Scope::Nobody => ("nobody", None),
    };
    FindingShown {
        id: finding.id.clone(),
        class: finding.kind.class().name(),
        kind: finding.kind.name(),
        blocks: finding.blocks(),
        told: finding.told.clone(),
        remedy: finding.remedy.clone(),
        events: finding.events,
        certainty: match finding.certainty {
            Certainty::Exact => "exact",
            Certainty::Estimated => "estimated",
            Certainty::AtLeast => "at_least",
        },
        quantity: finding.quantity.map(|quantity| quantity.to_string()),
        exposed: finding.money.iter().copied().map(Exposed::from).collect(),
        meter: finding.meter.as_ref().map(ToString::to_string),
        streams: finding
            .streams
            .iter()
            .map(|part| StreamShown {
                stream: part.stream.to_string(),
                agent: part.agent.to_string(),
                first_sequence: part.sequences.map(|(first, _)| first.0),
                last_sequence: part.sequences.map(|(_, last)| last.0),
            })
            .collect(),
        scope,
        identity,
        customers: customers.first.into_iter().map(str::to_owned).collect(),
        customers_concerned: customers.count,
        from: utc.rfc3339(finding.span.from),
        to: utc.rfc3339(finding.span.to),
        cover: finding.cover.as_ref().map(|cover| match cover {
            Cover::Waiver { entry, actor, reason } => {
                CoverShown::Waiver { entry: *entry, actor: actor.clone(), reason: reason.clone() }
            }
            Cover::Policy { name, signed_by } => {
                CoverShown::Policy { name: name.clone(), signed_by: signed_by.clone() }
            }
        }),
    }
}
