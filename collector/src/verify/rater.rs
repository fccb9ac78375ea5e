//! The second rater: amounts of fees and usage by a plan's text, and the line that a document must show of each.
//!
//! **Owns** the rules of `deploy/docs/pricing.md` from a quantity to an amount, and the shape of `rated`. **Does not own** the
//! quantity, or which lines there are.

use num_bigint::BigInt;

use super::exact::{self, PERCENT_PLACES, PRICE_PLACES, QUANTITY_PLACES, Rounding};
use super::json::Value;
use super::tariff::{Fee, Model, Plan, Price, Subscription, Tier};

/// A part of a section's period: buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) from: u32,
    pub(super) to: u32,
    /// Above the start.
    pub(super) end: u32,
}

/// What holds in a part.
#[derive(Debug)]
pub(super) struct Terms<'t> {
    pub(super) plan: &'t Plan,
    pub(super) subscription: &'t Subscription,
    pub(super) span: Span,
    pub(super) trial: bool,
    pub(super) rounding: Rounding,
    pub(super) currency: &'t str,
    /// Of the currency.
    pub(super) places: u32,
}

/// Usage as it is charged.
#[derive(Debug, Clone)]
pub(super) struct Used {
    /// In units of 10^-9.
    pub(super) quantity: BigInt,
    pub(super) events: u64,
}

/// What no plan says of a meter.
#[derive(Debug, Clone)]
pub(super) struct MeterShown {
    pub(super) aggregation: Value,
    pub(super) unit: Option<Value>,
}

/// What `rated` must be, but for its `part`, and its amount in minor units.
#[derive(Debug)]
pub(super) struct Rated {
    pub(super) shown: Vec<(String, Value)>,
    pub(super) amount: BigInt,
}

impl Span {
    pub(super) fn is_whole(self) -> bool {
        (self.from, self.to) == (self.start, self.end)
    }

    pub(super) fn quarters(self) -> u32 {
        self.to.saturating_sub(self.from)
    }

    pub(super) fn length(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// due(to) - due(from), of `whole` * passed quarters, and the period's length.
    fn prorate(self, whole: &BigInt, due: impl Fn(&BigInt, &BigInt) -> BigInt) -> BigInt {
        let length = BigInt::from(self.length());
        let until = |instant: u32| {
            let passed = BigInt::from(instant.saturating_sub(self.start));
            due(&exact::multiply(whole, &passed), &length)
        };
        exact::subtract(&until(self.to), &until(self.from))
    }
}

impl<'t> Terms<'t> {
    /// The plan's fees, or the subscription's in their place; then those that it adds.
    pub(super) fn fees(&self) -> Vec<&'t Fee> {
        let own = &self.subscription.fees;
        let of_plan = &self.plan.fees;
        let replaced = |fee: &'t Fee| own.iter().find(|own| own.name == fee.name).unwrap_or(fee);
        let added = own.iter().filter(|own| of_plan.iter().all(|fee| fee.name != own.name));
        of_plan.iter().map(replaced).chain(added).collect()
    }

    /// The subscription's prices, then the plan's, without those for which nothing is left.
    pub(super) fn prices(&self) -> Vec<&'t Price> {
        let own = &self.subscription.prices;
        let left = |price: &&Price| !own.iter().any(|own| own.hides(price));
        own.iter().chain(self.plan.prices.iter().filter(left)).collect()
    }

    /// The part's share of an amount for the period, in minor units.
    pub(super) fn share(&self, amount: &BigInt) -> BigInt {
        let unit = exact::power_of_ten(PRICE_PLACES.saturating_sub(self.places));
        self.span.prorate(amount, |whole, length| {
            exact::round(whole, &exact::multiply(length, &unit), self.rounding)
        })
    }

    fn charged(&self, amount: BigInt) -> BigInt {
        if self.trial { BigInt::ZERO } else { amount }
    }

    pub(super) fn fee(&self, fee: &Fee) -> Rated {
        let amount = self.charged(self.share(&fee.amount));
        let shown = vec![
            text("kind", "fee"),
            text("name", &fee.name),
            text("timing", &fee.timing),
            text("fee", &exact::shortest(&fee.amount, PRICE_PLACES)),
        ];
        self.rated(shown, amount)
    }

    /// What is taken off lines that come to `sum`.
    pub(super) fn discount(&self, percent: &BigInt, sum: &BigInt) -> Rated {
        let off = exact::round(
            &exact::multiply(sum, percent),
            &exact::power_of_ten(PERCENT_PLACES.saturating_add(2)),
            self.rounding,
        );
        let percent = exact::shortest(percent, PERCENT_PLACES);
        let shown = vec![text("kind", "discount"), text("percent", &percent)];
        self.rated(shown, exact::negated(&off))
    }

    /// What lines that come to `sum` are short of the commitment.
    pub(super) fn commitment(&self, commitment: &BigInt, sum: &BigInt) -> Rated {
        let least = self.charged(self.share(commitment));
        let short = exact::subtract(&least, sum).max(BigInt::ZERO);
        self.rated(commitment_shown(commitment), short)
    }

    /// What a term's lines are short of what is due of it.
    pub(super) fn term(&self, commitment: &BigInt, due: &BigInt, charged: &BigInt) -> Rated {
        let short = exact::subtract(due, charged).max(BigInt::ZERO);
        self.rated(commitment_shown(commitment), short)
    }

    pub(super) fn usage(&self, price: &Price, used: &Used, meter: &MeterShown) -> Rated {
        let Used { quantity, events } = used;
        let included = self.span.prorate(&price.included, exact::ceil);
        let billed = if *quantity <= BigInt::ZERO {
            quantity.clone()
        } else {
            exact::subtract(quantity, &included).max(BigInt::ZERO)
        };
        let places = PRICE_PLACES.saturating_add(QUANTITY_PLACES).saturating_sub(self.places);
        let exact_charge = charge(&price.model, &billed, *events);
        let charge = exact::round(&exact_charge, &exact::power_of_ten(places), self.rounding);
        let raised = match &price.minimum {
            Some(minimum) => charge.clone().max(self.share(minimum)),
            None => charge.clone(),
        };
        let bounded = match &price.maximum {
            Some(maximum) => raised.min(self.share(maximum)),
            None => raised,
        };
        let amount = self.charged(bounded);

        let decimal = |value: &BigInt| exact::shortest(value, QUANTITY_PLACES);
        let mut shown = vec![text("kind", "usage"), text("meter", &price.meter)];
        if !price.filter.is_empty() {
            let filter = price.filter.iter().map(|(name, value)| text(name, value)).collect();
            shown.push(("where".to_owned(), Value::Object(filter)));
        }
        shown.push(("aggregation".to_owned(), meter.aggregation.clone()));
        shown.extend(meter.unit.clone().map(|unit| ("unit".to_owned(), unit)));
        shown.push(text("quantity", &decimal(quantity)));
        shown.push(("events".to_owned(), Value::Integer((*events).into())));
        if price.included != BigInt::ZERO {
            shown.push(text("included", &decimal(&included)));
            shown.push(text("billed", &decimal(&billed)));
        }
        shown.extend(model_shown(&price.model));
        for (key, bound) in [("minimum", &price.minimum), ("maximum", &price.maximum)] {
            shown.extend(bound.iter().map(|bound| money(key, bound)));
        }
        if charge != amount {
            shown.push(text("charge", &exact::with_places(&charge, self.places)));
        }
        self.rated(shown, amount)
    }

    fn rated(&self, mut shown: Vec<(String, Value)>, amount: BigInt) -> Rated {
        shown.push(text("amount", &exact::with_places(&amount, self.places)));
        shown.push(text("currency", self.currency));
        Rated { shown, amount }
    }
}

fn text(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), Value::Text(value.to_owned()))
}

fn money(key: &str, price: &BigInt) -> (String, Value) {
    text(key, &exact::shortest(price, PRICE_PLACES))
}

fn commitment_shown(commitment: &BigInt) -> Vec<(String, Value)> {
    vec![text("kind", "commitment"), money("commitment", commitment)]
}

fn model_shown(model: &Model) -> Vec<(String, Value)> {
    let tiers = |name: &str, tiers: &[Tier]| {
        let tiers = tiers.iter().map(|tier| {
            let bound = tier.up_to.iter();
            let bound = bound.map(|bound| text("up_to", &exact::shortest(bound, QUANTITY_PLACES)));
            let prices = [money("unit_price", &tier.unit_price), money("flat", &tier.flat)];
            Value::Object(bound.chain(prices).collect())
        });
        vec![text("model", name), ("tiers".to_owned(), Value::List(tiers.collect()))]
    };
    match model {
        Model::PerUnit { unit_price } => {
            vec![text("model", "per_unit"), money("unit_price", unit_price)]
        }
        Model::Package { size, price } => vec![
            text("model", "package"),
            text("package_size", &exact::shortest(size, QUANTITY_PLACES)),
            money("package_price", price),
        ],
        Model::Graduated(listed) => tiers("graduated", listed),
        Model::Volume(listed) => tiers("volume", listed),
        Model::Percentage { percent, per_event } => vec![
            text("model", "percentage"),
            text("percent", &exact::shortest(percent, PERCENT_PLACES)),
            money("per_event", per_event),
        ],
    }
}

/// The charge of a billed quantity, in units of 10^-21.
fn charge(model: &Model, billed: &BigInt, events: u64) -> BigInt {
    let one = exact::power_of_ten(QUANTITY_PLACES);
    match model {
        Model::PerUnit { unit_price } => exact::multiply(billed, unit_price),
        Model::Package { size, price } => {
            let packages = exact::ceil(billed, size);
            exact::multiply(&exact::multiply(&packages, price), &one)
        }
        Model::Percentage { percent, per_event } => {
            // A percentage is a price of 10^-12 for each unit.
            let of_value = exact::multiply(billed, percent);
            let of_events = exact::multiply(&exact::multiply(&events.into(), per_event), &one);
            exact::add(&of_value, &of_events)
        }
        Model::Graduated(tiers) | Model::Volume(tiers) if *billed <= BigInt::ZERO => {
            tiers.first().map_or(BigInt::ZERO, |tier| exact::multiply(billed, &tier.unit_price))
        }
        Model::Graduated(tiers) => {
            let (mut sum, mut begin) = (BigInt::ZERO, BigInt::ZERO);
            for tier in tiers {
                let end = tier.up_to.as_ref().map_or(billed, |bound| bound.min(billed));
                if *end > begin {
                    let held = exact::subtract(end, &begin);
                    sum = exact::add(&sum, &priced(tier, &held, &one));
                    begin = end.clone();
                }
            }
            sum
        }
        Model::Volume(tiers) => {
            let holds = |tier: &&Tier| tier.up_to.as_ref().is_none_or(|bound| billed <= bound);
            tiers.iter().find(holds).map_or(BigInt::ZERO, |tier| priced(tier, billed, &one))
        }
    }
}

fn priced(tier: &Tier, quantity: &BigInt, one: &BigInt) -> BigInt {
    let units = exact::multiply(quantity, &tier.unit_price);
    exact::add(&units, &exact::multiply(&tier.flat, one))
}
