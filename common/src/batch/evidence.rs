//! Evidence: cumulative counts that travel in batch bodies, by code.
//!
//! Counts only grow, over a stream's whole life. Codes that this version does not know are carried.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::code::EvidenceCode;

/// Cumulative counts by evidence code. A count of zero is not held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence(BTreeMap<u16, u64>);

impl Evidence {
    /// The count of `code`; 0 if nothing was counted.
    #[must_use]
    pub fn get(&self, code: EvidenceCode) -> u64 {
        self.0.get(&code.number()).copied().unwrap_or(0)
    }

    /// Counts `n` more.
    ///
    /// # Panics
    /// Beyond 2^64 - 1, which no stream lives to count.
    pub fn add(&mut self, code: EvidenceCode, n: u64) {
        let count = self.get(code).checked_add(n).expect("a stream never counts 2^64");
        self.set_max(code, count);
    }

    /// Raises the count of `code` to `count`, if it is lower.
    pub fn set_max(&mut self, code: EvidenceCode, count: u64) {
        self.raise(code.number(), count);
    }

    /// Raises each count to the one in `other`, of unknown codes too: the newer of two cumulative states.
    pub fn merge_max(&mut self, other: &Self) {
        for (number, count) in other.iter() {
            self.raise(number, count);
        }
    }

    /// (code number, count), ascending by number.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u16, u64)> + '_ {
        self.0.iter().map(|(number, count)| (*number, *count))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn raise(&mut self, number: u16, count: u64) {
        if count > 0 {
            let held = self.0.entry(number).or_insert(0);
            *held = count.max(*held);
        }
    }
}

/// From (code number, count), as stored. Of a number that comes twice the greater count stays.
impl FromIterator<(u16, u64)> for Evidence {
    fn from_iter<I: IntoIterator<Item = (u16, u64)>>(counts: I) -> Self {
        let mut evidence = Self::default();
        for (number, count) in counts {
            evidence.raise(number, count);
        }
        evidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_grow() {
        let mut evidence = Evidence::default();
        evidence.add(EvidenceCode::Accepted, 0);
        assert!(evidence.is_empty());
        evidence.add(EvidenceCode::Accepted, 3);
        evidence.add(EvidenceCode::Accepted, 4);
        evidence.set_max(EvidenceCode::Accepted, 5);
        evidence.set_max(EvidenceCode::KernelDrops, 9);
        assert_eq!(evidence.iter().collect::<Vec<_>>(), [(1, 7), (3, 9)]);
        assert_eq!(evidence.get(EvidenceCode::Accepted), 7);
        assert_eq!(evidence.get(EvidenceCode::SourceGaps), 0);
    }

    #[test]
    fn merging_takes_the_greater_count_and_carries_unknown_codes() {
        let mut older: Evidence = [(1, 5), (3, 2)].into_iter().collect();
        let newer: Evidence = [(1, 6), (60_000, 1), (7, 0)].into_iter().collect();
        older.merge_max(&newer);
        assert_eq!(older, [(1, 6), (3, 2), (60_000, 1)].into_iter().collect());
    }

    #[test]
    #[should_panic(expected = "never counts 2^64")]
    fn overflow_panics() {
        let mut evidence: Evidence = [(1, u64::MAX)].into_iter().collect();
        evidence.add(EvidenceCode::Accepted, 1);
    }
}
