//! Writes a catalogue out, table by table: what `Catalog::parse` reads as the same catalogue.
//!
//! **Owns** the tables' order and keys. A table with its sub-tables is an *item*, known by its kind and name: what a
//! change of the catalogue adds, removes or changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tidemark_common::time::Bucket;

use super::plan::{Fee, MeterPrice, Model, Plan, TierPrice};
use super::seller::{Seller, Tax};
use super::{Catalog, Customer, Meter, Subscription};
use crate::grants::{Grants, Otherwise, Patterns};
use crate::money::Rounding;
use crate::period::{Interval, Zone};
use crate::reconcile::Policy;

/// A catalogue as items: kind and name of each, and its text. In an order in which they can be read.
pub type Items = Vec<(String, String)>;

impl Catalog {
    /// The whole text.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.items().into_iter().map(|(_, text)| text).collect()
    }

    /// Each table with its sub-tables.
    #[must_use]
    pub fn items(&self) -> Items {
        let mut items = Items::new();
        let mut add = |name: String, write: &dyn Fn(&mut String)| {
            let mut text = String::new();
            write(&mut text);
            items.push((name, text));
        };
        add("settings".to_owned(), &|text| {
            line(text, format_args!("seal_interval = \"{}ms\"", self.seal_interval_millis));
        });
        add("identities".to_owned(), &|text| write_grants(text, &self.grants));
        for policy in &self.policies {
            add(format!("policy {}", policy.name), &|text| write_policy(text, policy));
        }
        for meter in self.meters.values() {
            add(format!("meter {}", meter.name), &|text| write_meter(text, meter));
        }
        for tax in self.taxes.values() {
            add(format!("tax {}", tax.name), &|text| text.push_str(&tax.to_toml()));
        }
        for seller in &self.sellers {
            add(format!("seller {}", seller.name), &|text| write_seller(text, seller));
        }
        for customer in self.customers.values() {
            let name = format!("customer {}", customer.id.as_str());
            add(name, &|text| write_customer(text, customer));
        }
        for plan in self.plans.values().flatten() {
            let from = plan.effective.map(|effective| Zone::utc().rfc3339(effective.start()));
            let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
            add(format!("plan {}{from}", plan.name), &|text| write_plan(text, plan));
        }
        for (customer, subscriptions) in &self.subscriptions {
            for (number, on) in subscriptions.iter().enumerate() {
                let number = number.saturating_add(1);
                let name = format!("subscription {} {number} to {}", customer.as_str(), on.plan);
                add(name, &|text| write_subscription(text, customer.as_str(), on));
            }
        }
        items
    }
}

impl Plan {
    /// This version's text.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        write_plan(&mut text, self);
        text
    }
}

impl Subscription {
    /// Its text, with the customer that it is of.
    #[must_use]
    pub fn to_toml(&self, customer: &str) -> String {
        let mut text = String::new();
        write_subscription(&mut text, customer, self);
        text
    }
}

impl Tax {
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        line(&mut text, format_args!("[[tax]]\nname = {}", quoted(&self.name)));
        line(&mut text, format_args!("label = {}", quoted(&self.label)));
        line(&mut text, format_args!("percent = {}", quoted(&self.percent.to_string())));
        line(&mut text, format_args!("inclusive = {}", self.inclusive));
        text
    }
}

/// What one item is after a change, as against before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemChange {
    Added { item: String, after: String },
    Removed { item: String, before: String },
    Changed { item: String, before: String, after: String },
}

/// What turns one catalogue into another, in the order of the items' names.
#[must_use]
pub fn changes(before: Option<&Catalog>, after: &Catalog) -> Vec<ItemChange> {
    let items = |catalog: &Catalog| catalog.items().into_iter().collect::<BTreeMap<_, _>>();
    let (mut before, after) = (before.map(items).unwrap_or_default(), items(after));
    let mut found = Vec::new();
    for (item, after) in after {
        match before.remove(&item) {
            None => found.push(ItemChange::Added { item, after }),
            Some(before) if before != after => {
                found.push(ItemChange::Changed { item, before, after });
            }
            Some(_) => {}
        }
    }
    found.extend(before.into_iter().map(|(item, before)| ItemChange::Removed { item, before }));
    found
}

impl ItemChange {
    /// For people: `+`, `-` or `~` and the item; of one that changed, the lines.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Added { item, .. } => format!("+ {item}\n"),
            Self::Removed { item, .. } => format!("- {item}\n"),
            Self::Changed { item, before, after } => {
                let mut told = format!("~ {item}\n");
                let missing = |line: &&str, other: &str| !other.lines().any(|held| held == *line);
                for line in before.lines().filter(|line| missing(line, after)) {
                    told.push_str(&format!("    - {line}\n"));
                }
                for line in after.lines().filter(|line| missing(line, before)) {
                    told.push_str(&format!("    + {line}\n"));
                }
                told
            }
        }
    }
}

fn write_grants(text: &mut String, grants: &Grants) {
    let default = match grants.otherwise {
        Otherwise::Allow => "allow",
        Otherwise::Deny => "deny",
    };
    line(text, format_args!("[identities]\ndefault = {}", quoted(default)));
    for identity in &grants.identities {
        line(text, format_args!("[[identity]]\nname = {}", quoted(identity.name.as_str())));
        write_patterns(text, "meters", &identity.meters);
        write_patterns(text, "customers", &identity.customers);
    }
}

fn write_policy(text: &mut String, policy: &Policy) {
    line(text, format_args!("[[policy]]\nname = {}", quoted(&policy.name)));
    line(text, format_args!("signed_by = {}", quoted(&policy.signed_by)));
    let kinds: Vec<_> = policy.kinds.iter().map(|kind| quoted(kind.name())).collect();
    line(text, format_args!("kinds = [{}]", kinds.join(", ")));
    write_patterns(text, "identities", &policy.identities);
    if let Some(millis) = policy.lost_after_millis {
        line(text, format_args!("lost_after = \"{millis}ms\""));
    }
    line(text, format_args!("events_per_stream_max = {}", policy.events_per_stream_max));
    line(text, format_args!("events_total_max = {}", policy.events_total_max));
}

fn write_patterns(text: &mut String, key: &str, patterns: &Patterns) {
    let listed: Vec<_> = patterns.iter().map(quoted).collect();
    line(text, format_args!("{key} = [{}]", listed.join(", ")));
}

fn write_customer(text: &mut String, customer: &Customer) {
    line(text, format_args!("[[customer]]\nid = {}", quoted(customer.id.as_str())));
    write_text(text, "name", customer.name.as_deref());
    line(text, format_args!("time_zone = {}", quoted(customer.zone.name())));
    let currency = customer.currency.map(|currency| currency.to_string());
    write_text(text, "currency", currency.as_deref());
    let anchor = customer.anchor.map(|anchor| anchor.to_string());
    write_text(text, "billing_anchor", anchor.as_deref());
    write_text(text, "seller", customer.seller.as_deref());
    write_lines(text, "address", &customer.address);
    write_text(text, "tax_id", customer.tax_id.as_deref());
    write_text(text, "tax_status", Some(customer.tax_status.name()));
    write_text(text, "tax", customer.tax.as_deref());
    if let Some(days) = customer.due_days {
        line(text, format_args!("due_days = {days}"));
    }
}

fn write_subscription(text: &mut String, customer: &str, subscription: &Subscription) {
    line(text, format_args!("[[subscription]]\ncustomer = {}", quoted(customer)));
    line(text, format_args!("plan = {}", quoted(&subscription.plan)));
    write_instant(text, "start", subscription.start);
    write_instant(text, "end", subscription.end);
    write_instant(text, "trial_end", subscription.trial_end);
    let discount = subscription.discount.map(|percent| percent.to_string());
    write_text(text, "discount", discount.as_deref());
    write_charges(text, "subscription", &subscription.fees, &subscription.prices);
}

fn write_seller(text: &mut String, seller: &Seller) {
    line(text, format_args!("[[seller]]\nname = {}", quoted(&seller.name)));
    line(text, format_args!("legal_name = {}", quoted(&seller.legal_name)));
    write_lines(text, "address", &seller.address);
    write_text(text, "tax_id", seller.tax_id.as_deref());
    write_text(text, "email", seller.email.as_deref());
    line(text, format_args!("time_zone = {}", quoted(seller.zone.name())));
    line(text, format_args!("invoice_prefix = {}", quoted(&seller.invoice_prefix)));
    line(text, format_args!("credit_note_prefix = {}", quoted(&seller.credit_note_prefix)));
    line(text, format_args!("fiscal_year_start = {}", seller.fiscal_year_start));
    line(text, format_args!("rounding = {}", quoted(seller.rounding.name())));
    line(text, format_args!("due_days = {}", seller.due_days));
    write_text(text, "tax", seller.tax.as_deref());
    write_lines(text, "notes", &seller.notes);
}

fn write_text(text: &mut String, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        line(text, format_args!("{key} = {}", quoted(value)));
    }
}

fn write_lines(text: &mut String, key: &str, lines: &[String]) {
    let lines: Vec<_> = lines.iter().map(|line| quoted(line)).collect();
    line(text, format_args!("{key} = [{}]", lines.join(", ")));
}

fn write_instant(text: &mut String, key: &str, instant: Option<Bucket>) {
    if let Some(instant) = instant {
        line(text, format_args!("{key} = {}", quoted(&Zone::utc().rfc3339(instant.start()))));
    }
}

fn write_plan(text: &mut String, plan: &Plan) {
    line(text, format_args!("[[plan]]\nname = {}", quoted(&plan.name)));
    line(text, format_args!("currency = {}", quoted(plan.currency.code())));
    line(text, format_args!("interval = {}", quoted(plan.interval.name())));
    write_text(text, "rounding", plan.rounding.map(Rounding::name));
    write_instant(text, "effective", plan.effective);
    if let Some(least) = plan.commitment {
        line(text, format_args!("commitment = {}", quoted(&least.to_string())));
    }
    write_text(text, "commitment_term", plan.commitment_term.map(Interval::name));
    write_charges(text, "plan", &plan.fees, &plan.prices);
}

fn write_charges(text: &mut String, of: &str, fees: &[Fee], prices: &[MeterPrice]) {
    for fee in fees {
        line(text, format_args!("[[{of}.fee]]\nname = {}", quoted(&fee.name)));
        line(text, format_args!("amount = {}", quoted(&fee.amount.to_string())));
        line(text, format_args!("timing = {}", quoted(fee.timing.name())));
        write_text(text, "tax", fee.tax.as_deref());
    }
    for price in prices {
        write_price(text, of, price);
    }
}

fn write_price(text: &mut String, of: &str, price: &MeterPrice) {
    line(text, format_args!("[[{of}.price]]\nmeter = {}", quoted(price.meter.as_str())));
    line(text, format_args!("model = {}", quoted(price.model.name())));
    line(text, format_args!("included = {}", quoted(&price.included.to_string())));
    write_text(text, "tax", price.tax.as_deref());
    for (key, bound) in [("minimum", price.minimum), ("maximum", price.maximum)] {
        if let Some(bound) = bound {
            line(text, format_args!("{key} = {}", quoted(&bound.to_string())));
        }
    }
    match &price.model {
        Model::PerUnit { unit_price } => {
            line(text, format_args!("unit_price = {}", quoted(&unit_price.to_string())));
        }
        Model::Package { size, price } => {
            line(text, format_args!("package_size = {}", quoted(&size.to_string())));
            line(text, format_args!("package_price = {}", quoted(&price.to_string())));
        }
        Model::Percentage { percent, per_event } => {
            line(text, format_args!("percent = {}", quoted(&percent.to_string())));
            line(text, format_args!("per_event = {}", quoted(&per_event.to_string())));
        }
        Model::Graduated(_) | Model::Volume(_) => {}
    }
    line(text, format_args!("[{of}.price.where]"));
    for (name, value) in &price.filter {
        line(text, format_args!("{} = {}", quoted(name), quoted(value)));
    }
    if let Model::Graduated(tiers) | Model::Volume(tiers) = &price.model {
        for tier in &tiers.bounded {
            write_tier(text, of, tier.price);
            line(text, format_args!("up_to = {}", quoted(&tier.up_to.to_string())));
        }
        write_tier(text, of, tiers.last);
    }
}

fn write_tier(text: &mut String, of: &str, price: TierPrice) {
    line(text, format_args!("[[{of}.price.tier]]"));
    line(text, format_args!("unit_price = {}", quoted(&price.unit_price.to_string())));
    line(text, format_args!("flat = {}", quoted(&price.flat.to_string())));
}

fn write_meter(text: &mut String, meter: &Meter) {
    line(text, format_args!("[[meter]]\nname = {}", quoted(meter.name.as_str())));
    line(text, format_args!("aggregation = {}", quoted(meter.aggregation.name())));
    let dimensions: Vec<_> = meter.dimensions.iter().map(|name| quoted(name)).collect();
    line(text, format_args!("dimensions = [{}]", dimensions.join(", ")));
    line(text, format_args!("negative = {}", meter.negative));
    line(text, format_args!("deduplicate = {}", quoted(meter.deduplicate.name())));
    if let Some(unit) = &meter.unit {
        line(text, format_args!("unit = {}", quoted(unit)));
    }
    let Some(event) = &meter.cloud_event else { return };
    line(text, format_args!("[meter.cloud_event]\ntype = {}", quoted(&event.event_type)));
    if let Some(quantity) = &event.meter.quantity {
        line(text, format_args!("quantity = {}", quoted(quantity)));
    }
    if let Some(unique) = &event.meter.unique {
        line(text, format_args!("unique = {}", quoted(unique)));
    }
    line(text, format_args!("[meter.cloud_event.dimensions]"));
    for path in &event.meter.dimensions {
        line(text, format_args!("{} = {}", quoted(&path.name), quoted(&path.path)));
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a string takes what is written");
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../api/tests/worked_example.toml");

    #[test]
    fn what_is_written_reads_as_the_same() {
        let catalog = Catalog::parse(TEXT, "c").unwrap();
        assert_eq!(Catalog::parse(&catalog.to_toml(), "c"), Ok(catalog));
    }

    #[test]
    fn changes_are_told_by_item() {
        let before = Catalog::parse(TEXT, "c").unwrap();
        assert_eq!(changes(Some(&before), &before), []);
        let text = TEXT
            .replace("amount = \"30\"", "amount = \"31\"")
            .replace("id = \"acme\"", "id = \"acne\"");
        let after = Catalog::parse(&text, "c").unwrap();
        let told: String = changes(Some(&before), &after).iter().map(ItemChange::told).collect();
        let expected = "+ customer acne\n~ plan starter\n    - amount = \"30\"\n    + amount = \"31\"\n\
            + subscription acne 1 to starter\n- customer acme\n- subscription acme 1 to starter\n";
        assert_eq!(told, expected);
    }
}
