//! Per-unit prices: every unit costs the same.

use tidemark_common::quantity::Quantity;

use crate::money::{ExactAmount, UnitPrice};

/// `quantity` at `unit_price` each, exactly; nothing is rounded before the line's amount is.
#[must_use]
pub fn charge(quantity: Quantity, unit_price: UnitPrice) -> ExactAmount {
    ExactAmount::product(quantity, unit_price)
}
