//! A ledger with a month's usage of every customer, which is copied for each round; and what that comes to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::books::{Found, check};
use crate::doors::Lines;
use crate::random::Random;
use crate::settings::{Ports, Settings, TOKEN};
use crate::stack::Stack;
use crate::wait::unix_seconds;

/// Fees in arrears and in advance, usage, and a tax on top.
const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
[[plan]]
name = "standard"
currency = "EUR"
[[plan.fee]]
name = "Base"
amount = "10"
[[plan.fee]]
name = "Support"
amount = "5"
timing = "advance"
[[plan.price]]
meter = "api.calls"
unit_price = "0.01"
[[tax]]
name = "standard"
label = "VAT 19 %"
percent = "19"
[[seller]]
name = "main"
legal_name = "Tide GmbH"
address = ["Am Ufer 1", "20095 Hamburg"]
tax_id = "DE123456789"
tax = "standard"
"#;
/// Sees the books; it may not do anything.
pub(super) const AUDITOR_TOKEN: &str = "an-auditors-token-for-tests";
/// Usage of each customer, each at an hour of its own.
const EVENTS_EACH: u32 = 3;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// Both programs have ended; the ledger's folder is set aside.
pub(super) struct Prepared {
    pub(super) stack: Stack,
    /// The first day of this month.
    pub(super) period_end: String,
    /// What each customer has used.
    pub(super) calls: BTreeMap<String, u64>,
    pub(super) events: u64,
}

impl Prepared {
    pub(super) fn new(customers: u32, random: &mut Random) -> Result<Self> {
        let ids: Vec<String> = (1..=customers).map(|number| format!("c{number:05}")).collect();
        let mut catalogue = CATALOGUE.to_owned();
        for id in &ids {
            catalogue.push_str(&format!("[[customer]]\nid = \"{id}\"\nplan = \"standard\"\n"));
        }
        let settings = Settings::new(Ports::free()?, &catalogue);
        let tokens = [("tests", TOKEN, "viewer"), ("auditor", AUDITOR_TOKEN, "auditor")];
        let tokens: Vec<_> = tokens
            .map(|(name, token, role)| {
                toml::toml! { name = name token = token role = role }
            })
            .into();
        // The agent has nothing to wait for when it ends.
        let settings = settings.collector("api.token", tokens).agent("shutdown_grace", "100ms");
        let mut stack = Stack::start(settings)?;
        let (period_end, edge) = this_month(&stack)?;
        let (mut calls, mut text) = (BTreeMap::new(), String::new());
        for id in ids {
            let mut sum = 0;
            for hour in 1..=u64::from(EVENTS_EACH) {
                let (used, at) = (1 + random.below(500), edge - hour * HOUR);
                text.push_str(&format!("api.calls:{used}|c|#customer:{id}|T{at}\n"));
                sum += used;
            }
            calls.insert(id, sum);
        }
        let events = u64::from(customers) * u64::from(EVENTS_EACH);
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        lines.send(text.as_bytes(), events)?;
        let refusals = lines.wait_durable()?;
        ensure!(refusals.is_empty(), "{refusals:?}");
        stack.wait_posted(events)?;
        stack.stop_agent()?;
        stack.stop_collector()?;
        fs::rename(stack.path("ledger"), stack.path("prepared"))?;
        Ok(Self { stack, period_end, calls, events })
    }

    /// The ledger as it was before any run.
    pub(super) fn copy_ledger(&self) -> Result<()> {
        let (from, to) = (self.stack.path("prepared"), self.stack.path("ledger"));
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        fs::create_dir(&to)?;
        fs::set_permissions(&to, fs::metadata(&from)?.permissions())?;
        for file in fs::read_dir(&from)? {
            let file = file?;
            let copied = fs::copy(file.path(), to.join(file.file_name()));
            copied.with_context(|| format!("failed to copy {}", shown(&file.path())))?;
        }
        Ok(())
    }

    /// Checks the running collector's books; `told` are numbers of invoices that must be there.
    pub(super) fn books(&self, told: &BTreeMap<String, String>) -> Result<Found> {
        check(&self.stack.api(), &self.calls, told)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The first day of the collector's current month in UTC, and its first second.
fn this_month(stack: &Stack) -> Result<(String, u64)> {
    let now = unix_seconds();
    let as_of = stack.api().streams()?.as_of;
    let (month, day) = as_of.get(..7).zip(as_of.get(8..10)).context("as_of is a date")?;
    let days_before = day.parse::<u64>()? - 1;
    Ok((format!("{month}-01"), now - now % DAY - days_before * DAY))
}
