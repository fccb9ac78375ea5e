//! Reads what stands in rows.
//!
//! **Owns** the texts of an export as values. **Does not own** what rows there are (`export.rs`).

use std::collections::BTreeMap;

use tidemark_common::batch::{Dimensions, Line, LineKey, LineValue};
use tidemark_common::hex;
use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};

use super::{RowError, bad};
use crate::export::LineRow;

pub(super) fn read_series(
    meter: &str,
    customer: &str,
    dimensions: &BTreeMap<String, String>,
) -> Result<(MeterName, CustomerId, Dimensions), RowError> {
    let pairs =
        dimensions.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into()));
    Ok((
        MeterName::parse(meter).map_err(|_| bad("meter")())?,
        CustomerId::parse(customer).map_err(|_| bad("customer")())?,
        Dimensions::new(pairs.collect()).map_err(|error| RowError::Row(error.to_string()))?,
    ))
}

pub(super) fn read_line(row: &LineRow) -> Result<Line, RowError> {
    let (meter, customer, dimensions) = read_series(&row.meter, &row.customer, &row.dimensions)?;
    let bucket = read_time(&row.bucket).and_then(Bucket::starting_at).ok_or_else(bad("bucket"))?;
    let amount = |text: &str, what| read_quantity(text).ok_or_else(bad(what));
    let uniques =
        row.uniques.iter().map(|unique| hex::decode_array(unique).ok_or_else(bad("uniques")));
    let value = LineValue {
        events: row.events,
        quantity_events: row.quantity_events,
        unique_events: row.unique_events,
        sum: amount(&row.sum, "sum")?,
        min: amount(&row.min, "min")?,
        max: amount(&row.max, "max")?,
        latest_time: read_time(&row.latest_time).ok_or_else(bad("latest_time"))?,
        latest: amount(&row.latest, "latest")?,
        unique_key: row.unique_key,
        uniques: uniques.collect::<Result<_, _>>()?,
    };
    value.check().map_err(|error| RowError::Row(error.to_string()))?;
    Ok(Line { key: LineKey { meter, customer, dimensions, bucket, part: row.part }, value })
}

pub(super) fn read_time(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|time| Timestamp(time.as_millisecond()))
}

/// Sums may be longer than the quantities that doors take.
pub(super) fn read_quantity(text: &str) -> Option<Quantity> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_empty = whole.trim_start_matches('-').is_empty();
    if is_empty || fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    format!("{whole}{fraction:0<9}").parse().ok().map(Quantity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_beyond_what_doors_take_are_read_exactly() {
        for units in [0, 1, -1, -500_000_000, i128::MAX, i128::MIN, 1_500_000_000] {
            let quantity = Quantity(units);
            assert_eq!(read_quantity(&quantity.to_string()), Some(quantity), "{units}");
        }
        for text in ["", "1.0000000001", "1e3", "x", "1.-5"] {
            assert_eq!(read_quantity(text), None, "{text}");
        }
    }
}
