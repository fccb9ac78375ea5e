//! The charge of B, exact and in whole currency units, by a price's model.
//!
//! **Owns** the models and their tiers. **Does not own** B, rounding, minimum and maximum.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::exact::exact;
use super::{Model, Tier};

/// The charge of `billed`; `events` are all that the price takes, whatever is included.
pub(super) fn charge(model: &Model, billed: &BigRational, events: usize) -> BigRational {
    match model {
        Model::PerUnit { unit_price } => billed * exact(unit_price),
        Model::Package { size, price } => {
            let size = exact(size);
            assert!(size > exact("0"), "a package holds something");
            (billed / size).ceil() * exact(price)
        }
        Model::Graduated(tiers) => graduated(tiers, billed),
        Model::Volume(tiers) => volume(tiers, billed),
        Model::Percentage { percent, per_event } => {
            let events = BigRational::from_integer(BigInt::from(events));
            billed * exact(percent) / exact("100") + exact(per_event) * events
        }
    }
}

/// Each tier's share of B at its own price, and the `flat` of each tier that has a share.
fn graduated(tiers: &[Tier], billed: &BigRational) -> BigRational {
    if *billed <= exact("0") {
        return billed * exact(&tiers[0].unit_price);
    }
    let mut charge = exact("0");
    for (tier, before, up_to) in bounds(tiers) {
        let end = match up_to {
            Some(up_to) if up_to < *billed => up_to,
            _ => billed.clone(),
        };
        let share = end - before;
        if share > exact("0") {
            charge += share * exact(&tier.unit_price) + exact(&tier.flat);
        }
    }
    charge
}

/// All of B at the price of the tier that holds it, and that tier's `flat`.
fn volume(tiers: &[Tier], billed: &BigRational) -> BigRational {
    if *billed <= exact("0") {
        return billed * exact(&tiers[0].unit_price);
    }
    for (tier, before, up_to) in bounds(tiers) {
        if *billed > before && up_to.is_none_or(|up_to| *billed <= up_to) {
            return billed * exact(&tier.unit_price) + exact(&tier.flat);
        }
    }
    panic!("the last tier has no end");
}

/// Each tier with the bound that it lies above, and the one that it reaches up to.
fn bounds(tiers: &[Tier]) -> Vec<(&Tier, BigRational, Option<BigRational>)> {
    let mut before = exact("0");
    let mut bounds = Vec::new();
    for (index, tier) in tiers.iter().enumerate() {
        let up_to = tier.up_to.as_deref().map(exact);
        assert_eq!(
            up_to.is_none(),
            index + 1 == tiers.len(),
            "the last tier, and only it, has no up_to"
        );
        bounds.push((tier, before.clone(), up_to.clone()));
        if let Some(up_to) = up_to {
            assert!(up_to > before, "tiers ascend");
            before = up_to;
        }
    }
    bounds
}
