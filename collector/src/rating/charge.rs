//! What a billed quantity costs by each model, exactly.

use tidemark_common::quantity::{Quantity, UNITS_PER_ONE};

use crate::catalog::plan::{Model, TierPrice, Tiers};
use crate::money::{ExactAmount, Price};

/// A part of a charge, and how it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) text: String,
    pub(super) exact: ExactAmount,
}

/// The charge; `None` beyond what an exact amount holds.
pub(super) fn exact(model: &Model, billed: Quantity, events: u64) -> Option<ExactAmount> {
    let mut sum = Some(ExactAmount::ZERO);
    each_term(model, billed, events, &mut |exact, _| {
        sum = sum.zip(exact).and_then(|(sum, exact)| sum.checked_add(exact));
    });
    sum
}

/// The terms of a charge that [`exact`] can sum, in its order.
pub(super) fn terms(model: &Model, billed: Quantity, events: u64) -> Vec<Term> {
    let mut terms = Vec::new();
    each_term(model, billed, events, &mut |exact, text| {
        if let Some(exact) = exact {
            terms.push(Term { text: text(), exact });
        }
    });
    terms
}

/// What takes a term, and the words for it if they are wanted.
type Take<'t> = &'t mut dyn FnMut(Option<ExactAmount>, &dyn Fn() -> String);

fn each_term(model: &Model, billed: Quantity, events: u64, take: Take<'_>) {
    match model {
        Model::PerUnit { unit_price } => {
            take(Some(ExactAmount::product(billed, *unit_price)), &|| {
                format!("{billed} at {unit_price} each")
            });
        }
        Model::Package { size, price } => {
            let count = packages(billed, *size);
            take(count.and_then(|count| times(count, *price)), &|| {
                let count = count.unwrap_or_default();
                format!("{count} packages of {size}, the last one begun or full, at {price} each")
            });
        }
        Model::Graduated(tiers) => graduated(tiers, billed, take),
        Model::Volume(tiers) => volume(tiers, billed, take),
        Model::Percentage { percent, per_event } => {
            take(Some(ExactAmount::product(billed, percent.of_one())), &|| {
                format!("{percent} % of {billed}")
            });
            take(times(i128::from(events), *per_event), &|| {
                format!("{events} events at {per_event} each")
            });
        }
    }
}

/// A price, a whole number of times.
fn times(count: i128, price: Price) -> Option<ExactAmount> {
    count.checked_mul(UNITS_PER_ONE).map(|units| ExactAmount::product(Quantity(units), price))
}

/// How many packages hold the quantity: the last may be begun. Of what is taken back, only whole ones count.
fn packages(billed: Quantity, size: Quantity) -> Option<i128> {
    let whole = billed.0.checked_div_euclid(size.0)?;
    let begun = billed.0.checked_rem_euclid(size.0)? > 0;
    whole.checked_add(i128::from(begun))
}

fn graduated(tiers: &Tiers, billed: Quantity, take: Take<'_>) {
    if billed <= Quantity::ZERO {
        return at_first(tiers, billed, take);
    }
    let bounds = tiers.bounded.iter().map(|tier| (tier.up_to.min(billed), tier.price));
    let mut below = Quantity::ZERO;
    for (end, price) in bounds.chain([(billed, tiers.last)]) {
        if end <= below {
            break;
        }
        let held = Quantity(end.0.saturating_sub(below.0));
        let words = format!("above {below} up to {end}");
        priced(held, price, &words, take);
        below = end;
    }
}

fn volume(tiers: &Tiers, billed: Quantity, take: Take<'_>) {
    if billed <= Quantity::ZERO {
        return at_first(tiers, billed, take);
    }
    let holds = tiers.bounded.iter().find(|tier| billed <= tier.up_to);
    let words = match holds {
        Some(tier) => format!("all, in the tier up to {}", tier.up_to),
        None => "all, in the last tier".to_owned(),
    };
    priced(billed, holds.map_or(tiers.last, |tier| tier.price), &words, take);
}

/// Of what is nothing, or taken back.
fn at_first(tiers: &Tiers, billed: Quantity, take: Take<'_>) {
    let TierPrice { unit_price, .. } = first(tiers);
    take(Some(ExactAmount::product(billed, unit_price)), &|| {
        format!("{billed} at {unit_price} each, as in the first tier")
    });
}

fn priced(quantity: Quantity, price: TierPrice, words: &str, take: Take<'_>) {
    let TierPrice { unit_price, flat } = price;
    take(Some(ExactAmount::product(quantity, unit_price)), &|| {
        format!("{words}: {quantity} at {unit_price} each")
    });
    if flat != Price::default() {
        take(times(1, flat), &|| format!("{words}: flat"));
    }
}

fn first(tiers: &Tiers) -> TierPrice {
    tiers.bounded.first().map_or(tiers.last, |tier| tier.price)
}
