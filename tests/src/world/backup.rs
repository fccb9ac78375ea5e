//! A backup of the world's ledger, and its restore: the product's own rows and checks, on simulated disks.

use tidemark_collector::ledger::check::{Bodies, Checker, LedgerTable};
use tidemark_collector::ledger::redb::{Import, RedbOptions, RedbStore, Restored};
use tidemark_collector::ledger::store::StoreError;
use tidemark_common::time::Timestamp;

use super::disk::Disk;
use super::here;

/// A new ledger counts its incarnations from the seconds of its clock on; worlds' clocks stay below this.
const INCARNATION_MIN: u32 = 2_000_000_000;
/// Each restore goes this far above all incarnations before.
const INCARNATIONS: u32 = 1 << 22;

/// A ledger's rows at one moment.
#[derive(Debug, Clone)]
pub struct Backup {
    rows: Vec<(LedgerTable, Vec<u8>, Vec<u8>)>,
    taken: Timestamp,
}

impl Backup {
    /// Of a running collector's store, at ledger time `taken`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn take(store: &RedbStore, taken: Timestamp) -> Result<Self, StoreError> {
        let mut rows = Vec::new();
        store.export::<StoreError>(&mut |table, key, value| {
            rows.push((table, key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(Self { rows, taken })
    }

    /// Fresh disks with a ledger and its totals, as the `number`th restore.
    ///
    /// # Errors
    /// Says what is wrong with the backup.
    pub fn restore(&self, number: u32) -> Result<(Disk, Disk), String> {
        let (ledger, totals) = (Disk::default(), Disk::default());
        let (Some(held_ledger), Some(held_totals)) = (ledger.hold(0), totals.hold(0)) else {
            return Err("a fresh disk is held".to_owned());
        };
        let options = RedbOptions { random: here::fill, ..RedbOptions::default() };
        let fault = |error: StoreError| error.to_string();
        let mut import = Import::begin_on(held_ledger, held_totals, &options).map_err(fault)?;
        let mut checker = Checker::new(Bodies::Open);
        for (table, key, value) in &self.rows {
            let batch = checker.row(*table, key, value);
            import.row(*table, key, value).map_err(fault)?;
            if let Some(batch) = batch {
                import.fold(batch).map_err(fault)?;
            }
        }
        let findings = checker.finish().findings;
        if let Some(finding) = findings.iter().next() {
            return Err(format!("the backup does not hold together: {finding:?}"));
        }
        let restored =
            Restored { incarnation: INCARNATION_MIN + INCARNATIONS * number, at: self.taken };
        import.finish(restored).map_err(fault)?;
        ledger.release();
        totals.release();
        Ok((ledger, totals))
    }
}
