//! What a plan costs.
//!
//! **Owns** the shapes of fees and prices, and which usage a price takes. **Does not own** their grammar
//! (`read/plan.rs`), or what they come to (`rating`).

use std::collections::BTreeMap;

use tidemark_common::batch::Dimensions;
use tidemark_common::id::MeterName;
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Bucket;

use crate::money::{Currency, Percent, Price, Rounding};
use crate::period::Interval;

/// A set of fees and prices in one currency: one version of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub name: String,
    pub currency: Currency,
    pub interval: Interval,
    /// `None`: as the seller says.
    pub rounding: Option<Rounding>,
    /// When this version takes effect; `None`: it always was.
    pub effective: Option<Bucket>,
    /// What at least is charged for a period, or for a term of several.
    pub commitment: Option<Price>,
    /// Longer than a period: what is missing is charged with its last one.
    pub commitment_term: Option<Interval>,
    pub fees: Vec<Fee>,
    /// Usage is charged by the first that takes it.
    pub prices: Vec<MeterPrice>,
}

/// An amount for each period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fee {
    pub name: String,
    pub amount: Price,
    pub timing: Timing,
    /// The name of its tax; `None`: the customer's.
    pub tax: Option<String>,
}

/// When a fee is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// With the usage of its period.
    Arrears,
    /// With the usage of the period before.
    Advance,
}

/// The price of a meter, or of a part of its usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterPrice {
    pub meter: MeterName,
    /// The dimensions that its usage has, with these values.
    pub filter: BTreeMap<String, String>,
    /// What is not billed of a whole period.
    pub included: Quantity,
    pub minimum: Option<Price>,
    pub maximum: Option<Price>,
    /// The name of its tax; `None`: the customer's.
    pub tax: Option<String>,
    pub model: Model,
}

/// How a quantity becomes a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    PerUnit { unit_price: Price },
    Package { size: Quantity, price: Price },
    Graduated(Tiers),
    Volume(Tiers),
    Percentage { percent: Percent, per_event: Price },
}

/// Tiers, ascending; the last holds all above the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers {
    pub bounded: Vec<Tier>,
    pub last: TierPrice,
}

/// A tier's upper bound, which it holds, and what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    pub up_to: Quantity,
    pub price: TierPrice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierPrice {
    pub unit_price: Price,
    pub flat: Price,
}

impl Timing {
    pub const ALL: [Self; 2] = [Self::Arrears, Self::Advance];

    /// The name, as the catalogue and the API write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arrears => "arrears",
            Self::Advance => "advance",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|timing| timing.name() == name)
    }
}

impl Model {
    pub const NAMES: [&'static str; 5] =
        ["per_unit", "package", "graduated", "volume", "percentage"];

    /// The name, as the catalogue and the API write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PerUnit { .. } => "per_unit",
            Self::Package { .. } => "package",
            Self::Graduated(_) => "graduated",
            Self::Volume(_) => "volume",
            Self::Percentage { .. } => "percentage",
        }
    }
}

impl MeterPrice {
    /// Whether it is about usage with these dimensions.
    #[must_use]
    pub fn takes(&self, meter: &MeterName, dimensions: &Dimensions) -> bool {
        let has = |name: &str, value: &str| {
            dimensions.iter().any(|(held, other)| (held, other) == (name, value))
        };
        self.meter == *meter && self.filter.iter().all(|(name, value)| has(name, value))
    }

    /// Whether all that `other` could take is taken by this one.
    #[must_use]
    pub fn hides(&self, other: &Self) -> bool {
        let narrower = |(name, value)| other.filter.get(name) == Some(value);
        self.meter == other.meter && self.filter.iter().all(narrower)
    }
}
