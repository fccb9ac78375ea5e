//! Which program answers for which ledger, and how old its newest backup is.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use tidemark_common::time::Timestamp;

use crate::backup::last::LastBackup;
use crate::ledger::Ledger;

use super::{gauge, seconds};

pub(super) fn identity(registry: &mut Registry, ledger: &Ledger) {
    let labels = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("ledger", ledger.ledger().to_string()),
    ];
    // The encoder ends an info's name in _info.
    registry.register("collector", "Who this is", Info::new(labels));
}

pub(super) fn backup(registry: &mut Registry, last: Option<&LastBackup>) {
    let (at, bytes) = last.map_or((0, 0), |last| (seconds(Timestamp(last.begun_at)), last.bytes));
    let help = "When the newest backup was begun, unix seconds; 0 before the first";
    gauge(registry, "backup_last_seconds", help, at);
    gauge(registry, "backup_last_bytes", "How large the newest backup is", bytes);
}
