//! Reads `[[seller]]` and `[[tax]]`: who issues invoices, and what taxes come on them.

use std::collections::BTreeMap;

use super::plan::{PERCENT_REMEDY, required};
use super::{bounded, label, one_of, parsed};
use crate::catalog::seller::{Seller, Tax, TaxStatus};
use crate::catalog::{SELLERS_MAX, TAXES_MAX};
use crate::document::{Located, Problems, Table, closest};
use crate::money::{Percent, Rounding};
use crate::period::Zone;

/// Lines of an address, and notes.
const LINES_MAX: usize = 10;
/// With a year, a dash and seven digits it makes 16 characters.
const PREFIX_BYTES_MAX: usize = 4;
pub(super) const DUE_DAYS_MAX: u16 = 1_000;
const DUE_DAYS_DEFAULT: u16 = 14;

pub(super) type Taxes = BTreeMap<String, Tax>;

pub(super) fn taxes(root: &mut Table<'_>, problems: &mut Problems<'_>) -> Taxes {
    let mut taxes = Taxes::new();
    for mut table in root.tables("tax", problems) {
        let span = table.span.clone();
        let name = table.required_text("name", "standard", problems);
        let name = name.and_then(|name| bounded(name, "name", problems));
        let label = label(&mut table, "label", problems);
        let parse = |text: &str| match Percent::parse(text) {
            Ok(percent) if percent > Percent::HUNDRED => Err("is above 100".to_owned()),
            parsed => parsed.map_err(|error| error.to_string()),
        };
        let percent = required(&mut table, "percent", "19", parse, PERCENT_REMEDY, problems);
        let inclusive = table.flag("inclusive", problems);
        table.finish(problems);
        let (Some(name), Some(percent)) = (name, percent) else { continue };
        let label = label.unwrap_or_else(|| format!("{name} {percent} %"));
        if taxes.len() == TAXES_MAX {
            let message = format!("there are more than {TAXES_MAX} taxes");
            problems.report(span.clone(), message, "remove those that nothing names");
        }
        // An invoice's line names its tax, or why there is none.
        if [TaxStatus::Exempt, TaxStatus::ReverseCharge].map(TaxStatus::name).contains(&&*name) {
            let message = format!("{name:?} says that there is no tax, so no tax has this name");
            problems.report(span.clone(), message, "give it another name");
        }
        let tax = Tax { name: name.clone(), label, percent, inclusive };
        if taxes.insert(name.clone(), tax).is_some() {
            problems.report(span, format!("the tax {name:?} stands twice"), "remove one of them");
        }
    }
    taxes
}

/// In the order of the file: the first is that of customers that name none.
pub(super) fn sellers(
    root: &mut Table<'_>,
    taxes: &Taxes,
    problems: &mut Problems<'_>,
) -> Vec<Seller> {
    let mut sellers: Vec<Seller> = Vec::new();
    for mut table in root.tables("seller", problems) {
        let span = table.span.clone();
        let read = seller(&mut table, taxes, problems);
        table.finish(problems);
        let Some(seller) = read else { continue };
        if sellers.iter().any(|other| other.name == seller.name) {
            let message = format!("the seller {:?} stands twice", seller.name);
            problems.report(span.clone(), message, "remove one of them");
        }
        let prefixes = [&seller.invoice_prefix, &seller.credit_note_prefix];
        let used = |prefix: &&&String| {
            sellers
                .iter()
                .any(|other| [&other.invoice_prefix, &other.credit_note_prefix].contains(*prefix))
        };
        let twice = prefixes.iter().find(used).or_else(|| {
            prefixes.first().filter(|_| seller.invoice_prefix == seller.credit_note_prefix)
        });
        if let Some(prefix) = twice {
            let message = format!("the prefix {prefix:?} of numbers stands twice");
            let remedy =
                "give each seller an `invoice_prefix` and a `credit_note_prefix` of its own";
            problems.report(span.clone(), message, remedy);
        }
        if sellers.len() == SELLERS_MAX {
            let message = format!("there are more than {SELLERS_MAX} sellers");
            problems.report(span, message, "remove those that nobody buys from");
        }
        sellers.push(seller);
    }
    sellers
}

fn seller(table: &mut Table<'_>, taxes: &Taxes, problems: &mut Problems<'_>) -> Option<Seller> {
    let name = table.required_text("name", "main", problems);
    let name = name.and_then(|name| bounded(name, "name", problems));
    let legal_name = table.required_text("legal_name", "Example GmbH", problems);
    let legal_name = legal_name.and_then(|name| bounded(name, "legal_name", problems));
    let address = lines(table, "address", problems);
    let tax_id = label(table, "tax_id", problems);
    let email = label(table, "email", problems);
    let zone = zone(table, problems);
    let invoice_prefix = prefix(table, "invoice_prefix", "INV", problems);
    let credit_note_prefix = prefix(table, "credit_note_prefix", "CN", problems);
    let month = whole(table, "fiscal_year_start", 1..=12, problems);
    let rounding = one_of(table, "rounding", &Rounding::ALL, Rounding::name, problems);
    let due_days = whole(table, "due_days", 0..=DUE_DAYS_MAX, problems);
    let tax = tax_named(table, taxes, problems);
    let notes = lines(table, "notes", problems);
    Some(Seller {
        name: name?,
        legal_name: legal_name?,
        address,
        tax_id,
        email,
        zone: zone?,
        invoice_prefix: invoice_prefix?,
        credit_note_prefix: credit_note_prefix?,
        fiscal_year_start: month?.and_then(|month| i8::try_from(month).ok()).unwrap_or(1),
        rounding: rounding?.unwrap_or_default(),
        due_days: due_days?.unwrap_or(DUE_DAYS_DEFAULT),
        tax,
        notes,
    })
}

pub(super) fn zone(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Zone> {
    match table.text("time_zone", problems) {
        None => Some(Zone::utc()),
        Some(text) => {
            parsed(&text, Zone::parse, "write an IANA name such as \"Europe/Berlin\"", problems)
        }
    }
}

/// A tax that is there, if one is named.
pub(super) fn tax_named(
    table: &mut Table<'_>,
    taxes: &Taxes,
    problems: &mut Problems<'_>,
) -> Option<String> {
    let Located { value, span } = table.text("tax", problems)?;
    if taxes.contains_key(&value) {
        return Some(value);
    }
    let remedy = match closest(&value, taxes.keys().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "add a [[tax]] with that name".to_owned(),
    };
    problems.report(span, format!("there is no tax {value:?}"), remedy);
    None
}

/// Lines of printable text.
pub(super) fn lines(
    table: &mut Table<'_>,
    key: &'static str,
    problems: &mut Problems<'_>,
) -> Vec<String> {
    let listed = table.texts(key, problems);
    if let Some(extra) = listed.get(LINES_MAX) {
        let message = format!("`{key}` has {} lines", listed.len());
        problems.report(extra.span.clone(), message, format!("keep at most {LINES_MAX}"));
    }
    listed.into_iter().filter_map(|line| bounded(line, key, problems)).collect()
}

/// What numbers begin with: capital letters and digits, so that they can be read out and sorted.
fn prefix(
    table: &mut Table<'_>,
    key: &'static str,
    default: &str,
    problems: &mut Problems<'_>,
) -> Option<String> {
    let Some(text) = table.text(key, problems) else { return Some(default.to_owned()) };
    let is_sound = (1..=PREFIX_BYTES_MAX).contains(&text.value.len())
        && text.value.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_sound {
        return Some(text.value);
    }
    let message = format!("`{key}` is {:?}", text.value);
    problems.report(text.span, message, format!("write 1 to {PREFIX_BYTES_MAX} of A-Z"));
    None
}

/// A whole number within bounds. `None`: it is wrong; `Some(None)`: it is not there.
pub(super) fn whole(
    table: &mut Table<'_>,
    key: &'static str,
    bounds: std::ops::RangeInclusive<u16>,
    problems: &mut Problems<'_>,
) -> Option<Option<u16>> {
    let Some(text) = table.scalar(key, problems) else { return Some(None) };
    match text.value.parse::<u16>().ok().filter(|number| bounds.contains(number)) {
        Some(number) => Some(Some(number)),
        None => {
            let message = format!("`{key}` is {}", text.value);
            let remedy =
                format!("write a whole number from {} to {}", bounds.start(), bounds.end());
            problems.report(text.span, message, remedy);
            None
        }
    }
}
