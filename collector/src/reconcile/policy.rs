//! Policies: what somebody has signed that invoices need not wait for, within bounds.
//!
//! ```toml
//! [[policy]]
//! name = "spot pods"            signed_by = "CFO, 2026-10-01"
//! kinds = ["lost"]              identities = ["spot-*"]
//! lost_after = "1h"             events_per_stream_max = 10000        events_total_max = 1000000
//! ```
//! **Owns** which findings a policy covers. **Does not own** the catalogue's grammar (`catalog/read/policy.rs`).
//!
//! Only what is not complete can be covered, and only where somebody can say how much it is. Findings are taken in the
//! order of their time, then their id; each by the first policy, by name, that still has room. The
//! total is of one calendar month (UTC) of the findings' beginnings, so that what was covered for one month's invoices is
//! not taken from the next one's, and a later finding never takes the cover from an earlier one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Certainty, Cover, Finding, Kind};
use crate::grants::Patterns;
use crate::period::Zone;

/// A catalogue has at most this many.
pub const POLICIES_MAX: usize = 100;

/// One `[[policy]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    /// Who answers for it.
    pub signed_by: String,
    pub kinds: BTreeSet<Kind>,
    pub identities: Patterns,
    /// A stream of these identities that was not heard for so long is lost.
    pub lost_after_millis: Option<i64>,
    /// Of one finding, which is of one stream, at most so many events.
    pub events_per_stream_max: u64,
    /// Of all findings that begin in one month.
    pub events_total_max: u64,
}

impl Policy {
    /// Whether it is for this identity.
    #[must_use]
    pub fn is_of(&self, agent: &str) -> bool {
        self.identities.match_any(agent)
    }

    fn takes(&self, finding: &Finding) -> bool {
        self.kinds.contains(&finding.kind)
            && finding.events <= self.events_per_stream_max
            && !finding.streams.is_empty()
            && finding.streams.iter().all(|part| self.is_of(part.agent.as_str()))
    }
}

/// Covers what policies cover, of what nobody waived.
pub(super) fn apply(findings: &mut [Finding], policies: &[Policy]) {
    let utc = Zone::utc();
    let mut open: Vec<&mut Finding> = findings
        .iter_mut()
        .filter(|finding| {
            finding.blocks()
                && finding.kind.is_coverable()
                && finding.certainty != Certainty::AtLeast
        })
        .collect();
    open.sort_by(|left, right| {
        left.span.from.cmp(&right.span.from).then_with(|| left.id.cmp(&right.id))
    });
    let mut used: BTreeMap<(usize, String), u64> = BTreeMap::new();
    for finding in open {
        let Ok(day) = utc.day_of(finding.span.from) else { continue };
        let month = day.month().to_string();
        for (index, policy) in policies.iter().enumerate() {
            if !policy.takes(finding) {
                continue;
            }
            let sum = used.entry((index, month.clone())).or_default();
            let after = sum.saturating_add(finding.events);
            if after <= policy.events_total_max {
                *sum = after;
                let (name, signed_by) = (policy.name.clone(), policy.signed_by.clone());
                finding.cover = Some(Cover::Policy { name, signed_by });
                break;
            }
        }
    }
}
