//! The file `invoice.json`: what it holds, byte for byte.
//!
//! **Owns** its outer form, its signature, and the places that it points to. **Does not own** what its texts say.

use super::certificate::Head;
use super::exact::Rounding;
use super::json::{self, Fields, Value};
use super::keys::{self, Key, Signature};
use super::tree::{DEPTH, Digest, Position};
use super::{FILE_BYTES_MAX, Refusal, ensure};

const SIGNATURE_BEGIN: &str = ",\"signature\":\"";
const SIGNATURE_DIGITS: usize = 128;
const SIGNATURE_END: &str = "\"}\n";

#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) document: String,
    pub(super) head: Head,
    pub(super) customer: String,
    /// Without it the customer has no usage.
    pub(super) path: Option<Path>,
    pub(super) days: Vec<Day>,
    pub(super) plans: Vec<String>,
    pub(super) subscriptions: Vec<String>,
    pub(super) parts: Vec<PartText>,
    pub(super) tax_rounding: Option<Rounding>,
    pub(super) key: Key,
}

/// Where the customer's leaf stands, and the siblings from its own up.
type Path = (Position, Box<[Digest; DEPTH]>);

/// A day of the customer's.
#[derive(Debug)]
pub(super) struct Day {
    pub(super) day: u32,
    pub(super) content: DayContent,
}

#[derive(Debug)]
pub(super) enum DayContent {
    Texts(Vec<String>),
    /// It is not about this document.
    Digest(Digest),
}

/// A text: which of the days, and which of its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct At {
    pub(super) day: usize,
    pub(super) text: usize,
}

/// Which lines are made of what.
#[derive(Debug)]
pub(super) struct PartText {
    pub(super) section: usize,
    pub(super) lines: Vec<usize>,
    pub(super) plan: usize,
    pub(super) subscription: usize,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) trial: bool,
    pub(super) rounding: Rounding,
    /// For each of the lines.
    pub(super) rows: Vec<Vec<At>>,
    pub(super) elsewhere: Vec<At>,
}

impl Bundle {
    /// Reads a file, and checks its signature.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let place = "the file";
        ensure(bytes.len() <= FILE_BYTES_MAX, place, || {
            format!("it has {} bytes; at most {FILE_BYTES_MAX} are read", bytes.len())
        })?;
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::new(place, "it is no UTF-8"))?;
        let (signed, signature) = split_signature(text)?;
        let value = json::parse(text.strip_suffix('\n').unwrap_or(text), place)?;
        let bundle = Self::of(&value)?;
        keys::check(&bundle.key, ("tidemark/invoice/1", signed.as_bytes()), &signature, place)?;
        Ok(bundle)
    }

    fn of(value: &Value) -> Result<Self, Refusal> {
        let mut fields = Fields::of(value, "")?;
        fields.format("tidemark invoice 1")?;
        let document = fields.text("document")?.to_owned();
        let head = Head::of_proof(fields.value("certificate")?)?;
        let customer = fields.text("customer")?.to_owned();
        let path = path(fields.value("path")?)?;
        let days = each(fields.list("days")?, "days", day)?;
        let own_text = |value: &Value, place: &str| value.text(place).map(str::to_owned);
        let plans = each(fields.list("plans")?, "plans", own_text)?;
        let subscriptions = each(fields.list("subscriptions")?, "subscriptions", own_text)?;
        let parts = each(fields.list("parts")?, "parts", part)?;
        let tax_rounding = fields.value("tax_rounding")?;
        let tax_rounding = if tax_rounding.is_null() {
            None
        } else {
            Some(rounding(tax_rounding, "tax_rounding")?)
        };
        let key = fields.hex("key")?;
        let _signature: Signature = fields.hex("signature")?;
        fields.finish()?;
        Ok(Self {
            document,
            head,
            customer,
            path,
            days,
            plans,
            subscriptions,
            parts,
            tax_rounding,
            key,
        })
    }
}

/// What is signed, and the signature.
fn split_signature(text: &str) -> Result<(&str, Signature), Refusal> {
    let split = || {
        let text = text.strip_suffix(SIGNATURE_END)?;
        let (before, digits) = text.split_at_checked(text.len().checked_sub(SIGNATURE_DIGITS)?)?;
        Some((before.strip_suffix(SIGNATURE_BEGIN)?, json::hex(digits)?))
    };
    let wrong = || {
        Refusal::new(
            "the file",
            "it does not end as an invoice's proof does: a signature of 128 hexadecimal digits, `\"}` and a line feed",
        )
    };
    split().ok_or_else(wrong)
}

/// Reads each of a list, with its place.
fn each<T>(
    values: &[Value],
    place: &str,
    read: impl Fn(&Value, &str) -> Result<T, Refusal>,
) -> Result<Vec<T>, Refusal> {
    let read = |(index, value)| read(value, &format!("{place}[{index}]"));
    values.iter().enumerate().map(read).collect()
}

fn path(value: &Value) -> Result<Option<Path>, Refusal> {
    if value.is_null() {
        return Ok(None);
    }
    let mut fields = Fields::of(value, "path")?;
    let position = fields.hex("position")?;
    let siblings = fields.list("siblings")?;
    fields.finish()?;
    let siblings = each(siblings, "path: `siblings`", |value, place| value.hex::<32>(place))?;
    let wrong = |siblings: Vec<Digest>| {
        Refusal::new("path", format!("it has {} siblings; {DEPTH} are due", siblings.len()))
    };
    let siblings: [Digest; DEPTH] = siblings.try_into().map_err(wrong)?;
    Ok(Some((position, Box::new(siblings))))
}

/// `[DAY,[TEXT,..]]` or `[DAY,HEX]`.
fn day(value: &Value, place: &str) -> Result<Day, Refusal> {
    let [number, content] = value.list(place)? else {
        return Err(Refusal::new(place, "a day is a pair"));
    };
    let content = match content {
        Value::List(texts) => {
            let texts: Result<Vec<_>, _> =
                texts.iter().map(|text| text.text(place).map(str::to_owned)).collect();
            DayContent::Texts(texts?)
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Text(_) | Value::Object(_) => {
            DayContent::Digest(content.hex(place)?)
        }
    };
    Ok(Day { day: number.number(place)?, content })
}

fn part(value: &Value, place: &str) -> Result<PartText, Refusal> {
    let mut fields = Fields::of(value, place)?;
    let section = fields.number("section")?;
    let lines = fields.list("lines")?;
    let lines = each(lines, &fields.at("lines"), |value, place| value.number(place))?;
    let (plan, subscription) = (fields.number("plan")?, fields.number("subscription")?);
    let (from, to) = (fields.number("from")?, fields.number("to")?);
    let trial = fields.flag("trial")?;
    let rounding_place = fields.at("rounding");
    let rounding = rounding(fields.value("rounding")?, &rounding_place)?;
    let rows_place = fields.at("rows");
    let rows = each(fields.list("rows")?, &rows_place, places)?;
    let elsewhere_place = fields.at("elsewhere");
    let elsewhere = places(fields.value("elsewhere")?, &elsewhere_place)?;
    fields.finish()?;
    ensure(rows.len() == lines.len(), rows_place, || {
        format!("it is of {} lines, and the part has {}", rows.len(), lines.len())
    })?;
    Ok(PartText { section, lines, plan, subscription, from, to, trial, rounding, rows, elsewhere })
}

fn rounding(value: &Value, place: &str) -> Result<Rounding, Refusal> {
    let name = value.text(place)?;
    Rounding::parse(name).ok_or_else(|| Refusal::new(place, format!("{name:?} is no rounding")))
}

/// `[[D,[I,..]],..]`, ascending.
fn places(value: &Value, place: &str) -> Result<Vec<At>, Refusal> {
    let mut found: Vec<At> = Vec::new();
    for pair in value.list(place)? {
        let [day, texts] = pair.list(place)? else {
            return Err(Refusal::new(place, "texts of a day are a pair"));
        };
        let (day, texts) = (day.number(place)?, texts.list(place)?);
        let is_next = found.last().is_none_or(|before| before.day < day);
        ensure(is_next && !texts.is_empty(), place, || {
            "days do not ascend, or one is empty".into()
        })?;
        for text in texts {
            let at = At { day, text: text.number(place)? };
            let ascends = found.last().is_none_or(|before| *before < at);
            ensure(ascends, place, || "texts of a day do not ascend".to_owned())?;
            found.push(at);
        }
    }
    Ok(found)
}
