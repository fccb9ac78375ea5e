//! Reads `[[customer]]` and `[[subscription]]`: who is billed, and on which plans.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_common::id::CustomerId;

use super::plan::{self, Known, instant};
use super::seller::{DUE_DAYS_MAX, lines, tax_named, whole, zone};
use super::{label, one_of, parsed};
use crate::catalog::seller::{Seller, TaxStatus};
use crate::catalog::{
    CUSTOMERS_MAX, Customer, Plans, SUBSCRIPTIONS_PER_CUSTOMER_MAX, Subscription, Subscriptions,
};
use crate::document::{Located, Problems, Table, closest};
use crate::money::Currency;
use crate::period::Anchor;

/// The plans, the names of those that have problems of their own, and the meters.
pub(super) struct Offered<'a> {
    pub(super) known: Known<'a>,
    pub(super) plans: &'a Plans,
    pub(super) broken: &'a BTreeSet<String>,
    pub(super) sellers: &'a [Seller],
}

/// All customers, and what each is on.
pub(super) fn customers(
    root: &mut Table<'_>,
    offered: &Offered<'_>,
    problems: &mut Problems<'_>,
) -> (BTreeMap<CustomerId, Customer>, Subscriptions) {
    let (mut customers, mut subscriptions) = (BTreeMap::new(), Subscriptions::new());
    for mut table in root.tables("customer", problems) {
        let span = table.span.clone();
        let read = customer(&mut table, offered, problems);
        let plan = table.text("plan", problems);
        table.finish(problems);
        let Some(mut customer) = read else { continue };
        let id = customer.id.clone();
        if let Some(plan) =
            plan.and_then(|plan| known_plan(&plan, &mut customer, offered, problems))
        {
            let always = Subscription { plan, ..Subscription::default() };
            subscriptions.entry(id.clone()).or_default().push(always);
        }
        if customers.insert(id.clone(), customer).is_some() {
            let message = format!("the customer {:?} stands twice", id.as_str());
            problems.report(span, message, "remove one of them");
        } else if customers.len() == CUSTOMERS_MAX.saturating_add(1) {
            let message = format!("there are more than {CUSTOMERS_MAX} customers");
            problems.report(span, message, "split them over several ledgers");
        }
    }
    for mut table in root.tables("subscription", problems) {
        let span = table.span.clone();
        let read = subscription(&mut table, &mut customers, offered, problems);
        table.finish(problems);
        let Some((id, subscription)) = read else { continue };
        let held = subscriptions.entry(id.clone()).or_default();
        held.push(subscription);
        if held.len() == SUBSCRIPTIONS_PER_CUSTOMER_MAX.saturating_add(1) {
            let message = format!(
                "the customer {:?} has more than {SUBSCRIPTIONS_PER_CUSTOMER_MAX} subscriptions",
                id.as_str()
            );
            problems.report(span, message, "remove those that ended long ago");
        }
    }
    (customers, subscriptions)
}

fn customer(
    table: &mut Table<'_>,
    offered: &Offered<'_>,
    problems: &mut Problems<'_>,
) -> Option<Customer> {
    let id = customer_id(table, "id", problems);
    let name = label(table, "name", problems);
    let zone = zone(table, problems);
    let currency = match table.text("currency", problems) {
        None => Some(None),
        Some(text) => {
            parsed(&text, Currency::parse, "write a code such as \"EUR\"", problems).map(Some)
        }
    };
    let anchor = match table.text("billing_anchor", problems) {
        None => Some(None),
        Some(text) => {
            let remedy = "write the date of a period's first day in quotes, such as \"2026-01-31\"";
            parsed(&text, Anchor::parse, remedy, problems).map(Some)
        }
    };
    let seller = known_seller(table, offered.sellers, problems);
    let address = lines(table, "address", problems);
    let tax_id = label(table, "tax_id", problems);
    let tax_status = one_of(table, "tax_status", &TaxStatus::ALL, TaxStatus::name, problems);
    let tax = tax_named(table, offered.known.taxes, problems);
    let due_days = whole(table, "due_days", 0..=DUE_DAYS_MAX, problems);
    Some(Customer {
        id: id?,
        name,
        zone: zone?,
        currency: currency?,
        anchor: anchor?,
        seller,
        address,
        tax_id,
        tax_status: tax_status?.unwrap_or_default(),
        tax,
        due_days: due_days?,
    })
}

/// A seller that is there, if one is named.
fn known_seller(
    table: &mut Table<'_>,
    sellers: &[Seller],
    problems: &mut Problems<'_>,
) -> Option<String> {
    let Located { value, span } = table.text("seller", problems)?;
    let mut names = sellers.iter().map(|seller| seller.name.as_str());
    if names.clone().any(|name| name == value) {
        return Some(value);
    }
    let remedy = match closest(&value, &mut names) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "add a [[seller]] with that name".to_owned(),
    };
    problems.report(span, format!("there is no seller {value:?}"), remedy);
    None
}

fn subscription(
    table: &mut Table<'_>,
    customers: &mut BTreeMap<CustomerId, Customer>,
    offered: &Offered<'_>,
    problems: &mut Problems<'_>,
) -> Option<(CustomerId, Subscription)> {
    let span = table.span.clone();
    let id = customer_id(table, "customer", problems);
    let on = table.required_text("plan", "standard", problems);
    let start = instant(table, "start", problems)?;
    let end = instant(table, "end", problems)?;
    let trial_end = instant(table, "trial_end", problems)?;
    let discount = plan::discount(table, problems)?;
    let fees = plan::fees(table, offered.known.taxes, problems);
    let prices = plan::prices(table, &offered.known, problems);
    if start.zip(end).is_some_and(|(start, end)| start >= end) {
        problems.report(
            span.clone(),
            "the subscription's `end` is not after its `start`",
            "swap them",
        );
    }
    let id = id?;
    if !customers.contains_key(&id) {
        let known = customers.keys().map(CustomerId::as_str);
        let remedy = match closest(id.as_str(), known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "add a [[customer]] with that id".to_owned(),
        };
        problems.report(span, format!("there is no customer {:?}", id.as_str()), remedy);
        return None;
    }
    let plan = known_plan(&on?, customers.get_mut(&id)?, offered, problems)?;
    Some((id, Subscription { plan, start, end, trial_end, discount, fees, prices }))
}

/// A plan in the customer's currency, which is that of its first plan where it does not say.
fn known_plan(
    name: &Located<String>,
    customer: &mut Customer,
    offered: &Offered<'_>,
    problems: &mut Problems<'_>,
) -> Option<String> {
    let Some(plan) = offered.plans.get(&name.value).and_then(|versions| versions.first()) else {
        // A broken plan was reported where it stands.
        if !offered.broken.contains(&name.value) {
            let remedy = match closest(&name.value, offered.plans.keys().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add a [[plan]] with that name".to_owned(),
            };
            problems.report(
                name.span.clone(),
                format!("there is no plan {:?}", name.value),
                remedy,
            );
        }
        return None;
    };
    let currency = *customer.currency.get_or_insert(plan.currency);
    if currency != plan.currency {
        let message = format!(
            "the customer is billed in {currency}, and the plan's prices are in {}",
            plan.currency
        );
        problems.report(name.span.clone(), message, "use a plan in the customer's currency");
    }
    Some(name.value.clone())
}

fn customer_id(
    table: &mut Table<'_>,
    key: &'static str,
    problems: &mut Problems<'_>,
) -> Option<CustomerId> {
    let text = table.required_text(key, "acme", problems)?;
    parsed(&text, CustomerId::parse, "write 1 to 128 bytes of printable text", problems)
}
