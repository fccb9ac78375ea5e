//! Books from a seed: meters, plans with versions, taxes, sellers, and customers with subscriptions and usage.
//!
//! Instants lie about a few `instants`, near and far, so that periods of all lengths are cut and used.
//!
//! **Owns** what is tried. **Does not own** what is right.

use std::collections::BTreeMap;

use super::super::calendar::{Interval, first_of_month};
use super::super::catalogue::{currency, key, meter_lines, subscription_lines, version_lines};
use super::super::customer::{Line, Subscription, Terms, Version, Versions, bill};
use super::super::document::{Status, Tax, Taxation};
use super::super::exact;
use super::{
    AGGREGATIONS, Aggregation, DIMENSIONS, Event, Fee, Plan, Price, QUARTER_MS, Random, Sign,
    below, dimensions, edges, fee, numbers, one_price, plan,
};

const PLANS: usize = 120;
const METERS_PER_AGGREGATION: usize = 2;
/// Of an odd number in each category that is tried.
const TAXES: [(&str, &str, bool); 6] = [
    ("full", "19", false),
    ("low", "7", false),
    ("odd", "8.375", false),
    ("held", "19", true),
    ("heldlow", "5.5", true),
    ("zero", "0", false),
];
/// Name, whether halves go to the even neighbour, and tax.
const SELLERS: [(&str, bool, Option<&str>); 3] =
    [("main", false, Some("full")), ("even", true, Some("held")), ("plain", true, None)];

/// A catalogue, and the usage of its customers.
#[derive(Debug, Clone)]
pub struct Books {
    pub aggregations: BTreeMap<String, Aggregation>,
    pub plans: BTreeMap<String, Versions>,
    pub customers: Vec<Customer>,
    /// About which all happens.
    pub instants: Vec<u32>,
}

#[derive(Debug, Clone)]
pub struct Customer {
    pub id: String,
    pub places: u32,
    /// Its first subscription is the `plan` of its own table.
    pub always: bool,
    pub subscriptions: Vec<Subscription>,
    pub seller: usize,
    pub tax: Option<String>,
    pub status: Status,
    pub events: Vec<Event>,
}

impl Books {
    /// Of so many customers.
    #[must_use]
    pub fn new(seed: u64, customers: usize, instants: Vec<u32>) -> Self {
        let mut random = Random::new(seed);
        let mut aggregations = BTreeMap::new();
        for aggregation in AGGREGATIONS {
            for nth in 0..METERS_PER_AGGREGATION {
                aggregations.insert(format!("{}{nth}", aggregation.name()), aggregation);
            }
        }
        let mut books =
            Self { aggregations, plans: BTreeMap::new(), customers: Vec::new(), instants };
        for number in 0..PLANS {
            let versions = books.versions(&mut random.fork());
            books.plans.insert(format!("p{number}"), versions);
        }
        for number in 0..customers {
            let customer = books.customer(&mut random.fork(), format!("c{number:05}"));
            books.customers.push(customer);
        }
        books
    }

    /// What the second rater bills a customer.
    #[must_use]
    pub fn bill(&self, customer: &Customer, at: u32) -> Vec<Line> {
        bill(self.terms(customer), &customer.events, at)
    }

    #[must_use]
    pub fn terms<'a>(&'a self, customer: &'a Customer) -> Terms<'a> {
        Terms {
            aggregations: &self.aggregations,
            plans: &self.plans,
            subscriptions: &customer.subscriptions,
            half_even: SELLERS[customer.seller].1,
        }
    }

    #[must_use]
    pub fn taxation(&self, customer: &Customer) -> Taxation {
        let (_, half_even, of_seller) = SELLERS[customer.seller];
        let rate = |(name, percent, inclusive): (&str, &str, bool)| {
            (name.to_owned(), Tax { percent: percent.to_owned(), inclusive })
        };
        Taxation {
            status: customer.status,
            otherwise: customer.tax.clone().or(of_seller.map(str::to_owned)),
            rates: TAXES.into_iter().map(rate).collect(),
            half_even,
        }
    }

    /// The catalogue of all customers.
    #[must_use]
    pub fn catalogue(&self) -> String {
        self.catalogue_of(&self.customers.iter().collect::<Vec<_>>())
    }

    /// The catalogue of some, with the plans that they are on.
    #[must_use]
    pub fn catalogue_of(&self, customers: &[&Customer]) -> String {
        let mut lines = meter_lines(&self.aggregations, &DIMENSIONS);
        for (name, percent, inclusive) in TAXES {
            lines.extend(["[[tax]]".to_owned(), key("name", name), key("percent", percent)]);
            lines.push(format!("inclusive = {inclusive}"));
        }
        for (name, half_even, tax) in SELLERS {
            lines.extend(["[[seller]]".to_owned(), key("name", name), key("legal_name", name)]);
            let series = name[..1].to_uppercase();
            lines.push(key("invoice_prefix", &format!("I{series}")));
            lines.push(key("credit_note_prefix", &format!("C{series}")));
            lines.extend(half_even.then(|| key("rounding", "half_even")));
            lines.extend(tax.map(|tax| key("tax", tax)));
        }
        for (name, versions) in &self.plans {
            let used = |customer: &&&Customer| {
                customer.subscriptions.iter().any(|subscription| subscription.plan == *name)
            };
            if customers.iter().any(|customer| used(&customer)) {
                for version in &versions.versions {
                    version_lines(name, versions.interval, version, &mut lines);
                }
            }
        }
        customers.iter().for_each(|customer| customer.lines(&mut lines));
        lines.push(String::new());
        lines.join("\n")
    }

    fn versions(&self, random: &mut Random) -> Versions {
        let places = *random.pick(&[0, 2, 2, 3]);
        let interval = *random.pick(&Interval::ALL);
        let mut effective: Vec<Option<u32>> =
            (0..*random.pick(&[0, 0, 1, 2])).map(|_| Some(self.instant(random))).collect();
        // Most plans always were.
        if effective.is_empty() || random.below(4) != 0 {
            effective.push(None);
        }
        effective.sort_unstable();
        effective.dedup();
        let versions = effective.into_iter().map(|effective| {
            let aggregations = self.some_meters(random);
            let mut plan = plan(random, &aggregations, places);
            only_useful(&mut plan.prices);
            taxed(random, &mut plan.fees, &mut plan.prices);
            let half_even = *random.pick(&[None, Some(true), Some(false)]);
            Version { effective, half_even, plan: Plan { half_even: false, ..plan } }
        });
        Versions { interval, versions: versions.collect() }
    }

    fn some_meters(&self, random: &mut Random) -> BTreeMap<String, Aggregation> {
        let all: Vec<_> = self.aggregations.iter().collect();
        let some = (0..=random.below(3)).map(|_| *random.pick(&all));
        some.map(|(meter, aggregation)| (meter.clone(), *aggregation)).collect()
    }

    /// Near one of the instants, or not so near; at a day's begin or within one.
    fn instant(&self, random: &mut Random) -> u32 {
        let about = *random.pick(&self.instants);
        let reach = *random.pick(&[8, 96, 5 * 96, 20 * 96, 60 * 96]);
        let at = about - reach + below(random, 2 * reach);
        if random.below(2) == 0 { at } else { at - at % 96 }
    }

    fn customer(&self, random: &mut Random, id: String) -> Customer {
        let places = *random.pick(&[0, 2, 2, 3]);
        let plans: Vec<&String> = self
            .plans
            .iter()
            .filter(|(_, plan)| plan.versions[0].plan.currency_places == places)
            .map(|(name, _)| name)
            .collect();
        let always = random.below(3) == 0;
        let mut subscriptions: Vec<Subscription> = Vec::new();
        for number in 0..*random.pick(&[1, 1, 2, 3]) {
            let plan = (*random.pick(&plans)).clone();
            if subscriptions.iter().any(|before| before.plan == plan) {
                continue;
            }
            if always && number == 0 {
                subscriptions.push(Subscription { plan, ..Subscription::default() });
            } else {
                subscriptions.extend(self.subscriptions(random, &plan, places));
            }
        }
        let events = self.events(random, &subscriptions);
        let tax = (random.below(3) == 0).then(|| tax(random));
        let status = *random.pick(&[
            Status::Taxable,
            Status::Taxable,
            Status::Taxable,
            Status::Exempt,
            Status::ReverseCharge,
        ]);
        let seller = *random.pick(&[0, 1, 2]);
        Customer { id, places, always, subscriptions, seller, tax, status, events }
    }

    /// To one plan: one, or two that follow each other, with a gap or without.
    fn subscriptions(&self, random: &mut Random, plan: &str, places: u32) -> Vec<Subscription> {
        let mut cuts: Vec<u32> = (0..3).map(|_| self.instant(random)).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let start = (random.below(2) == 0).then(|| cuts[0]);
        let times = match (random.below(4), cuts.as_slice()) {
            (0, [_, second, ..]) => vec![(start, Some(*second)), (Some(*second), None)],
            (1, [_, second, third]) => vec![(start, Some(*second)), (Some(*third), None)],
            (2, [_, .., last]) => vec![(start, Some(*last))],
            _ => vec![(start, None)],
        };
        times.into_iter().map(|times| self.subscription(random, plan, places, times)).collect()
    }

    fn subscription(
        &self,
        random: &mut Random,
        plan: &str,
        places: u32,
        (start, end): (Option<u32>, Option<u32>),
    ) -> Subscription {
        let trial_end = (random.below(3) == 0).then(|| self.instant(random)).filter(|trial_end| {
            start.is_none_or(|start| start < *trial_end) && end.is_none_or(|end| *trial_end < end)
        });
        let discount = (random.below(3) == 0)
            .then(|| numbers::percent(random))
            .filter(|percent| exact(percent) <= exact("100"));
        let (mut fees, mut prices) = (Vec::<Fee>::new(), Vec::new());
        if random.below(3) == 0 {
            // Of a name that most plans have, or of one that few do.
            let index = *random.pick(&[0, 1, 7]);
            fees.push(fee(random, index, places));
        }
        if random.below(3) == 0 {
            let versions = &self.plans[plan].versions;
            let of_plan = versions.iter().flat_map(|version| &version.plan.prices);
            let meters: BTreeMap<_, _> = of_plan
                .map(|price| (price.meter.clone(), self.aggregations[&price.meter]))
                .chain(self.some_meters(random))
                .collect();
            for _ in 0..=random.below(2) {
                prices.push(one_price(random, &meters, places));
            }
            only_useful(&mut prices);
        }
        taxed(random, &mut fees, &mut prices);
        Subscription { plan: plan.to_owned(), start, end, trial_end, discount, fees, prices }
    }

    /// Of meters that the customer's prices name, for the most part.
    fn events(&self, random: &mut Random, subscriptions: &[Subscription]) -> Vec<Event> {
        let mut prices: Vec<Price> = Vec::new();
        for subscription in subscriptions {
            prices.extend(subscription.prices.iter().cloned());
            let versions = &self.plans[&subscription.plan].versions;
            prices.extend(versions.iter().flat_map(|version| version.plan.prices.clone()));
        }
        let mut meters: Vec<&String> = prices.iter().map(|price| &price.meter).collect();
        meters.extend(self.aggregations.keys().next());
        let edges = edges(&Plan { prices: prices.clone(), ..Plan::default() });
        let sign = if random.below(2) == 0 { Sign::Any } else { Sign::Positive };
        // Some have nothing but usage taken back, so that they come to have credit.
        let taken_back = random.below(4) == 0;
        let counts = if taken_back { [8, 8, 16, 16, 24] } else { [0_u64, 2, 4, 8, 16] };
        (0..*random.pick(&counts))
            .map(|_| {
                let meter = (*random.pick(&meters)).clone();
                let aggregation = self.aggregations[&meter];
                let quantity = match random.pick(&edges) {
                    Some(edge) => edge.clone(),
                    None => numbers::quantity(random, sign),
                };
                let positive = exact(&quantity) > exact("0");
                let quantity =
                    if taken_back && positive { format!("-{quantity}") } else { quantity };
                let within = i64::try_from(random.below(2)).expect("0 or 1") * (QUARTER_MS - 1);
                Event {
                    dimensions: dimensions(random),
                    time: i64::from(self.instant(random)) * QUARTER_MS + within,
                    quantity: aggregation.has_quantities().then_some(quantity),
                    unique: (aggregation == Aggregation::UniqueCount)
                        .then(|| format!("u{}", random.below(5))),
                    meter,
                }
            })
            .collect()
    }
}

impl Customer {
    fn lines(&self, lines: &mut Vec<String>) {
        lines.extend(["[[customer]]".to_owned(), key("id", &self.id)]);
        lines.push(key("currency", currency(self.places)));
        lines.push(key("seller", SELLERS[self.seller].0));
        lines.push(key("tax_status", self.status.name()));
        lines.extend(self.tax.iter().map(|tax| key("tax", tax)));
        let mut subscriptions = self.subscriptions.iter();
        if self.always {
            lines.extend(subscriptions.next().map(|first| key("plan", &first.plan)));
        }
        subscriptions.for_each(|subscription| subscription_lines(&self.id, subscription, lines));
    }
}

/// The months of which some instants are: their first days.
#[must_use]
pub fn months(year: u32, months: &[u32]) -> Vec<u32> {
    months.iter().map(|month| first_of_month(year, *month)).collect()
}

/// A price that could take nothing is refused.
fn only_useful(prices: &mut Vec<Price>) {
    let mut useful: Vec<Price> = Vec::new();
    for price in prices.drain(..) {
        if !useful.iter().any(|before| before.takes_all_of(&price)) {
            useful.push(price);
        }
    }
    *prices = useful;
}

fn taxed(random: &mut Random, fees: &mut [Fee], prices: &mut [Price]) {
    let taxes = fees.iter_mut().map(|fee| &mut fee.tax);
    for of in taxes.chain(prices.iter_mut().map(|price| &mut price.tax)) {
        *of = (random.below(3) == 0).then(|| tax(random));
    }
}

fn tax(random: &mut Random) -> String {
    random.pick(&TAXES).0.to_owned()
}
