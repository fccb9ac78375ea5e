//! The catalogue: what is metered, who is billed, and at which prices.
//!
//! **Owns** the catalogue's types, its file's grammar and every check on it; the [`Rules`] that
//! agents are given. **Does not own** reading the file, or the rules' version: `ledger` assigns it.
//!
//! ```toml
//! seal_interval = "1s"
//! [[meter]]     name, aggregation, dimensions = [..], negative, unit, deduplicate,
//!               cloud_event = { type, quantity, unique, dimensions = { NAME = PATH } }
//! [[plan]]      name, currency, interval, rounding, effective; [[plan.fee]], [[plan.price]]: see `read/plan.rs`
//! [[seller]]    name, legal_name, address = [..], tax_id, email, time_zone, invoice_prefix, credit_note_prefix,
//!               fiscal_year_start, rounding, due_days, tax, notes = [..]
//! [[tax]]       name, label, percent, inclusive
//! [[customer]]  id, name, time_zone, currency, billing_anchor, plan, seller, address = [..], tax_id, tax_status, tax,
//!               due_days
//! [[subscription]] customer, plan, start, end, trial_end, discount; [[subscription.fee]], [[subscription.price]]
//! [identities]  default = "allow" or "deny"
//! [[identity]]  name, meters = [..], customers = [..]
//! [[policy]]    name, signed_by, kinds = [..], identities = [..], lost_after, events_per_stream_max, events_total_max
//! ```
//!
//! Invariants: names are unique; every price is of a meter that exists; all versions of a plan have one currency
//! and interval; every customer is on plans that exist, in one currency; the rules fit one control frame.
//! Limits: [`METERS_MAX`], [`CUSTOMERS_MAX`] and those beside them.

pub mod aggregation;
mod identities;
pub mod plan;
mod read;
pub mod seller;
pub mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;
use tidemark_common::id::{CustomerId, MeterName, RulesVersion};
use tidemark_common::time::Bucket;
use tidemark_common::wire::{CloudEventMeter, CloudEventRule, MeterRule, Rules};

use crate::document::Problem;
use crate::grants::Grants;
use crate::money::{Currency, Percent};
use crate::period::{Anchor, Zone};
use crate::reconcile::Policy;

use plan::{Fee, MeterPrice, Plan};
use seller::{Seller, Tax, TaxStatus};

pub use aggregation::{Aggregation, QuantityOverflow};

/// A catalogue has at most this many meters.
pub const METERS_MAX: usize = 2_000;
/// A catalogue has at most this many customers.
pub const CUSTOMERS_MAX: usize = 100_000;
/// A customer has at most this many subscriptions, those that ended too.
pub const SUBSCRIPTIONS_PER_CUSTOMER_MAX: usize = 100;
/// A catalogue has at most this many plans, versions counted.
pub const PLANS_MAX: usize = 1_000;
/// A plan has at most this many fees, and prices.
pub const FEES_MAX: usize = 100;
pub const PRICES_MAX: usize = 2_000;
/// A catalogue has at most this many sellers, and taxes.
pub const SELLERS_MAX: usize = 100;
pub const TAXES_MAX: usize = 1_000;
/// A price has at most this many tiers.
pub const TIERS_MAX: usize = 100;

/// Everything priced or billed, as one file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// How often agents seal their open batch while the uplink has room.
    pub seal_interval_millis: u32,
    pub meters: BTreeMap<MeterName, Meter>,
    pub plans: Plans,
    /// Who issues invoices; the first for customers that name none.
    pub sellers: Vec<Seller>,
    pub taxes: BTreeMap<String, Tax>,
    pub customers: BTreeMap<CustomerId, Customer>,
    /// What each customer is on; without any, its usage is metered and nothing is billed.
    pub subscriptions: Subscriptions,
    /// Which agents may bill whom.
    pub grants: Arc<Grants>,
    /// What invoices need not wait for, by name.
    pub policies: Vec<Policy>,
}

/// What is measured and how it is aggregated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    pub name: MeterName,
    pub aggregation: Aggregation,
    /// The dimensions that usage is kept by, ascending.
    pub dimensions: Vec<String>,
    /// Whether quantities below zero are accepted.
    pub negative: bool,
    /// How far events with the same id are known again.
    pub deduplicate: Deduplicate,
    /// What one is called, for people: `token`, `GiB hour`.
    pub unit: Option<String>,
    /// How CloudEvents become usage; without it their `type` is the meter's name.
    pub cloud_event: Option<CloudEvent>,
}

/// How far events with the same id are known again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deduplicate {
    /// By the agent that they are sent to.
    #[default]
    Agent,
    /// In the whole ledger.
    Global,
}

impl Deduplicate {
    pub const ALL: [Self; 2] = [Self::Agent, Self::Global];

    /// The name in the catalogue.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Global => "global",
        }
    }
}

/// The CloudEvents that a meter is drawn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    pub event_type: String,
    pub meter: CloudEventMeter,
}

/// Who is billed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    pub id: CustomerId,
    /// For people.
    pub name: Option<String>,
    pub zone: Zone,
    /// What all its plans' prices are in; `None`: it is on none, and does not say.
    pub currency: Option<Currency>,
    /// The first day of one of its periods; without one they are those of the calendar.
    pub anchor: Option<Anchor>,
    /// By name; `None`: the catalogue's first.
    pub seller: Option<String>,
    pub address: Vec<String>,
    pub tax_id: Option<String>,
    pub tax_status: TaxStatus,
    /// The tax of what names none; `None`: the seller's.
    pub tax: Option<String>,
    /// `None`: as the seller says.
    pub due_days: Option<u16>,
}

/// Plans by name, the versions of each by when they take effect.
pub type Plans = BTreeMap<String, Vec<Plan>>;

/// What customers are on.
pub type Subscriptions = BTreeMap<CustomerId, Vec<Subscription>>;

/// A customer is on a plan, from `start` to before `end`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    pub plan: String,
    /// `None`: it always was.
    pub start: Option<Bucket>,
    /// `None`: until further notice.
    pub end: Option<Bucket>,
    /// Before it, nothing is charged.
    pub trial_end: Option<Bucket>,
    /// What is taken off.
    pub discount: Option<Percent>,
    /// Each in place of the plan's fee of the same name, or beside them.
    pub fees: Vec<Fee>,
    /// These take usage before the plan's own.
    pub prices: Vec<MeterPrice>,
}

impl Catalog {
    /// Reads a catalogue file's text; `file` is its name, for the problems.
    ///
    /// # Errors
    /// Every problem that the text has, in the order of its lines.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        read::catalog(text, file)
    }

    /// What agents need of this catalogue, with version 0: the ledger numbers it when it differs from
    /// what it had before.
    #[must_use]
    pub fn rules_content(&self) -> Rules {
        let mut by_type: BTreeMap<&str, Vec<CloudEventMeter>> = BTreeMap::new();
        for event in self.meters.values().filter_map(|meter| meter.cloud_event.as_ref()) {
            by_type.entry(&event.event_type).or_default().push(event.meter.clone());
        }
        let cloud_events = by_type.into_iter().map(|(event_type, meters)| CloudEventRule {
            event_type: event_type.to_owned(),
            meters,
        });
        let meters = self.meters.values().map(|meter| MeterRule {
            meter: meter.name.clone(),
            dimensions: meter.dimensions.clone(),
            negative: meter.negative,
        });
        let global = |meter: &&Meter| meter.deduplicate == Deduplicate::Global;
        let deduplicated = self.meters.values().filter(global).map(|meter| meter.name.clone());
        Rules {
            version: RulesVersion(0),
            seal_interval_millis: self.seal_interval_millis,
            meters: meters.collect(),
            cloud_events: cloud_events.collect(),
            deduplicated: deduplicated.collect(),
        }
    }

    /// How each meter is aggregated.
    #[must_use]
    pub fn aggregations(&self) -> Aggregations {
        self.meters.iter().map(|(name, meter)| (name.clone(), meter.aggregation)).collect()
    }

    /// Whether this catalogue can take the place of one while periods run. A meter's aggregation decides
    /// how all its usage of a period is read, so that a change would price anew what was used before;
    /// `had` is what each meter had so far, those that are gone too. A file without any meter is one that
    /// was cut short: agents would drop every dimension by it, for good.
    ///
    /// # Errors
    /// No meters where there were some, or the first meter that is aggregated otherwise.
    pub fn check_follows(&self, had: &Aggregations) -> Result<(), NotASuccessor> {
        if self.meters.is_empty() && !had.is_empty() {
            return Err(NotASuccessor::NoMeters);
        }
        let changed = self.meters.iter().find_map(|(name, meter)| {
            let before = *had.get(name)?;
            let after = meter.aggregation;
            (before != after).then(|| NotASuccessor::AggregationChanged {
                meter: name.clone(),
                before,
                after,
            })
        });
        changed.map_or(Ok(()), Err)
    }

    /// Who issues the customer's invoices; `None` if the catalogue has no seller.
    #[must_use]
    pub fn seller_of(&self, customer: &Customer) -> Option<&Seller> {
        match &customer.seller {
            Some(name) => self.sellers.iter().find(|seller| seller.name == *name),
            None => self.sellers.first(),
        }
    }

    /// Where a customer's days and months begin: UTC for one that the catalogue does not know.
    #[must_use]
    pub fn zone_of(&self, customer: &CustomerId) -> Zone {
        self.customers.get(customer).map_or_else(Zone::utc, |customer| customer.zone.clone())
    }

    /// Whether usage of `meter` may be on a bill of the customer: why not, or `None`. A bill may still leave out
    /// some of it, for its dimensions or its time.
    #[must_use]
    pub fn unbilled(&self, customer: &CustomerId, meter: &MeterName) -> Option<Unbilled> {
        if !self.customers.contains_key(customer) {
            return Some(Unbilled::UnknownCustomer);
        }
        if !self.meters.contains_key(meter) {
            return Some(Unbilled::UnknownMeter);
        }
        let has = |prices: &[MeterPrice]| prices.iter().any(|price| price.meter == *meter);
        let mut subscriptions = self.subscriptions.get(customer).into_iter().flatten();
        let priced = subscriptions.any(|on| {
            let mut versions = self.plans.get(&on.plan).into_iter().flatten();
            has(&on.prices) || versions.any(|plan| has(&plan.prices))
        });
        (!priced).then_some(Unbilled::Unpriced)
    }
}

/// How each meter is, or was, aggregated.
pub type Aggregations = BTreeMap<MeterName, Aggregation>;

/// Why a catalogue cannot take the place of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotASuccessor {
    #[error(
        "failed to take a catalogue without any [[meter]]: was the file cut short? To end with it, restart \
         the collector"
    )]
    NoMeters,
    #[error(
        "failed to change the aggregation of {meter} from {before} to {after}: that would price the running \
         period's usage anew; keep it, and give {after} to a meter of another name"
    )]
    AggregationChanged { meter: MeterName, before: Aggregation, after: Aggregation },
}

/// Why posted usage is in suspense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unbilled {
    UnknownCustomer,
    UnknownMeter,
    /// The meter exists, and no plan that the customer is on has a price for it.
    Unpriced,
    /// The sender's identity may not bill it.
    Unauthorised,
}

impl Unbilled {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownCustomer => "unknown_customer",
            Self::UnknownMeter => "unknown_meter",
            Self::Unpriced => "unpriced",
            Self::Unauthorised => "unauthorised",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::UnknownCustomer => "add a [[customer]] with this id to the catalogue",
            Self::UnknownMeter => "add a [[meter]] with this name to the catalogue",
            Self::Unpriced => {
                "put the customer on a plan with a [[plan.price]] for this meter (a unit_price of \"0\" makes it \
                 free)"
            }
            Self::Unauthorised => {
                "allow the agent's identity to bill this customer, or find out who sends it"
            }
        }
    }
}

#[cfg(test)]
mod tests;
