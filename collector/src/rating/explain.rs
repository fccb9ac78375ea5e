//! How a line's amount came about, step by step, in words and numbers.
//!
//! **Owns** the words. **Does not own** any figure: each step shows what rating computed, by the same functions, and
//! the last one is the line's amount.

use tidemark_common::quantity::Quantity;

use super::charge::{self, Term};
use super::{Line, UsageLine};
use crate::money::{Money, Price, Rounding};
use crate::period::Zone;
use crate::terms::{Charging, Part};

/// One step: what is done, and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub text: String,
    pub value: String,
}

/// The steps of a line; `before` is the sum of the lines of its part before it.
#[must_use]
pub fn steps(line: &Line<'_>, before: Money) -> Vec<Step> {
    let mut steps = Steps(Vec::new());
    match line {
        Line::Fee { fee, part, amount } => {
            let text = format!("the fee {:?} of a whole period", fee.name);
            steps.add(text, with_code(fee.amount, *amount));
            steps.prorated(fee.amount, *part);
            steps.trial(*part, *amount);
        }
        Line::Usage(line) => steps.usage(line),
        Line::Discount { percent, amount, .. } => {
            steps.add("the sum of the lines of this part before it".to_owned(), before.to_string());
            steps.add(format!("{percent} % of it, rounded, taken off"), amount.to_string());
        }
        Line::Commitment { commitment, amount, term: Some(due), .. } => {
            let utc = Zone::utc();
            let [from, to] = [due.term.start, due.term.end].map(|edge| utc.rfc3339(edge.start()));
            let text = format!("the commitment of a whole term, from {from} to {to}");
            steps.add(text, with_code(*commitment, *amount));
            let text = "it, prorated to what of the term the plan is in force and charged";
            steps.add(text.to_owned(), due.due.to_string());
            let text = "all lines of this plan's periods of the term";
            steps.add(text.to_owned(), due.charged.to_string());
            let text = "what they are short of the commitment, or nothing";
            steps.add(text.to_owned(), amount.to_string());
        }
        Line::Commitment { commitment, part, amount, term: None } => {
            let text = "the commitment of a whole period".to_owned();
            steps.add(text, with_code(*commitment, *amount));
            steps.prorated(*commitment, *part);
            steps.add("the sum of the lines of this part before it".to_owned(), before.to_string());
            let text = match part.charging {
                Charging::Trial => "in a trial nothing is charged",
                Charging::Charged => "what that sum is short of the commitment, or nothing",
            };
            steps.add(text.to_owned(), amount.to_string());
        }
    }
    steps.0
}

struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, text: String, value: String) {
        self.0.push(Step { text, value });
    }

    fn usage(&mut self, line: &UsageLine<'_>) {
        let UsageLine { meter, price, part, events, quantity, included, billed, charge, amount } =
            line;
        let filter: Vec<_> =
            price.filter.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
        let with =
            if filter.is_empty() { String::new() } else { format!(" with {}", filter.join(", ")) };
        self.add(
            format!("events of {}{with} that no price before takes", meter.name),
            events.to_string(),
        );
        let unit = meter.unit.as_ref().map_or_else(String::new, |unit| format!(" {unit}"));
        self.add(format!("their {}", meter.aggregation), format!("{quantity}{unit}"));
        if price.included != Quantity::ZERO {
            let whole = if part.share.is_whole() { "" } else { ", prorated, rounded up" };
            self.add(
                format!("included: {} of a whole period{whole}", price.included),
                included.to_string(),
            );
            self.add(
                "what is billed: the quantity less what is included, not below 0".to_owned(),
                billed.to_string(),
            );
        }
        for Term { text, exact } in charge::terms(&price.model, *billed, *events) {
            self.add(text, exact.to_string());
        }
        let rounding = match part.rounding {
            Rounding::HalfUp => "a half away from zero",
            Rounding::HalfEven => "a half to the even neighbour",
        };
        self.add(format!("the charge: their sum, rounded, {rounding}"), charge.to_string());
        for (name, bound) in [("minimum", price.minimum), ("maximum", price.maximum)] {
            if let Some(bound) = bound {
                self.add(format!("the {name} of a whole period"), with_code(bound, *amount));
                self.prorated(bound, *part);
            }
        }
        let is_bounded = price.minimum.is_some() || price.maximum.is_some();
        if is_bounded && part.charging == Charging::Charged {
            self.add(
                "the charge, raised to the minimum, lowered to the maximum".to_owned(),
                amount.to_string(),
            );
        }
        self.trial(*part, *amount);
    }

    /// The part's share of an amount, rounded.
    fn prorated(&mut self, amount: Price, part: Part<'_>) {
        let Ok(share) = part.share.of(amount, part.plan.currency, part.rounding) else {
            return;
        };
        if part.share.is_whole() {
            return self.add("it, rounded".to_owned(), share.to_string());
        }
        let ([begin, end], length) = (part.share.bounds(), part.share.length());
        let text = format!(
            "it, prorated: round({amount} * {end} / {length}) - round({amount} * {begin} / {length}), in quarters of an hour"
        );
        self.add(text, share.to_string());
    }

    fn trial(&mut self, part: Part<'_>, amount: Money) {
        if part.charging == Charging::Trial {
            self.add("in a trial nothing is charged".to_owned(), amount.to_string());
        }
    }
}

fn with_code(price: Price, amount: Money) -> String {
    format!("{price} {}", amount.currency)
}
