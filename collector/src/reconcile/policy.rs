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
//! total is of one calendar month (UTC), that since when a finding is known, so that what was covered for one month's invoices is
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
    open.sort_by(|left, right| left.since.cmp(&right.since).then_with(|| left.id.cmp(&right.id)));
    let mut used: BTreeMap<(usize, String), u64> = BTreeMap::new();
    for finding in open {
        let Ok(day) = utc.day_of(finding.since) else { continue };
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

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests {
    use tidemark_common::id::StreamId;
    use tidemark_common::time::Timestamp;
    use tidemark_common::tls::AgentName;

    use super::super::{Scope, Span, StreamPart};
    use super::*;
    use crate::grants::Pattern;

    const DAY: i64 = 86_400_000;

    /// `id identity day events certainty`.
    fn finding(text: &str) -> Finding {
        let [id, agent, day, events, certainty] =
            text.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
        let agent = AgentName::parse(agent).unwrap();
        let from = Timestamp(day.parse::<i64>().unwrap() * DAY);
        Finding {
            kind: Kind::Lost,
            id: id.to_owned(),
            told: String::new(),
            remedy: String::new(),
            events: events.parse().unwrap(),
            certainty: match certainty {
                "exact" => Certainty::Exact,
                "about" => Certainty::Estimated,
                _ => Certainty::AtLeast,
            },
            quantity: None,
            money: Vec::new(),
            streams: vec![StreamPart {
                stream: StreamId([1; 16]),
                agent: agent.clone(),
                sequences: None,
            }],
            meter: None,
            scope: Scope::Billable(agent),
            span: Span { from, to: from.plus_millis(DAY) },
            since: from,
            cover: None,
        }
    }

    fn policy(name: &str, identities: &str, per_stream: u64, total: u64) -> Policy {
        Policy {
            name: name.to_owned(),
            signed_by: "the board".to_owned(),
            kinds: [Kind::Lost].into(),
            identities: Patterns::new([Pattern::parse(identities).unwrap()]),
            lost_after_millis: None,
            events_per_stream_max: per_stream,
            events_total_max: total,
        }
    }

    /// What covers each, as `id=policy`, in the order of ids.
    fn check(policies: &[Policy], findings: &[&str], expected: &str) {
        let mut found: Vec<_> = findings.iter().map(|text| finding(text)).collect();
        // The order in which they are found does not matter.
        found.reverse();
        apply(&mut found, policies);
        found.sort_by(|left, right| left.id.cmp(&right.id));
        let shown = found.iter().map(|finding| match &finding.cover {
            Some(Cover::Policy { name, .. }) => format!("{}={name}", finding.id),
            _ => format!("{}=-", finding.id),
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expected, "{findings:?}");
    }

    #[test]
    fn bounds_hold_for_each_and_in_all() {
        let spot = || policy("spot", "spot-*", 10, 25);
        check(&[spot()], &["a spot-1 1 10 exact", "b spot-2 1 11 exact"], "a=spot b=-");
        check(
            &[spot()],
            &["a web 1 1 exact", "b spot-1 1 1 least", "c spot-1 1 1 about"],
            "a=- b=- c=spot",
        );
        // By time, then id: the third has no room, a smaller one has.
        check(
            &[spot()],
            &[
                "z spot-1 1 10 exact",
                "b spot-1 2 10 exact",
                "c spot-1 2 10 exact",
                "d spot-1 3 5 exact",
            ],
            "b=spot c=- d=spot z=spot",
        );
        // Each month has its own total: 31 days are of January 1970.
        check(
            &[spot()],
            &[
                "a spot-1 1 10 exact",
                "b spot-1 2 10 exact",
                "c spot-1 3 10 exact",
                "d spot-1 31 10 exact",
            ],
            "a=spot b=spot c=- d=spot",
        );
    }

    #[test]
    fn what_one_has_no_room_for_another_may_cover() {
        let both = [policy("a", "*", 100, 100), policy("b", "spot-*", 100, 100)];
        check(
            &both,
            &["x spot-1 1 80 exact", "y spot-1 2 80 exact", "z web 3 80 exact"],
            "x=a y=b z=-",
        );
    }
}
