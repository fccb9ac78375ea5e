//! What became of the last sweep and of billing runs, in `/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Count, counter, gauge, seconds};
use crate::billing_run::runs::RunFigures;
use crate::reconcile::{self, LastSweep};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FindingLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Nothing, before the first sweep.
pub(super) fn sweep(registry: &mut Registry, last: Option<&LastSweep>) {
    let Some(last) = last else { return };
    for (name, help, counts) in [
        (
            "reconcile_findings",
            "Findings that keep invoices back, by the last sweep",
            &last.blocking,
        ),
        (
            "reconcile_covered_findings",
            "Findings that are waived or covered by a policy",
            &last.covered,
        ),
    ] {
        let family = Family::<FindingLabels, Count>::default();
        let kinds = reconcile::Kind::ALL.into_iter().filter(|kind| kind.class().blocks());
        for kind in kinds {
            let count = counts.get(&kind).copied().unwrap_or(0);
            family.get_or_create(&FindingLabels { kind: kind.name() }).set(count);
        }
        registry.register(name, help, family);
    }
    gauge(
        registry,
        "reconcile_last_seconds",
        "End of the last sweep, unix seconds",
        seconds(last.at),
    );
    gauge(registry, "reconcile_duration_millis", "How long the last sweep took", last.millis);
}

/// What became of the billing runs of this process.
pub(super) fn billing_runs(registry: &mut Registry, figures: &RunFigures) {
    let ended = Family::<OutcomeLabels, Counter>::default();
    for (outcome, count) in [("completed", figures.completed), ("failed", figures.failed)] {
        ended.get_or_create(&OutcomeLabels { outcome }).inc_by(count);
    }
    registry.register("billing_runs", "Billing runs that ended since the start", ended);
    counter(
        registry,
        "billing_run_problems",
        "Customers without a document for a reason that a person must look at, over all runs since the start",
        figures.problems,
    );
    gauge(registry, "billing_runs_running", "Billing runs that are under way", figures.running);
    let Some(last) = figures.last else { return };
    for (name, help, value) in [
        ("billing_run_last_seconds", "End of the last billing run, unix seconds", seconds(last.at)),
        (
            "billing_run_last_failed",
            "1 if it could not come to its end",
            u64::from(last.has_failed),
        ),
        ("billing_run_last_issued", "Documents that it issued", last.issued),
        ("billing_run_last_problems", "Customers that it has no document for", last.problems),
        (
            "billing_run_last_awaiting_archive",
            "Documents that it issued and the archive did not hold",
            last.awaiting_archive,
        ),
    ] {
        gauge(registry, name, help, value);
    }
}
