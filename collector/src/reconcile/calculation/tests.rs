use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use tidemark_common::time::Timestamp;

use super::*;
use crate::ledger::clock::Reading;
use crate::ledger::conformance::{Journal, NOW};
use crate::ledger::redb::{RedbOptions, RedbStore};
use crate::ledger::request::{Reply, Request};
use crate::ledger::{LedgerOptions, TimeSource};

const CUSTOMERS: [&str; 5] = ["a", "b", "c", "d", "e"];

async fn ask(ledger: &Ledger, request: Request) -> Reply {
    ledger.submit(request).await.unwrap().await.unwrap()
}

/// Batches of these uses, in a ledger that folds now and then.
async fn ledger_of(batches: &[Vec<(usize, u32, i128)>]) -> Ledger {
    let (store, recovered) = RedbStore::open_on(
        InMemoryBackend::new(),
        InMemoryBackend::new(),
        &RedbOptions::default(),
        NOW,
    )
    .unwrap();
    let still = TimeSource::new(|| Reading { wall: NOW, monotonic_micros: 0 });
    let options = LedgerOptions { fold_lines_max: 7, ..LedgerOptions::default() };
    let ledger = Ledger::start(store, recovered, options, still).await.unwrap();
    let mut journal = Journal::new(1, ledger.ledger());
    let Reply::Welcomed(welcomed) = ask(&ledger, journal.hello_request(0, "agent")).await else {
        panic!()
    };
    journal.fence = welcomed.fence;
    for uses in batches {
        let uses: Vec<_> = uses
            .iter()
            .map(|(customer, bucket, units)| (CUSTOMERS[*customer], "m", *bucket, *units))
            .collect();
        journal.seal(&uses);
        ask(&ledger, journal.admit(journal.sealed.len())).await;
    }
    ledger
}

fn check(ledger: &Ledger, keys_max: usize) -> Checked {
    let catalog = Catalog::parse("", "c").unwrap();
    let snapshot = ledger.snapshot().unwrap();
    let span = Span { from: Timestamp(0), to: Bucket(1_000).start() };
    let check = Check {
        keys_max,
        ..Check::new((ledger, &catalog), &snapshot, span, Wanted::Everything).unwrap()
    };
    check.run().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sound_totals_are_found_sound_however_they_are_divided(
        batches in proptest::collection::vec(
            proptest::collection::vec((0_usize..5, 0_u32..300, -1_000_i128..1_000), 1..20), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let ledger = runtime.block_on(ledger_of(&batches));
        for keys_max in [usize::MAX, 60] {
            let checked = check(&ledger, keys_max);
            prop_assert_eq!(&checked.findings, &[]);
            prop_assert_eq!(checked.batches, u64::try_from(batches.len()).unwrap());
        }
    }
}
