//! What a billed quantity costs by each model, exactly.

use tidemark_common::quantity::{Quantity, UNITS_PER_ONE};

use crate::catalog::plan::{Model, TierPrice, Tiers};
use crate::money::{ExactAmount, Price};

/// The charge; `None` beyond what an exact amount holds.
pub(super) fn exact(model: &Model, billed: Quantity, events: u64) -> Option<ExactAmount> {
    match model {
        Model::PerUnit { unit_price } => Some(ExactAmount::product(billed, *unit_price)),
        Model::Package { size, price } => times(packages(billed, *size)?, *price),
        Model::Graduated(tiers) => graduated(tiers, billed),
        Model::Volume(tiers) => volume(tiers, billed),
        Model::Percentage { percent, per_event } => {
            let share = ExactAmount::product(billed, percent.of_one());
            share.checked_add(times(i128::from(events), *per_event)?)
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

fn graduated(tiers: &Tiers, billed: Quantity) -> Option<ExactAmount> {
    if billed <= Quantity::ZERO {
        return Some(ExactAmount::product(billed, first(tiers).unit_price));
    }
    let bounds = tiers.bounded.iter().map(|tier| (tier.up_to.min(billed), tier.price));
    let mut sum = ExactAmount::ZERO;
    let mut below = Quantity::ZERO;
    for (end, price) in bounds.chain([(billed, tiers.last)]) {
        if end <= below {
            break;
        }
        let held = Quantity(end.0.checked_sub(below.0)?);
        sum = sum.checked_add(priced(held, price)?)?;
        below = end;
    }
    Some(sum)
}

fn volume(tiers: &Tiers, billed: Quantity) -> Option<ExactAmount> {
    if billed <= Quantity::ZERO {
        return Some(ExactAmount::product(billed, first(tiers).unit_price));
    }
    let holds = tiers.bounded.iter().find(|tier| billed <= tier.up_to);
    priced(billed, holds.map_or(tiers.last, |tier| tier.price))
}

fn priced(quantity: Quantity, price: TierPrice) -> Option<ExactAmount> {
    ExactAmount::product(quantity, price.unit_price).checked_add(times(1, price.flat)?)
}

fn first(tiers: &Tiers) -> TierPrice {
    tiers.bounded.first().map_or(tiers.last, |tier| tier.price)
}
