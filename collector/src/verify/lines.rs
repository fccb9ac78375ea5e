//! One line of a document against what its part charges.
//!
//! **Owns** what a part charges, in its order, and that a line shows it as it must. **Does not own** the amounts.

use num_bigint::BigInt;

use super::document::{DocumentKind, Line, SectionKind};
use super::exact::{self, PERCENT_PLACES, QUANTITY_PLACES};
use super::json::{Fields, Value};
use super::rater::{Rated, Terms, Used};
use super::tariff::{Fee, Price};
use super::{Refusal, ensure, instant};

/// What a part charges, in its order.
#[derive(Debug)]
pub(super) enum Item<'t> {
    Fee(&'t Fee),
    Price(&'t Price),
    /// Percent.
    Discount(&'t BigInt),
    Commitment(&'t BigInt),
    /// A commitment for a term: in its last part alone.
    Term(&'t BigInt),
}

pub(super) fn items<'t>(terms: &Terms<'t>, kind: SectionKind) -> Vec<Item<'t>> {
    let fees = terms.fees().into_iter();
    if kind == SectionKind::Advance {
        return fees.filter(|fee| fee.timing == "advance").map(Item::Fee).collect();
    }
    let plan = terms.plan;
    let commitment = plan.commitment.iter().map(|amount| match plan.has_term {
        true => Item::Term(amount),
        false => Item::Commitment(amount),
    });
    fees.map(Item::Fee)
        .chain(terms.prices().into_iter().map(Item::Price))
        .chain(terms.subscription.discount.iter().map(Item::Discount))
        .chain(commitment)
        .collect()
}

fn key<'l>(rated: &'l [(String, Value)], key: &str) -> Option<&'l Value> {
    rated.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

impl Item<'_> {
    /// Whether the line is of it.
    pub(super) fn is_of(&self, line: &Line) -> bool {
        let Some(rated) = &line.rated else { return matches!(self, Self::Discount(_)) };
        let says = |name: &str, due: &str| key(rated, name) == Some(&Value::Text(due.to_owned()));
        match self {
            Self::Fee(fee) => says("kind", "fee") && says("name", &fee.name),
            Self::Price(price) => {
                let filter: Vec<(String, Value)> = price
                    .filter
                    .iter()
                    .map(|(name, value)| (name.clone(), Value::Text(value.clone())))
                    .collect();
                let same = match key(rated, "where") {
                    None => filter.is_empty(),
                    Some(shown) => *shown == Value::Object(filter),
                };
                same && says("kind", "usage") && says("meter", &price.meter)
            }
            Self::Discount(_) => says("kind", "discount"),
            Self::Commitment(_) => says("kind", "commitment") && key(rated, "term").is_none(),
            Self::Term(_) => says("kind", "commitment") && key(rated, "term").is_some(),
        }
    }

    /// As a line describes it.
    pub(super) fn described(&self) -> String {
        match self {
            Self::Fee(fee) => fee.name.clone(),
            Self::Price(price) if price.filter.is_empty() => price.meter.clone(),
            Self::Price(price) => {
                let filter: Vec<_> =
                    price.filter.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{}{{{}}}", price.meter, filter.join(","))
            }
            Self::Discount(percent) => {
                format!("Discount {} %", exact::shortest(percent, PERCENT_PLACES))
            }
            Self::Commitment(_) | Self::Term(_) => "Minimum commitment".to_owned(),
        }
    }

    fn tax(&self) -> Option<&str> {
        match self {
            Self::Fee(fee) => fee.tax.as_deref(),
            Self::Price(price) => price.tax.as_deref(),
            Self::Discount(_) | Self::Commitment(_) | Self::Term(_) => None,
        }
    }
}

/// What a line charges before what was invoiced before is taken off.
pub(super) fn rated_amount(kind: DocumentKind, line: &Line) -> BigInt {
    let amount = match kind {
        DocumentKind::Invoice => line.amount.clone(),
        DocumentKind::CreditNote => exact::negated(&line.amount),
    };
    line.invoiced_before.iter().fold(amount, |amount, before| exact::add(&amount, before))
}

/// A fee's or price's own tax is its line's, unless the customer pays none or it was invoiced before with another.
pub(super) fn check_tax(
    line: &Line,
    item: &Item<'_>,
    asked: &[&str],
    place: &str,
) -> Result<(), Refusal> {
    let Some(own) = item.tax() else { return Ok(()) };
    let shown = line.tax.as_deref().unwrap_or_default();
    let may_differ = line.invoiced_before.is_some()
        || matches!(shown, "exempt" | "reverse_charge")
        || asked.contains(&shown);
    ensure(may_differ || shown == own, place, || {
        format!("its tax is {shown:?}, and by the texts of plan and subscription {own:?}")
    })
}

/// `rated` is what it must be, value by value.
pub(super) fn check_rated(
    shown: &[(String, Value)],
    due: &Rated,
    terms: &Terms<'_>,
    item: &Item<'_>,
    place: &str,
) -> Result<(), Refusal> {
    let mut due = due.shown.clone();
    // Both come before amount and currency.
    let mut add = |name: &str| {
        if let Some(value) = key(shown, name) {
            due.insert(due.len().saturating_sub(2), (name.to_owned(), value.clone()));
        }
    };
    match item {
        Item::Term(_) => add("term"),
        Item::Fee(_) | Item::Price(_) | Item::Discount(_) | Item::Commitment(_) => {
            check_part(key(shown, "part"), terms, place)?;
            add("part");
        }
    }
    let differs = shown.iter().zip(&due).find(|(one, other)| one != other);
    if let Some(((name, value), (due_name, due))) = differs {
        let what = if name == due_name {
            format!(
                "`{name}` is {}, and by the texts of plan and subscription and the usage it is {}",
                value.told(),
                due.told()
            )
        } else {
            format!("`{name}` stands where `{due_name}` is due")
        };
        return Err(Refusal::new(place, what));
    }
    ensure(shown.len() == due.len(), place, || "`rated` has not the keys that are due".to_owned())
}

/// The stretch of the period: there if it is not all of it, or a trial.
fn check_part(part: Option<&Value>, terms: &Terms<'_>, place: &str) -> Result<(), Refusal> {
    let span = terms.span;
    let is_due = terms.trial || !span.is_whole();
    ensure(part.is_some() == is_due, place, || {
        "`part` is there for a whole period, or is not there for a part of one".to_owned()
    })?;
    let Some(part) = part else { return Ok(()) };
    let mut fields = Fields::of(part, place)?;
    let from = instant::bucket(fields.text("from")?, place)?;
    let to = instant::bucket(fields.text("to")?, place)?;
    let shown = (fields.number("quarters")?, fields.number("of")?);
    let trial = fields.maybe("trial").map(|value| value.flag(place)).transpose()?;
    fields.finish()?;
    let holds = (from, to) == (span.from, span.to)
        && shown == (span.quarters(), span.length())
        && trial == terms.trial.then_some(true);
    ensure(holds, place, || "`part` is not the part that the line is of".to_owned())
}

/// What is due of a term and charged of it, as the line says.
pub(super) fn term(line: &Line, places: u32, place: &str) -> Result<(BigInt, BigInt), Refusal> {
    let missing = || Refusal::new(place, "it has no `term`");
    let shown = line.rated.as_ref().and_then(|rated| key(rated, "term")).ok_or_else(missing)?;
    let mut fields = Fields::of(shown, place)?;
    let from = instant::bucket(fields.text("from")?, place)?;
    let to = instant::bucket(fields.text("to")?, place)?;
    let amount = |text: &str| {
        let wrong = || Refusal::new(place, format!("{text:?} is no amount with {places} places"));
        exact::minor(text, places).ok_or_else(wrong)
    };
    let (due, charged) = (amount(fields.text("due")?)?, amount(fields.text("charged")?)?);
    fields.finish()?;
    ensure(from < to, place, || "its term ends before it begins".to_owned())?;
    Ok((due, charged))
}

/// Quantity and events as the line says, where the file does not prove them.
pub(super) fn stated(line: &Line, place: &str) -> Result<Used, Refusal> {
    let rated = line.rated.as_deref().unwrap_or_default();
    let missing = || Refusal::new(place, "`rated` has no quantity or no events");
    let text = key(rated, "quantity").ok_or_else(missing)?.text(place)?;
    let events = key(rated, "events").ok_or_else(missing)?.number(place)?;
    let wrong = || Refusal::new(place, format!("{text:?} is no quantity"));
    let quantity = exact::signed(text, QUANTITY_PLACES).ok_or_else(wrong)?;
    Ok(Used { quantity, events })
}
