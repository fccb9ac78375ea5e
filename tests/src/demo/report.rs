//! What the demonstration came to: drawn from both programs, checked, and shown.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::api::Bill;
use crate::stack::Stack;

use super::load::{CUSTOMERS, Sent};

/// The whole outcome; `--json` prints it as one object.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub sent: u64,
    /// By the agent's own count.
    pub accepted: u64,
    /// By the ledger's count.
    pub posted: u64,
    /// On the lines of the live bills.
    pub billed: u64,
    /// Accepted = posted, nothing on its way, the table adds up, and every event that a client was
    /// told is durable is posted once.
    pub conserved: bool,
    pub customers: BTreeMap<String, CustomerRow>,
    pub doors: BTreeMap<String, DoorRow>,
}

/// One customer.
#[derive(Debug, Clone, Serialize)]
pub struct CustomerRow {
    pub sent: u64,
    pub accepted: u64,
    pub posted: u64,
    pub billed: u64,
    pub bill: BillShown,
}

/// One door.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DoorRow {
    /// Whether clients are told what is durable.
    pub acknowledged: bool,
    pub sent: u64,
    pub accepted: u64,
    pub posted: u64,
}

/// A live bill.
#[derive(Debug, Clone, Serialize)]
pub struct BillShown {
    pub lines: Vec<LineShown>,
    pub total: String,
    pub currency: String,
    pub as_of: String,
}

/// One of its lines.
#[derive(Debug, Clone, Serialize)]
pub struct LineShown {
    pub meter: String,
    pub quantity: String,
    pub unit_price: String,
    pub amount: String,
}

/// Asks both programs for every figure.
pub(super) fn make(stack: &Stack, sent: &Sent) -> Result<Report> {
    let agent = stack.agent_metrics()?;
    let streams = stack.api().streams()?.streams;
    let mut report = Report {
        sent: 0,
        accepted: agent.count("tidemark_agent_accepted_events_total")?,
        posted: streams.iter().map(|stream| stream.posted_events).sum(),
        billed: 0,
        conserved: true,
        customers: BTreeMap::new(),
        doors: BTreeMap::new(),
    };
    for customer in CUSTOMERS {
        let by_door = posted_by_door(stack, customer)?;
        let mut row = customer_row(stack.api().bill(customer)?);
        for (door, posted) in &by_door {
            let (acknowledged, sent, accepted) = match sent.durable.get(door.as_str()) {
                Some(durable) => {
                    let durable = durable.events_of(customer);
                    (true, durable, durable)
                }
                None => {
                    let handed = sent.unacknowledged.iter();
                    let of = handed.filter(|((at, who), _)| at == door && who == customer);
                    (false, of.map(|(_, count)| count).sum(), *posted)
                }
            };
            report.conserved &= accepted == *posted;
            let total = report.doors.entry(door.clone()).or_default();
            total.acknowledged = acknowledged;
            add(&mut total.sent, sent);
            add(&mut total.accepted, accepted);
            add(&mut total.posted, *posted);
            add(&mut row.sent, sent);
            add(&mut row.accepted, accepted);
            add(&mut row.posted, *posted);
        }
        report.conserved &= row.posted == row.billed;
        add(&mut report.sent, row.sent);
        add(&mut report.billed, row.billed);
        report.customers.insert((*customer).to_owned(), row);
    }
    let in_table: u64 = report.customers.values().map(|row| row.accepted).sum();
    let in_transit = agent.count("tidemark_agent_in_transit_events")?;
    report.conserved &=
        report.accepted == report.posted && in_table == report.accepted && in_transit == 0;
    Ok(report)
}

/// A customer's posted events by the dimension `door`; every door that was sent to has an entry.
fn posted_by_door(stack: &Stack, customer: &str) -> Result<BTreeMap<String, u64>> {
    let mut doors: BTreeMap<String, u64> = ["udp", "unix_datagram", "dsd_stream", "events", "http"]
        .into_iter()
        .map(|door| (door.to_owned(), 0))
        .collect();
    for entry in stack.api().usage(customer, "&group_by=door")?.usage {
        let door = entry.dimensions.get("door").cloned().flatten().unwrap_or_default();
        add(doors.entry(door).or_default(), entry.events);
    }
    Ok(doors)
}

fn customer_row(bill: Bill) -> CustomerRow {
    let lines: Vec<_> = bill.sections.into_iter().flat_map(|section| section.lines).collect();
    let billed = lines.iter().map(|line| line.events).sum();
    let lines = lines.into_iter().map(|line| LineShown {
        meter: line.meter,
        quantity: line.quantity,
        unit_price: line.unit_price,
        amount: line.amount,
    });
    let bill = BillShown {
        lines: lines.collect(),
        total: bill.total,
        currency: bill.currency,
        as_of: bill.as_of,
    };
    CustomerRow { sent: 0, accepted: 0, posted: 0, billed, bill }
}

fn add(total: &mut u64, count: u64) {
    *total = total.saturating_add(count);
}

impl Report {
    /// The tables for people, the bills, and the closing line.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        writeln!(out)?;
        header(out, "customer", ["sent", "accepted", "posted", "billed"])?;
        for (customer, row) in &self.customers {
            line(out, customer, [row.sent, row.accepted, row.posted, row.billed])?;
        }
        line(out, "all", [self.sent, self.accepted, self.posted, self.billed])?;
        writeln!(out)?;
        header(out, "door", ["sent", "accepted", "posted", "not accepted"])?;
        for (door, row) in &self.doors {
            let missing = row.sent.saturating_sub(row.accepted);
            line(out, door, [row.sent, row.accepted, row.posted, missing])?;
        }
        writeln!(
            out,
            "\nudp, unix_datagram and dsd_stream are not acknowledged: what was sent to a dead agent, or\n\
             not yet on disk when it was killed, is not accepted. events and http lose nothing: what was\n\
             not acknowledged was sent again, with the same ids.\n\nThe live bill:"
        )?;
        for (customer, row) in &self.customers {
            for shown in &row.bill.lines {
                writeln!(
                    out,
                    "  {customer:<10} {:<12} {:>22} x {:<10} = {:>12} {}",
                    shown.meter, shown.quantity, shown.unit_price, shown.amount, row.bill.currency
                )?;
            }
            writeln!(
                out,
                "  {customer:<10} {:<12} {:>22}   {:<10}   {:>12} {}",
                "total", "", "", row.bill.total, row.bill.currency
            )?;
        }
        let verdict = if self.conserved {
            "exactly: nothing lost, nothing counted twice"
        } else {
            "NOT conserved: see the tables above"
        };
        writeln!(out, "\naccepted {} = posted {}: {verdict}", self.accepted, self.posted)?;
        Ok(())
    }
}

fn header(out: &mut dyn Write, first: &str, names: [&str; 4]) -> Result<()> {
    let [a, b, c, d] = names;
    Ok(writeln!(out, "{first:<14} {a:>12} {b:>12} {c:>12} {d:>12}")?)
}

fn line(out: &mut dyn Write, first: &str, counts: [u64; 4]) -> Result<()> {
    let [a, b, c, d] = counts;
    Ok(writeln!(out, "{first:<14} {a:>12} {b:>12} {c:>12} {d:>12}")?)
}
