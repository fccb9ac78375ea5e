//! What the usage API must show: a plain count and sum of what was sent, kept beside the product.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tidemark_common::quantity::Quantity;

use crate::api::Api;
use crate::wait::wide_range;

/// Events and their sum, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub events: u64,
    pub sum: Quantity,
}

/// By (customer, meter).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected(BTreeMap<(String, String), Tally>);

impl Expected {
    /// Counts one event.
    ///
    /// # Errors
    /// When a sum overflows.
    pub fn add(&mut self, customer: &str, meter: &str, quantity: Quantity) -> Result<()> {
        self.add_tally(customer, meter, Tally { events: 1, sum: quantity })
    }

    /// Adds all of `other`.
    ///
    /// # Errors
    /// When a sum overflows.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        for ((customer, meter), tally) in &other.0 {
            self.add_tally(customer, meter, *tally)?;
        }
        Ok(())
    }

    /// Counts several events.
    ///
    /// # Errors
    /// When a sum overflows.
    pub fn add_tally(&mut self, customer: &str, meter: &str, tally: Tally) -> Result<()> {
        let key = (customer.to_owned(), meter.to_owned());
        let entry = self.0.entry(key).or_insert(Tally { events: 0, sum: Quantity::ZERO });
        entry.events = entry.events.checked_add(tally.events).context("events fit 64 bits")?;
        entry.sum = entry.sum.checked_add(tally.sum).context("a sum fits 128 bits")?;
        Ok(())
    }

    /// All events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.values().map(|tally| tally.events).sum()
    }

    /// Events of one customer.
    #[must_use]
    pub fn events_of(&self, customer: &str) -> u64 {
        let of = self.0.iter().filter(|((name, _), _)| name == customer);
        of.map(|(_, tally)| tally.events).sum()
    }

    /// Checks that the usage API shows exactly this, and nothing more of these customers. All meters
    /// concerned are sums.
    ///
    /// # Errors
    /// Every difference.
    pub fn check(&self, api: &Api<'_>) -> Result<()> {
        self.check_in(api, &[wide_range()])
    }

    /// The same in several ranges of unix seconds together.
    ///
    /// # Errors
    /// Every difference.
    pub fn check_in(&self, api: &Api<'_>, ranges: &[(u64, u64)]) -> Result<()> {
        let mut customers: Vec<&str> = self.0.keys().map(|(customer, _)| &**customer).collect();
        customers.dedup();
        let mut differences = Vec::new();
        for customer in customers {
            let shown = Self::shown(api, customer, ranges)?;
            let sent = self.0.iter().filter(|((name, _), _)| name == customer);
            let sent = Self(sent.map(|(key, tally)| (key.clone(), *tally)).collect());
            if sent != shown {
                differences.push(format!("{customer}: sent {sent:?}, shown {shown:?}"));
            }
        }
        ensure!(differences.is_empty(), "usage differs: {}", differences.join("; "));
        Ok(())
    }

    /// What the usage API shows of a customer in all of `ranges` together.
    ///
    /// # Errors
    /// When it does not answer, or a sum is none.
    pub fn shown(api: &Api<'_>, customer: &str, ranges: &[(u64, u64)]) -> Result<Self> {
        let mut shown = Self::default();
        for range in ranges {
            let usage = api.usage_between(customer, *range, "")?.usage;
            for entry in usage.into_iter().filter(|entry| entry.events > 0) {
                let quantity = entry.quantity.context("a sum of some events is a number")?;
                let sum = Quantity::parse(quantity.as_bytes())?;
                shown.add_tally(customer, &entry.meter, Tally { events: entry.events, sum })?;
            }
        }
        Ok(shown)
    }
}
