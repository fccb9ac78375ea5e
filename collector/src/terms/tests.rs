//! How periods are cut.

use super::*;
use crate::period::Zone;

const CATALOG: &str = r#"
[[plan]]
name = "standard"
currency = "EUR"
[[plan]]
name = "standard"
currency = "EUR"
effective = "2026-04-11T00:00:00Z"
[[plan]]
name = "yearly"
currency = "EUR"
interval = "year"
[[customer]]
id = "a"
"#;

/// What a customer is on, and when -> its sections: plan, and the days of April at which each part begins and ends.
fn check(subscriptions: &[(&str, &str, &str)], expected: &[&str]) {
    check_trial("", subscriptions, expected);
}

/// The same with a trial that ends on a day.
fn check_trial(trial_end: &str, subscriptions: &[(&str, &str, &str)], expected: &[&str]) {
    let tables = subscriptions.iter().map(|(plan, start, end)| {
        let edge = |key: &str, day: &str| match day {
            "" => String::new(),
            day => format!("{key} = \"2026-04-{day}T00:00:00Z\"\n"),
        };
        let edges = edge("start", start) + &edge("end", end) + &edge("trial_end", trial_end);
        format!("[[subscription]]\ncustomer = \"a\"\nplan = \"{plan}\"\n{edges}")
    });
    let text = CATALOG.to_owned() + &tables.collect::<String>();
    let catalog = Catalog::parse(&text, "c").unwrap();
    let (id, customer) = catalog.customers.first_key_value().unwrap();
    let at = crate::period::parse_edge("2026-04-15T12:00:00Z").unwrap().start();
    let day = |bucket: Bucket| Zone::utc().rfc3339(bucket.start())[5..10].to_owned();
    let sections = sections(&catalog, id, customer, at).unwrap();
    let shown = sections.iter().map(|section| {
        let parts = section.parts.iter().map(|part| {
            let version = if part.plan.effective.is_some() { "new" } else { "old" };
            let Period { start, end } = part.share.part;
            let trial = if part.charging == Charging::Trial { "trial " } else { "" };
            format!(" {trial}{version} {}..{}", day(start), day(end))
        });
        format!("{}{}", section.subscription.plan, parts.collect::<String>())
    });
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[test]
fn a_period_is_cut_at_changes() {
    check(&[], &[]);
    check(&[("standard", "", "")], &["standard old 04-01..04-11 new 04-11..05-01"]);
    check(&[("standard", "11", "")], &["standard new 04-11..05-01"]);
    check(&[("standard", "05", "08")], &["standard old 04-05..04-08"]);
    check(
        &[("standard", "", "21"), ("yearly", "21", "")],
        &["standard old 04-01..04-11 new 04-11..04-21", "yearly old 04-21..01-01"],
    );
    // It has ended, though in this period; before it, it is not there.
    check(&[("standard", "", "02")], &["standard old 04-01..04-02"]);
    check(&[("standard", "", "01")], &[]);
}

#[test]
fn a_trial_is_a_part_of_its_own() {
    let on = |start, end| [("standard", start, end)];
    check_trial(
        "05",
        &on("", ""),
        &["standard trial old 04-01..04-05 old 04-05..04-11 new 04-11..05-01"],
    );
    check_trial("11", &on("03", ""), &["standard trial old 04-03..04-11 new 04-11..05-01"]);
    check_trial("15", &on("03", "14"), &["standard trial old 04-03..04-11 trial new 04-11..04-14"]);
    check_trial("01", &on("", ""), &["standard old 04-01..04-11 new 04-11..05-01"]);
}

#[test]
fn shares_of_a_month_add_up() {
    let edge = |text: &str| crate::period::parse_edge(text).unwrap();
    let period = Period { start: edge("2026-04-01T00:00:00Z"), end: edge("2026-05-01T00:00:00Z") };
    let eur = Currency::parse("EUR").unwrap();
    let of = |days: [u32; 2]| {
        let [start, end] =
            days.map(|day| Bucket(period.start.0.saturating_add(day.saturating_mul(96))));
        let share = Share { period, part: Period { start, end } };
        share.of(Price::parse("10").unwrap(), eur, Rounding::HalfUp).unwrap().amount()
    };
    assert_eq!(
        [of([0, 9]), of([9, 14]), of([14, 30]), of([0, 30])],
        ["3.00", "1.67", "5.33", "10.00"]
    );
}
