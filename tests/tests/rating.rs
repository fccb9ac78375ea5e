//! The product's rating against the second rater, which was written from the pricing document's words alone.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tidemark_collector::catalog::{Catalog, Subscription};
use tidemark_collector::period::Period;
use tidemark_collector::rating::{Gathered, Line, Taken};
use tidemark_collector::terms::{Charging, Part, Share};
use tidemark_collector::usage::{Accumulator, Class, Sign, UsageRow};
use tidemark_common::batch::Dimensions;
use tidemark_common::id::MeterName;
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_tests::random::Random;
use tidemark_tests::rated_twice;
use tidemark_tests::second_rater::Event;
use tidemark_tests::second_rater::catalogue::PLAN;
use tidemark_tests::second_rater::exact;
use tidemark_tests::second_rater::random::Case;
use tidemark_tests::second_rater::random::books::months;

/// Catalogues with usage that are rated twice.
const CASES: u64 = 10_000;
/// Of as many seeds at most: some make a catalogue that is refused, since a price of it could never take anything.
const SEEDS_MAX: u64 = 2 * CASES;

/// A file's plan, rated: quantity and amount of each line in minor units, the total, and the events without a price.
#[derive(Debug, PartialEq, Eq)]
struct Rated {
    fees: Vec<String>,
    /// Quantity, in units of 10^-9, and amount.
    prices: Vec<(String, String)>,
    commitment: Option<String>,
    total: String,
    unpriced_events: u64,
}

#[test]
fn both_raters_agree_on_ten_thousand_random_catalogues() -> Result<()> {
    let first = announced();
    let mut rated = 0;
    for seed in (0..SEEDS_MAX).map(|nth| first.wrapping_add(nth)) {
        let case = Case::new(seed);
        let Some(found) = by_product(&case).with_context(|| format!("seed {seed}"))? else {
            continue;
        };
        let expected = by_second_rater(&case);
        ensure!(
            found == expected,
            "seed {seed}: {found:?}, and not {expected:?} of\n{}\n{case:?}",
            case.catalogue()
        );
        rated += 1;
        if rated == CASES {
            return Ok(());
        }
    }
    anyhow::bail!("of {SEEDS_MAX} seeds only {rated} made a catalogue")
}

/// Customers with random subscriptions to random plans, each billed at `INSTANTS` instants.
const CUSTOMERS: usize = 2_500;

#[test]
fn both_raters_agree_on_ten_thousand_bills_of_a_running_product() -> Result<()> {
    let instants = months(2025, &[2, 4, 7, 10]);
    let agreed = rated_twice::run(announced(), CUSTOMERS, instants)?;
    tell(&agreed);
    ensure!(agreed.bills >= 10_000, "{agreed:?}");
    ensure!(agreed.lines > agreed.bills && agreed.events > CUSTOMERS, "{agreed:?}");
    Ok(())
}

/// Customers that are invoiced by five runs, with taxes of all kinds.
const INVOICED: usize = 800;

#[test]
fn both_raters_agree_on_the_documents_of_random_customers() -> Result<()> {
    let agreed =
        rated_twice::documents::run(announced(), INVOICED, months(2025, &[4, 5, 6, 7, 8]))?;
    tell(&agreed);
    ensure!(agreed.invoices > INVOICED / 2, "{agreed:?}");
    ensure!(agreed.credit_notes > 0 && agreed.credit_used > 0, "{agreed:?}");
    Ok(())
}

/// A fresh seed, printed.
#[expect(clippy::print_stdout, reason = "a failed test shows its seeds")]
fn announced() -> u64 {
    let first = Random::fresh_seed();
    println!("seeds from {first}");
    first
}

#[expect(clippy::print_stdout, reason = "a person sees how much was compared")]
fn tell(agreed: &impl std::fmt::Debug) {
    println!("{agreed:?}");
}

fn by_second_rater(case: &Case) -> Rated {
    let amounts = case.amounts();
    let billion = exact("1000000000");
    Rated {
        fees: amounts.fees.iter().map(ToString::to_string).collect(),
        prices: amounts
            .prices
            .iter()
            .map(|(quantity, amount)| ((quantity * &billion).to_string(), amount.to_string()))
            .collect(),
        commitment: amounts.commitment.map(|amount| amount.to_string()),
        total: amounts.total.to_string(),
        unpriced_events: amounts.unpriced_events,
    }
}

/// `None`: the catalogue is refused for a price that could never take anything.
fn by_product(case: &Case) -> Result<Option<Rated>> {
    let catalog = match Catalog::parse(&case.catalogue(), "catalogue") {
        Ok(catalog) => catalog,
        Err(problems)
            if problems
                .iter()
                .all(|problem| problem.message.contains("takes all that it could")) =>
        {
            return Ok(None);
        }
        Err(problems) => anyhow::bail!("{problems:?} of\n{}", case.catalogue()),
    };
    let span = case.span;
    let subscription = Subscription::default();
    let share = Share {
        period: Period { start: Bucket(span.start), end: Bucket(span.end) },
        part: Period { start: Bucket(span.from), end: Bucket(span.to) },
    };
    let plan = catalog.plans.get(PLAN).and_then(|versions| versions.first()).context("no plan")?;
    let mut gathered = Gathered::new(Part {
        plan,
        subscription: &subscription,
        share,
        charging: Charging::Charged,
        rounding: plan.rounding.unwrap_or_default(),
    });
    let mut unpriced_events = 0;
    for event in &case.events {
        match gathered.take(&row(event)?)? {
            Taken::Priced => {}
            Taken::Unpriced => unpriced_events += 1,
            Taken::OtherTime => anyhow::bail!("{event:?} is not of the part"),
        }
    }
    let bill = gathered.rate(&catalog)?;
    let (mut fees, mut prices, mut commitment) = (Vec::new(), Vec::new(), None);
    for line in &bill.lines {
        let amount = line.amount().minor.to_string();
        match line {
            Line::Fee { .. } => fees.push(amount),
            Line::Usage(line) => prices.push((line.quantity.0.to_string(), amount)),
            Line::Commitment { .. } => commitment = Some(amount),
            Line::Discount { .. } => anyhow::bail!("{line:?} is not in the plan"),
        }
    }
    let total = bill.total.minor.to_string();
    Ok(Some(Rated { fees, prices, commitment, total, unpriced_events }))
}

fn row(event: &Event) -> Result<UsageRow> {
    let time = Timestamp(event.time);
    let mut usage = Accumulator { events: 1, ..Accumulator::default() };
    if let Some(text) = &event.quantity {
        let quantity = Quantity::parse(text.as_bytes())?;
        usage.quantity_events = 1;
        (usage.sum, usage.min, usage.max) = (quantity, quantity, quantity);
        usage.latest = Some((time, quantity));
    }
    if let Some(text) = &event.unique {
        usage.unique_events = 1;
        let mut digest = [0; 16];
        ensure!(text.len() <= digest.len(), "{text:?} is too long to stand for itself");
        digest.iter_mut().zip(text.bytes()).for_each(|(held, byte)| *held = byte);
        usage.uniques.insert((1, digest));
    }
    let pairs: BTreeMap<_, _> = event.dimensions.iter().collect();
    let pairs =
        pairs.into_iter().map(|(name, value)| (name.as_str().into(), value.as_str().into()));
    Ok(UsageRow {
        sign: Sign::Added,
        class: Class::Normal,
        meter: MeterName::parse(&event.meter)?,
        dimensions: Dimensions::new(pairs.collect())?,
        bucket: Bucket::of(time).context("a time that no bucket holds")?,
        usage,
    })
}
