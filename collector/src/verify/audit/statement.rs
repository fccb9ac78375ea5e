//! A certificate's statement: what it says of the whole ledger.
//!
//! **Owns** reading it, and comparing its sums. Evidence, duplicates, findings, waivers and policies are read and counted: no
//! batch proves them.

use std::collections::BTreeMap;

use super::gathered::Sums;
use crate::verify::json::{self, Fields, Value};
use crate::verify::{Refusal, ensure};

const PLACE: &str = "the statement";

/// Of a meter and class: rows, events, and the sum as text.
type Meters = BTreeMap<(String, String), (u64, u128, String)>;

#[derive(Debug)]
pub(super) struct Statement {
    pub(super) salt: [u8; 32],
    customers: u64,
    days: u64,
    rows: u64,
    corrections: u64,
    meters: Meters,
    pub(super) listed: u64,
    posted: u128,
    quarantined: u128,
    pub(super) findings: usize,
    pub(super) waivers: usize,
    pub(super) policies: usize,
}

impl Statement {
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let value = json::parse(text, PLACE)?;
        let mut fields = Fields::of(&value, PLACE)?;
        fields.format("tidemark statement 1")?;
        let salt = fields.hex("salt")?;
        let mut usage = Fields::of(fields.value("usage")?, "the statement's usage")?;
        let (customers, days) = (usage.number("customers")?, usage.number("days")?);
        let (rows, corrections) = (usage.number("rows")?, usage.number("corrections")?);
        let meters = meters(usage.list("meters")?)?;
        usage.finish()?;
        let mut streams = Fields::of(fields.value("streams")?, "the statement's streams")?;
        let listed = streams.number("listed")?;
        for state in ["open", "closed", "lost", "conflict"] {
            let _count: u64 = streams.number(state)?;
        }
        let accepted: u128 = streams.number("accepted")?;
        let (posted, quarantined): (u128, u128) =
            (streams.number("posted")?, streams.number("quarantined")?);
        let in_transit: u128 = streams.number("in_transit")?;
        streams.finish()?;
        let come = posted.saturating_add(quarantined).saturating_add(in_transit);
        ensure(accepted == come, "the statement's streams", || {
            format!("{accepted} events were accepted, and {come} are told of")
        })?;
        let evidence = fields.value("evidence")?;
        ensure(matches!(evidence, Value::Object(_)), PLACE, || "evidence is no object".to_owned())?;
        let _duplicates: u64 = fields.number("duplicates")?;
        let findings = fields.list("findings")?.len();
        let waivers = fields.list("waivers")?.len();
        let policies = fields.list("policies")?.len();
        fields.finish()?;
        Ok(Self {
            salt,
            customers,
            days,
            rows,
            corrections,
            meters,
            listed,
            posted,
            quarantined,
            findings,
            waivers,
            policies,
        })
    }

    /// What the batches and the books come to.
    pub(super) fn check_usage(&self, sums: &Sums) -> Result<(), Refusal> {
        for (what, said, found) in [
            ("customers", self.customers, sums.customers),
            ("days", self.days, sums.days),
            ("rows", self.rows, sums.rows),
            ("corrections", self.corrections, sums.corrections),
        ] {
            let hint =
                if what == "corrections" { " (they are in the archive's books/)" } else { "" };
            ensure(said == found, "the statement's usage", || {
                format!("it says {said} {what}, and the archive comes to {found}{hint}")
            })?;
        }
        let found: Meters = sums
            .meters
            .iter()
            .map(|(key, (rows, events, sum))| (key.clone(), (*rows, *events, sum.text())))
            .collect();
        let differs = self.meters.iter().find(|(key, said)| found.get(*key) != Some(*said));
        if let Some(((meter, class), (rows, events, sum))) = differs {
            let own = found.get(&(meter.clone(), class.clone()));
            let own = own.map_or_else(
                || "nothing".to_owned(),
                |(rows, events, sum)| format!("{rows} rows, {events} events, {sum}"),
            );
            return Err(Refusal::new(
                format!("the statement's meter {meter}, {class}"),
                format!(
                    "it says {rows} rows, {events} events, {sum}, and the batches come to {own}"
                ),
            ));
        }
        ensure(found.len() == self.meters.len(), "the statement's usage", || {
            "the batches have usage of a meter that it leaves out".to_owned()
        })
    }

    /// Events in batches, and those of batches that were set aside.
    pub(super) fn check_events(&self, events: u128, quarantined: u128) -> Result<(), Refusal> {
        let said = (self.posted.saturating_add(self.quarantined), self.quarantined);
        ensure(said == (events, quarantined), "the statement's streams", || {
            format!(
                "it says {} posted and {} quarantined, and the batches hold {events} events, {quarantined} of them set aside",
                self.posted, self.quarantined
            )
        })
    }
}

fn meters(listed: &[Value]) -> Result<Meters, Refusal> {
    let place = "the statement's meters";
    let mut meters = Meters::new();
    for value in listed {
        let mut fields = Fields::of(value, place)?;
        let key = (fields.text("meter")?.to_owned(), fields.text("class")?.to_owned());
        let sums =
            (fields.number("rows")?, fields.number("events")?, fields.text("sum")?.to_owned());
        fields.finish()?;
        ensure(meters.insert(key, sums).is_none(), place, || "one stands twice".to_owned())?;
    }
    Ok(meters)
}
