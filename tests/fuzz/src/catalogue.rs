//! The catalogue's file.
//!
//! ```text
//! input   the text of a catalogue
//! ```
//!
//! - A refusal names the file, a line that is there, what is wrong and what to do.
//! - What is accepted gives rules that agents can work by, that fit a frame and survive it.
//! - What is accepted, written out again, reads as the same catalogue.

use std::fmt::Write as _;

use tidemark_collector::catalog::plan::{Fee, MeterPrice, Model, Plan, TierPrice};
use tidemark_collector::catalog::seller::Seller;
use tidemark_collector::catalog::{Catalog, Meter};
use tidemark_collector::money::Rounding;
use tidemark_collector::period::Zone;
use tidemark_common::id::RulesVersion;
use tidemark_common::time::Bucket;
use tidemark_common::wire::{decode_rules, encode_rules};

const FILE: &str = "catalog.toml";

pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match Catalog::parse(text, FILE) {
        Ok(catalog) => {
            check_rules(&catalog);
            let again = write(&catalog);
            assert_eq!(Catalog::parse(&again, FILE), Ok(catalog), "{again}");
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal says why");
            let lines = text.split('\n').count();
            for problem in problems {
                let complete = problem.file == FILE
                    && !problem.message.is_empty()
                    && !problem.remedy.is_empty();
                assert!(complete && problem.line <= lines, "{problem}");
            }
        }
    }
}

fn check_rules(catalog: &Catalog) {
    let mut rules = catalog.rules_content();
    rules.version = RulesVersion(1);
    assert_eq!(rules.check(), Ok(()));
    let bytes = encode_rules(&rules).expect("a catalogue's rules fit a frame");
    assert_eq!(decode_rules(&bytes), Ok(rules));
    assert_eq!(catalog.check_follows(&catalog.aggregations()), Ok(()), "it may follow itself");
}

fn write(catalog: &Catalog) -> String {
    let mut text = format!("seal_interval = \"{}ms\"\n", catalog.seal_interval_millis);
    for meter in catalog.meters.values() {
        write_meter(&mut text, meter);
    }
    for tax in catalog.taxes.values() {
        line(&mut text, format_args!("[[tax]]\nname = {}", quoted(&tax.name)));
        line(&mut text, format_args!("label = {}", quoted(&tax.label)));
        line(&mut text, format_args!("percent = {}", quoted(&tax.percent.to_string())));
        line(&mut text, format_args!("inclusive = {}", tax.inclusive));
    }
    for seller in &catalog.sellers {
        write_seller(&mut text, seller);
    }
    for customer in catalog.customers.values() {
        line(&mut text, format_args!("[[customer]]\nid = {}", quoted(customer.id.as_str())));
        if let Some(name) = &customer.name {
            line(&mut text, format_args!("name = {}", quoted(name)));
        }
        line(&mut text, format_args!("time_zone = {}", quoted(customer.zone.name())));
        if let Some(currency) = customer.currency {
            line(&mut text, format_args!("currency = {}", quoted(currency.code())));
        }
        if let Some(anchor) = customer.anchor {
            line(&mut text, format_args!("billing_anchor = {}", quoted(&anchor.to_string())));
        }
        write_text(&mut text, "seller", customer.seller.as_deref());
        write_lines(&mut text, "address", &customer.address);
        write_text(&mut text, "tax_id", customer.tax_id.as_deref());
        write_text(&mut text, "tax_status", Some(customer.tax_status.name()));
        write_text(&mut text, "tax", customer.tax.as_deref());
        if let Some(days) = customer.due_days {
            line(&mut text, format_args!("due_days = {days}"));
        }
    }
    for plan in catalog.plans.values().flatten() {
        write_plan(&mut text, plan);
    }
    for (customer, subscriptions) in &catalog.subscriptions {
        for subscription in subscriptions {
            line(
                &mut text,
                format_args!("[[subscription]]\ncustomer = {}", quoted(customer.as_str())),
            );
            line(&mut text, format_args!("plan = {}", quoted(&subscription.plan)));
            write_instant(&mut text, "start", subscription.start);
            write_instant(&mut text, "end", subscription.end);
            write_instant(&mut text, "trial_end", subscription.trial_end);
            if let Some(percent) = subscription.discount {
                line(&mut text, format_args!("discount = {}", quoted(&percent.to_string())));
            }
            write_charges(&mut text, "subscription", &subscription.fees, &subscription.prices);
        }
    }
    text
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
