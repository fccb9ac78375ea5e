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

use tidemark_collector::catalog::{Catalog, Meter};
use tidemark_common::id::RulesVersion;
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
    for customer in catalog.customers.values() {
        line(&mut text, format_args!("[[customer]]\nid = {}", quoted(customer.id.as_str())));
        if let Some(name) = &customer.name {
            line(&mut text, format_args!("name = {}", quoted(name)));
        }
        line(&mut text, format_args!("time_zone = {}", quoted(customer.zone.name())));
    }
    if let Some(plan) = &catalog.plan {
        line(&mut text, format_args!("[plan]\nname = {}", quoted(&plan.name)));
        line(&mut text, format_args!("currency = {}", quoted(plan.currency.code())));
        for (meter, price) in &plan.prices {
            line(&mut text, format_args!("[[plan.price]]\nmeter = {}", quoted(meter.as_str())));
            line(&mut text, format_args!("unit_price = {}", quoted(&price.to_string())));
        }
    }
    text
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
