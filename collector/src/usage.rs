//! Usage as the ledger sums it: one accumulator per key, exact, and independent of the order in
//! which batches are added.
//!
//! **Owns** the arithmetic of sums, extremes, latest values and distinct values. **Does not own**
//! which of them a meter bills (the catalogue says so when usage is read), or where they are stored.
//!
//! Invariant: a merge either takes all of the other accumulator or, on overflow, nothing.

use std::collections::BTreeSet;

use thiserror::Error;
use tidemark_common::batch::{Dimensions, LineValue};
use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::tls::AgentName;

/// A distinct value: the id of the key that digested it, and the digest.
pub type UniqueValue = (u16, [u8; 16]);

/// What is known of the events under one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accumulator {
    pub events: u64,
    /// Events that carried a quantity: `sum`, `min`, `max` and `latest` are theirs.
    pub quantity_events: u64,
    /// Events that carried a unique value: `uniques` are theirs.
    pub unique_events: u64,
    pub sum: Quantity,
    pub min: Quantity,
    pub max: Quantity,
    /// The greatest (time, quantity); `None` without a quantity.
    pub latest: Option<(Timestamp, Quantity)>,
    pub uniques: BTreeSet<UniqueValue>,
}

/// Two accumulators do not fit into one. Neither was changed; they are kept side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "failed to add usage: the sum does not fit into 128 bits, or corrections take more than there is"
)]
pub struct Overflow;

/// Whether a line is billed. Decided at admission, stored in the totals' keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    #[default]
    Normal,
    /// Posted, never billed: shows as suspense.
    Unauthorised,
    /// Posted, never billed: its event was admitted before.
    Suppressed,
}

impl Class {
    /// The class's byte in stored keys.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::Unauthorised => 1,
            Self::Suppressed => 2,
        }
    }

    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Normal),
            1 => Some(Self::Unauthorised),
            2 => Some(Self::Suppressed),
            _ => None,
        }
    }

    /// The class's name, in JSON and as a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Unauthorised => "unauthorised",
            Self::Suppressed => "suppressed",
        }
    }
}

/// One customer's usage of one meter in one bucket, under the dimensions that the agent kept.
///
/// A read yields several rows of one key only where their sums do not fit into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    pub class: Class,
    pub sign: Sign,
    pub meter: MeterName,
    pub dimensions: Dimensions,
    pub bucket: Bucket,
    pub usage: Accumulator,
}

/// Whether a row comes to the others, or is taken from them by a correction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sign {
    #[default]
    Added,
    /// Sum and counts are less by it; all else stays.
    Taken,
}

/// What usage is seen as: billable, sent by an identity that may not bill it, or admitted before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeenAs {
    Normal,
    Unauthorised(AgentName),
    Suppressed,
}

impl SeenAs {
    /// A line of this class from `agent`.
    #[must_use]
    pub fn of(class: Class, agent: &AgentName) -> Self {
        match class {
            Class::Normal => Self::Normal,
            Class::Unauthorised => Self::Unauthorised(agent.clone()),
            Class::Suppressed => Self::Suppressed,
        }
    }
}

/// What a customer was ever seen to use of a meter: for finding what the catalogue does not explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub customer: CustomerId,
    pub meter: MeterName,
    pub seen_as: SeenAs,
    pub events: u64,
    pub first: Bucket,
    pub last: Bucket,
}

impl Accumulator {
    /// Adds all of `other`.
    ///
    /// # Errors
    /// If a sum or a count does not fit; nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), Overflow> {
        let events = self.events.checked_add(other.events).ok_or(Overflow)?;
        let quantity_events =
            self.quantity_events.checked_add(other.quantity_events).ok_or(Overflow)?;
        let unique_events = self.unique_events.checked_add(other.unique_events).ok_or(Overflow)?;
        let sum = self.sum.checked_add(other.sum).ok_or(Overflow)?;
        (self.min, self.max) = match (self.quantity_events, other.quantity_events) {
            (_, 0) => (self.min, self.max),
            (0, _) => (other.min, other.max),
            (_, _) => (self.min.min(other.min), self.max.max(other.max)),
        };
        self.latest = self.latest.max(other.latest);
        self.uniques.extend(&other.uniques);
        (self.events, self.quantity_events, self.unique_events, self.sum) =
            (events, quantity_events, unique_events, sum);
        Ok(())
    }

    /// Adds a row, or takes it away.
    ///
    /// # Errors
    /// As [`Self::merge`]; or more is taken than there is.
    pub fn apply(&mut self, row: &UsageRow) -> Result<(), Overflow> {
        match row.sign {
            Sign::Added => self.merge(&row.usage),
            Sign::Taken => self.take(&row.usage),
        }
    }

    fn take(&mut self, other: &Self) -> Result<(), Overflow> {
        let less = |left: u64, right: u64| left.checked_sub(right).ok_or(Overflow);
        let events = less(self.events, other.events)?;
        let quantity_events = less(self.quantity_events, other.quantity_events)?;
        let sum = Quantity(self.sum.0.checked_sub(other.sum.0).ok_or(Overflow)?);
        (self.events, self.quantity_events, self.sum) = (events, quantity_events, sum);
        Ok(())
    }

    /// Adds `self` to the last of `parts`, or as one more part. Those before are not tried: many parts
    /// must not cost many tries each time.
    pub fn merge_into_parts(self, parts: &mut Vec<Self>) {
        if parts.last_mut().is_none_or(|part| part.merge(&self).is_err()) {
            parts.push(self);
        }
    }
}

impl From<&LineValue> for Accumulator {
    fn from(line: &LineValue) -> Self {
        let quantities = line.quantity_events > 0;
        Self {
            events: line.events,
            quantity_events: line.quantity_events,
            unique_events: line.unique_events,
            sum: line.sum,
            min: line.min,
            max: line.max,
            latest: quantities.then_some((line.latest_time, line.latest)),
            uniques: line.uniques.iter().map(|digest| (line.unique_key, *digest)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(time: i64, units: i128) -> Accumulator {
        Accumulator {
            events: 1,
            quantity_events: 1,
            unique_events: 0,
            sum: Quantity(units),
            min: Quantity(units),
            max: Quantity(units),
            latest: Some((Timestamp(time), Quantity(units))),
            uniques: BTreeSet::new(),
        }
    }

    fn unique(value: u8) -> Accumulator {
        Accumulator {
            events: 1,
            unique_events: 1,
            uniques: BTreeSet::from([(1, [value; 16])]),
            ..Accumulator::default()
        }
    }

    fn sum(all: impl IntoIterator<Item = Accumulator>) -> Accumulator {
        all.into_iter().fold(Accumulator::default(), |mut sum, one| {
            sum.merge(&one).unwrap();
            sum
        })
    }

    #[test]
    fn events_without_a_quantity_leave_the_extremes_alone() {
        let merged = sum([unique(1), quantity(5, 7), unique(1), unique(2), quantity(4, 9)]);
        assert_eq!((merged.events, merged.quantity_events, merged.unique_events), (5, 2, 3));
        assert_eq!((merged.sum, merged.min, merged.max), (Quantity(16), Quantity(7), Quantity(9)));
        assert_eq!(merged.latest, Some((Timestamp(5), Quantity(7))));
        assert_eq!(merged.uniques.len(), 2);
    }

    #[test]
    fn overflow_changes_nothing_and_splits() {
        let mut full = quantity(1, i128::MAX);
        let before = full.clone();
        assert_eq!(full.merge(&quantity(2, 1)), Err(Overflow));
        assert_eq!(full, before);

        let mut parts = vec![full];
        quantity(2, 1).merge_into_parts(&mut parts);
        quantity(3, -1).merge_into_parts(&mut parts);
        assert_eq!(parts.iter().map(|part| part.events).collect::<Vec<_>>(), [1, 2]);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(
            times in proptest::collection::vec((0_i64..4, -9_i128..9), 0..12),
            uniques in proptest::collection::vec(0_u8..4, 0..12),
            seed in any::<u64>(),
        ) {
            let mut all: Vec<_> = times.into_iter().map(|(time, units)| quantity(time, units)).collect();
            all.extend(uniques.into_iter().map(unique));
            let forward = sum(all.clone());
            let cut = usize::try_from(seed % 64).unwrap().min(all.len());
            all.rotate_left(cut);
            all.reverse();
            prop_assert_eq!(sum(all), forward);
        }
    }
}
