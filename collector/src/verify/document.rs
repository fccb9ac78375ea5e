//! The document in a proof: an invoice or a credit note, as it was issued.
//!
//! **Owns** its keys and their order (`deploy/docs/invoices.md`), and amounts as minor units. **Does not own** whether they
//! are right. Names, addresses, dates and words are read and left as they are: they are signed, not computed.

use num_bigint::BigInt;

use super::json::{self, Fields, Value};
use super::tree::Digest;
use super::{Refusal, ensure, exact};

#[derive(Debug)]
pub(super) struct Document {
    pub(super) kind: DocumentKind,
    pub(super) number: String,
    pub(super) customer: String,
    pub(super) currency: String,
    /// Of the currency.
    pub(super) places: u32,
    pub(super) period_end: String,
    pub(super) sections: Vec<Section>,
    pub(super) subtotal: BigInt,
    pub(super) taxes: Vec<Tax>,
    pub(super) total: BigInt,
    pub(super) credit_applied: BigInt,
    pub(super) amount_due: BigInt,
    pub(super) cut: Option<Cut>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentKind {
    Invoice,
    /// Its amounts are what is taken back.
    CreditNote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionKind {
    Period,
    Advance,
    Correction,
}

#[derive(Debug)]
pub(super) struct Section {
    pub(super) kind: SectionKind,
    pub(super) plan: String,
    pub(super) start: String,
    pub(super) end: String,
    pub(super) lines: Vec<Line>,
    pub(super) total: BigInt,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) description: String,
    /// The keys and values of how the amount came about.
    pub(super) rated: Option<Vec<(String, Value)>>,
    pub(super) invoiced_before: Option<BigInt>,
    pub(super) tax: Option<String>,
    pub(super) amount: BigInt,
}

#[derive(Debug)]
pub(super) struct Tax {
    pub(super) name: String,
    pub(super) category: String,
    /// In units of 10^-10 percent.
    pub(super) percent: BigInt,
    pub(super) inclusive: bool,
    pub(super) net: BigInt,
    pub(super) tax: BigInt,
}

/// Which usage was read.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) as_of: String,
    /// Empty: some stream never confirmed.
    pub(super) complete_through: String,
    pub(super) certificate: Option<(u64, Digest)>,
}

/// As messages name them.
pub(super) fn section_place(section: usize) -> String {
    format!("section {}", section.saturating_add(1))
}

pub(super) fn line_place(section: usize, line: usize) -> String {
    format!("{}, line {}", section_place(section), line.saturating_add(1))
}

impl Document {
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let value = json::parse(text, "document")?;
        let mut fields = Fields::of(&value, "document")?;
        let kind = match fields.text("kind")? {
            "invoice" => DocumentKind::Invoice,
            "credit_note" => DocumentKind::CreditNote,
            other => return Err(Refusal::new("document", format!("{other:?} is no kind of it"))),
        };
        let number = fields.text("number")?.to_owned();
        for key in ["date", "due_date", "issued_at"] {
            fields.maybe_text(key)?;
        }
        party(fields.value("seller")?, "seller")?;
        let customer = party(fields.value("customer")?, "customer")?;
        let currency = fields.text("currency")?.to_owned();
        let unknown = || Refusal::new("document", format!("{currency:?} is no currency"));
        let places = exact::currency_places(&currency).ok_or_else(unknown)?;
        ensure(fields.maybe("credits").is_none(), "document", || {
            "a credit note that a person wrote has no proof of its own".to_owned()
        })?;
        let period_end = fields.text("period_end")?.to_owned();
        let amounts = Amounts { places };
        let mut sections = Vec::new();
        for (index, value) in fields.list("sections")?.iter().enumerate() {
            sections.push(section(value, index, amounts)?);
        }
        let subtotal = amounts.of(&mut fields, "subtotal")?;
        let taxes: Result<Vec<_>, _> =
            fields.list("taxes")?.iter().map(|value| tax(value, amounts)).collect();
        let document = Self {
            kind,
            number,
            customer,
            places,
            period_end,
            sections,
            subtotal,
            taxes: taxes?,
            total: amounts.of(&mut fields, "total")?,
            credit_applied: amounts.of(&mut fields, "credit_applied")?,
            amount_due: amounts.of(&mut fields, "amount_due")?,
            cut: None,
            currency,
        };
        texts(fields.maybe("notes"), "notes")?;
        let cut = fields.maybe("cut").map(cut).transpose()?;
        fields.finish()?;
        Ok(Self { cut, ..document })
    }
}

/// Reads amounts of a currency.
#[derive(Debug, Clone, Copy)]
struct Amounts {
    places: u32,
}

impl Amounts {
    fn parse(self, text: &str, place: &str) -> Result<BigInt, Refusal> {
        let wrong =
            || Refusal::new(place, format!("{text:?} is no amount with {} places", self.places));
        exact::minor(text, self.places).ok_or_else(wrong)
    }

    fn of(self, fields: &mut Fields<'_>, key: &str) -> Result<BigInt, Refusal> {
        let place = fields.at(key);
        self.parse(fields.text(key)?, &place)
    }

    fn maybe(self, fields: &mut Fields<'_>, key: &str) -> Result<Option<BigInt>, Refusal> {
        let place = fields.at(key);
        fields.maybe_text(key)?.map(|text| self.parse(text, &place)).transpose()
    }
}

/// The party's id.
fn party(value: &Value, place: &str) -> Result<String, Refusal> {
    let mut fields = Fields::of(value, place)?;
    let id = fields.text("id")?.to_owned();
    fields.maybe_text("name")?;
    texts(fields.maybe("address"), place)?;
    fields.maybe_text("tax_id")?;
    fields.maybe_text("email")?;
    fields.finish()?;
    Ok(id)
}

fn texts(value: Option<&Value>, place: &str) -> Result<(), Refusal> {
    let Some(value) = value else { return Ok(()) };
    value.list(place)?.iter().try_for_each(|text| text.text(place).map(|_| ()))
}

fn section(value: &Value, index: usize, amounts: Amounts) -> Result<Section, Refusal> {
    let place = section_place(index);
    let mut fields = Fields::of(value, &place)?;
    let kind = match fields.text("kind")? {
        "period" => SectionKind::Period,
        "advance" => SectionKind::Advance,
        "correction" => SectionKind::Correction,
        other => return Err(Refusal::new(place, format!("{other:?} is no kind of section"))),
    };
    let plan = fields.text("plan")?.to_owned();
    let (start, end) = (fields.text("start")?.to_owned(), fields.text("end")?.to_owned());
    let mut lines = Vec::new();
    for (line_index, value) in fields.list("lines")?.iter().enumerate() {
        lines.push(line(value, &line_place(index, line_index), amounts)?);
    }
    let total = amounts.of(&mut fields, "total")?;
    fields.finish()?;
    Ok(Section { kind, plan, start, end, lines, total })
}

fn line(value: &Value, place: &str, amounts: Amounts) -> Result<Line, Refusal> {
    let mut fields = Fields::of(value, place)?;
    let description = fields.text("description")?.to_owned();
    fields.maybe_text("details")?;
    let rated = match fields.maybe("rated") {
        None => None,
        Some(Value::Object(rated)) => Some(rated.clone()),
        Some(_) => return Err(Refusal::new(fields.at("rated"), "it is no object")),
    };
    let invoiced_before = amounts.maybe(&mut fields, "invoiced_before")?;
    let tax = fields.maybe_text("tax")?.map(str::to_owned);
    let amount = amounts.of(&mut fields, "amount")?;
    fields.finish()?;
    Ok(Line { description, rated, invoiced_before, tax, amount })
}

fn tax(value: &Value, amounts: Amounts) -> Result<Tax, Refusal> {
    let mut fields = Fields::of(value, "taxes")?;
    let name = fields.text("name")?.to_owned();
    fields.text("label")?;
    let category = fields.text("category")?.to_owned();
    let percent = fields.text("percent")?;
    let units = exact::decimal(percent, exact::PERCENT_PLACES);
    let is_shortest = |units: &BigInt| exact::shortest(units, exact::PERCENT_PLACES) == percent;
    let wrong = || Refusal::new("taxes", format!("{percent:?} is no percentage"));
    let percent = units.filter(is_shortest).ok_or_else(wrong)?;
    let tax = Tax {
        name,
        category,
        percent,
        inclusive: fields.flag("inclusive")?,
        net: amounts.of(&mut fields, "net")?,
        tax: amounts.of(&mut fields, "tax")?,
    };
    fields.finish()?;
    Ok(tax)
}

fn cut(value: &Value) -> Result<Cut, Refusal> {
    let mut fields = Fields::of(value, "cut")?;
    let as_of = fields.text("as_of")?.to_owned();
    let complete_through = fields.text("complete_through")?.to_owned();
    let certificate = match fields.maybe("certificate") {
        None => None,
        Some(value) => {
            let mut fields = Fields::of(value, "cut: `certificate`")?;
            let named = (fields.number("number")?, fields.hex("sha256")?);
            fields.finish()?;
            Some(named)
        }
    };
    fields.finish()?;
    Ok(Cut { as_of, complete_through, certificate })
}
