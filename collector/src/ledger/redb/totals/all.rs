//! Everybody's rows of a time, in the order of the file: for checks, which read all of it.
//!
//! **Owns** the scan. A key's distinct values come after all rows, each in a row of its own that counts no events.

use std::ops::ControlFlow;

use redb::ReadTransaction;
use tidemark_common::id::CustomerId;
use tidemark_common::time::Bucket;

use super::{Fault, TOTALS, TOTALS_FILE, UNIQUES};
use crate::ledger::codec::{self, RowError};
use crate::ledger::store::StoreError;
use crate::usage::UsageRow;

type ShowRow<'v> = &'v mut dyn FnMut(&CustomerId, UsageRow) -> ControlFlow<()>;

pub(super) fn visit_all(
    read: &ReadTransaction,
    from: Bucket,
    to: Bucket,
    visit: ShowRow<'_>,
) -> Result<(), StoreError> {
    let first = from.0.div_euclid(codec::SLOT_BUCKETS).to_be_bytes();
    let slots = to.0.div_ceil(codec::SLOT_BUCKETS).to_be_bytes();
    let is_asked = |row: &UsageRow| from <= row.bucket && row.bucket < to;
    let totals = read.open_table(TOTALS).map_err(Fault::read(TOTALS_FILE))?;
    for row in totals.range(&first[..]..&slots[..]).map_err(Fault::read(TOTALS_FILE))? {
        let (key, value) = row.map_err(Fault::read(TOTALS_FILE))?;
        let (customer, mut row) = keyed(key.value())?;
        if is_asked(&row) {
            row.usage = codec::read_total(value.value()).map_err(Fault::row(TOTALS_FILE))?;
            if visit(&customer, row).is_break() {
                return Ok(());
            }
        }
    }
    let uniques = read.open_table(UNIQUES).map_err(Fault::read(TOTALS_FILE))?;
    for row in uniques.range(&first[..]..&slots[..]).map_err(Fault::read(TOTALS_FILE))? {
        let (key, _) = row.map_err(Fault::read(TOTALS_FILE))?;
        let (total, unique) =
            codec::read_unique_key(key.value()).map_err(Fault::row(TOTALS_FILE))?;
        let (customer, mut row) = keyed(&codec::with_part(total, 0))?;
        if is_asked(&row) {
            row.usage.uniques.insert(unique);
            if visit(&customer, row).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn keyed(key: &[u8]) -> Result<(CustomerId, UsageRow), StoreError> {
    let row = codec::read_total_key(key).map_err(Fault::row(TOTALS_FILE))?;
    let customer = codec::customer_of(key).and_then(|id| CustomerId::parse(id).ok());
    let broken = || RowError { row: "total key", reason: "its customer cannot be read".to_owned() };
    Ok((customer.ok_or_else(broken).map_err(Fault::row(TOTALS_FILE))?, row))
}
