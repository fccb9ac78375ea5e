//! One batch of a journal, opened: its header and its lines.
//!
//! **Owns** their shape and text. **Does not own** the format (`tidemark_common::batch`).

use std::collections::BTreeMap;

use serde::Serialize;
use tidemark_common::batch::{Body, Line, SealedBatch};

use super::{Page, evidence};
use crate::admin::dead_letter::rfc3339;
use crate::status::text::{grouped, plural};

/// A batch, as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BatchShown {
    pub sequence: u64,
    pub stream: String,
    pub opening: String,
    /// Events [first, end).
    pub first_event: u64,
    pub end_event: u64,
    pub rules: u64,
    pub digest: String,
    pub previous_digest: String,
    pub body_digest: String,
    pub lines_root: String,
    /// The body as stored, and before compression.
    pub stored_bytes: u32,
    pub raw_bytes: u32,
    pub evidence: BTreeMap<String, u64>,
    pub lines: Vec<LineShown>,
    /// What is wrong with header or body.
    pub problem: Option<String>,
}

/// What was used of a meter, by a customer, in a quarter of an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineShown {
    pub meter: String,
    pub customer: String,
    pub dimensions: BTreeMap<String, String>,
    /// When the quarter of an hour begins.
    pub from: String,
    /// More than 0 where a line was split because its sum would have overflowed.
    pub part: u16,
    pub events: u64,
    /// Exact decimals, as text; absent if no event carries a quantity.
    pub sum: Option<String>,
    pub min: Option<String>,
    pub max: Option<String>,
    pub latest: Option<String>,
    /// Different unique values; known by digests alone.
    pub uniques: usize,
}

impl BatchShown {
    /// Reads a batch's frozen bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let (header, stored) = match SealedBatch::split(bytes) {
            Ok(split) => split,
            Err(error) => return Self { problem: Some(error.to_string()), ..Self::default() },
        };
        let mut shown = Self {
            sequence: header.sequence.0,
            stream: header.stream.to_string(),
            opening: header.opening.to_string(),
            first_event: header.first_event.0,
            end_event: header.end_event.0,
            rules: header.rules.0,
            digest: header.digest().to_string(),
            previous_digest: header.previous.to_string(),
            body_digest: header.body_digest.to_string(),
            lines_root: header.lines_root.to_string(),
            stored_bytes: header.stored_length,
            raw_bytes: header.raw_length,
            ..Self::default()
        };
        match Body::open(&header, stored) {
            Ok(body) => {
                shown.evidence = evidence(&body.evidence);
                shown.lines = body.lines.iter().map(LineShown::from).collect();
            }
            Err(error) => shown.problem = Some(error.to_string()),
        }
        shown
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = Page::default();
        if let Some(problem) = &self.problem {
            page.row("DAMAGED", format_args!("{problem}"));
        }
        page.row("batch", format_args!("{} of stream {}", self.sequence, self.stream));
        page.row("opening", format_args!("{}, rules version {}", self.opening, self.rules));
        let events = self.end_event.saturating_sub(self.first_event);
        let (first, end) = (self.first_event, self.end_event);
        page.row("events", format_args!("{}: {first} to {end}", grouped(events)));
        page.row("digest", format_args!("{}", self.digest));
        page.row("previous", format_args!("{}", self.previous_digest));
        page.row(
            "body",
            format_args!(
                "{} bytes of {}, digest {}",
                self.stored_bytes, self.raw_bytes, self.body_digest
            ),
        );
        page.row("root", format_args!("{}", self.lines_root));
        for (index, (code, count)) in self.evidence.iter().enumerate() {
            let title = if index == 0 { "counted, ever" } else { "" };
            page.row(title, format_args!("{code} {}", grouped(*count)));
        }
        let lines = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        page.row("lines", format_args!("{}", plural(lines, "line", "lines")));
        for line in &self.lines {
            page.row("", format_args!("{}", line.text()));
        }
        page.0
    }
}

impl LineShown {
    fn text(&self) -> String {
        let Self { meter, customer, from, events, uniques, .. } = self;
        let dimensions: String = self
            .dimensions
            .iter()
            .map(|(name, value)| format!(" {}={}", name.escape_debug(), value.escape_debug()))
            .collect();
        let quantities = match (&self.sum, &self.min, &self.max, &self.latest) {
            (Some(sum), Some(min), Some(max), Some(latest)) => {
                format!(", sum {sum}, {min} to {max}, latest {latest}")
            }
            _ => String::new(),
        };
        let uniques = if *uniques > 0 { format!(", {uniques} different") } else { String::new() };
        let part = if self.part > 0 { format!(", part {}", self.part) } else { String::new() };
        let customer = customer.escape_debug();
        format!(
            "{meter} {customer}{dimensions} from {from}{part}: {events} events{quantities}{uniques}"
        )
    }
}

impl From<&Line> for LineShown {
    fn from(line: &Line) -> Self {
        let (key, value) = (&line.key, &line.value);
        let quantity = |quantity: tidemark_common::quantity::Quantity| {
            (value.quantity_events > 0).then(|| quantity.to_string())
        };
        Self {
            meter: key.meter.as_str().to_owned(),
            customer: key.customer.as_str().to_owned(),
            dimensions: key
                .dimensions
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            from: rfc3339(key.bucket.start()),
            part: key.part,
            events: value.events,
            sum: quantity(value.sum),
            min: quantity(value.min),
            max: quantity(value.max),
            latest: quantity(value.latest),
            uniques: value.uniques.len(),
        }
    }
}
