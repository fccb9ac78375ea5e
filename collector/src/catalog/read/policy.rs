//! Reads `[[policy]]`: what invoices need not wait for.
//!
//! Every table says all its bounds: one that was left out must not come to mean everything.

use std::collections::BTreeSet;

use crate::document::{Problems, Table, closest};
use crate::duration;
use crate::reconcile::{Kind, POLICIES_MAX, Policy};

use super::{bounded, identities};

pub(super) fn policies(root: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<Policy> {
    let mut policies: Vec<Policy> = Vec::new();
    for mut table in root.tables("policy", problems) {
        let span = table.span.clone();
        let read = policy(&mut table, problems);
        table.finish(problems);
        let Some(policy) = read else { continue };
        if policies.iter().any(|other| other.name == policy.name) {
            let message = format!("two policies are called {:?}", policy.name);
            problems.report(span, message, "give each its own name");
        } else if policies.len() == POLICIES_MAX {
            let message = format!("there are more than {POLICIES_MAX} policies");
            problems.report(span, message, "use a `*` in `identities` for those that are alike");
        }
        policies.push(policy);
    }
    policies.sort_by(|left, right| left.name.cmp(&right.name));
    policies
}

fn policy(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Policy> {
    let name = table.required_text("name", "spot pods", problems);
    let name = name.and_then(|name| bounded(name, "name", problems));
    let signed_by = table.required_text("signed_by", "J. Doe, CFO", problems);
    let signed_by = signed_by.and_then(|text| bounded(text, "signed_by", problems));
    let kinds = kinds(table, problems);
    let identities = identities::patterns(table, ("policy", "identities"), problems);
    let lost_after_millis = lost_after(table, problems);
    let per_stream = events(table, "events_per_stream_max", problems);
    let total = events(table, "events_total_max", problems);
    Some(Policy {
        name: name?,
        signed_by: signed_by?,
        kinds: kinds?,
        identities: identities?,
        lost_after_millis: lost_after_millis?,
        events_per_stream_max: per_stream?,
        events_total_max: total?,
    })
}

fn kinds(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<BTreeSet<Kind>> {
    let names = || Kind::ALL.into_iter().filter(|kind| kind.is_coverable()).map(Kind::name);
    let listed = table.texts("kinds", problems);
    if listed.is_empty() {
        let message = "the policy lists no kinds";
        problems.report(table.span.clone(), message, "add kinds = [\"lost\"]");
        return None;
    }
    let mut found = BTreeSet::new();
    for text in listed {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text.value);
        match kind.filter(|kind| kind.is_coverable()) {
            Some(kind) => {
                found.insert(kind);
            }
            None => {
                let remedy = match closest(&text.value, names()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("write some of {}", names().collect::<Vec<_>>().join(", ")),
                };
                let message =
                    format!("{:?} is no kind of finding that a policy covers", text.value);
                problems.report(text.span, message, remedy);
            }
        }
    }
    (!found.is_empty()).then_some(found)
}

/// `Some(None)`: it is not there.
fn lost_after(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Option<i64>> {
    let Some(text) = table.text("lost_after", problems) else { return Some(None) };
    let millis = duration::parse_millis(&text.value).ok();
    let millis = millis.filter(|millis| *millis >= LOST_AFTER_MIN_MILLIS);
    match millis.and_then(|millis| i64::try_from(millis).ok()) {
        Some(millis) => Some(Some(millis)),
        None => {
            let message = format!("`lost_after` is {:?}", text.value);
            problems.report(text.span, message, "write a duration of at least \"1m\"");
            None
        }
    }
}

/// An agent that restarts is no lost one.
const LOST_AFTER_MIN_MILLIS: u64 = 60_000;

fn events(table: &mut Table<'_>, key: &'static str, problems: &mut Problems<'_>) -> Option<u64> {
    let Some(text) = table.scalar(key, problems) else {
        let message = format!("the policy has no `{key}`");
        problems.report(table.span.clone(), message, format!("add {key} = 10000"));
        return None;
    };
    let parsed = text.value.parse::<u64>().ok();
    if parsed.is_none() {
        let message = format!("`{key}` is {:?}", text.value);
        problems.report(text.span, message, "write a whole number of events");
    }
    parsed
}
