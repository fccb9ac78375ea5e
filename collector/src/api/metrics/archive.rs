//! What the archive lacks, in `/metrics`.

use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{AnyStateLabels, Count, gauge};
use crate::ledger::Ledger;
use crate::ledger::archived::ArchiveState;

/// Nothing, where there is no archive.
pub(super) fn register(registry: &mut Registry, ledger: &Ledger) {
    let state = ledger.archive_state();
    if state == ArchiveState::Off {
        return;
    }
    let states = Family::<AnyStateLabels, Count>::default();
    for name in ArchiveState::NAMES {
        let is_so = u64::from(name == state.name());
        states.get_or_create(&AnyStateLabels { state: name }).set(is_so);
    }
    registry.register("archive_state", "1 for the archive's state", states);
    if let Some(at) = ledger.archived_at() {
        let age = ledger.now().millis_since(at).div_euclid(1_000);
        let help = "Since the archive held all that there was";
        gauge(registry, "archive_age_seconds", help, u64::try_from(age).unwrap_or(0));
    }
    if let ArchiveState::Current { entries, .. } = state {
        gauge(registry, "archive_entries", "Entries of the books in the archive", entries);
    }
}
