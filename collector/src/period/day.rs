//! Calendar days: of a customer's periods, of documents and entries.

use std::fmt;

use jiff::Span;
use jiff::Timestamp as Instant;
use jiff::civil::Date;

use tidemark_common::time::{Bucket, Timestamp};

use super::{PeriodError, Zone};

/// A day between 1970 and 2099.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub(super) Date);

/// A month of a year; as text `2026-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    year: i16,
    month: i8,
}

impl Day {
    /// # Errors
    /// A text that is no date such as `2026-01-31`.
    pub fn parse(text: &str) -> Result<Self, PeriodError> {
        let not_a_date = || PeriodError::NotADate { text: text.to_owned() };
        let date: Date = text.parse().map_err(|_| not_a_date())?;
        // The parser also takes times, and leaves them out.
        let is_plain = date.to_string() == text && (1970..2100).contains(&date.year());
        if is_plain { Ok(Self(date)) } else { Err(not_a_date()) }
    }

    /// That many days later.
    #[must_use]
    pub fn plus_days(self, days: u16) -> Self {
        Self(self.0.saturating_add(Span::new().days(i64::from(days))))
    }

    /// That many days earlier.
    #[must_use]
    pub fn minus_days(self, days: u16) -> Self {
        Self(self.0.saturating_sub(Span::new().days(i64::from(days))))
    }

    #[must_use]
    pub fn month(self) -> Month {
        Month { year: self.0.year(), month: self.0.month() }
    }

    /// The year in which the fiscal year that holds this day begins; it begins with the given month.
    #[must_use]
    pub fn fiscal_year(self, first_month: i8) -> i16 {
        if self.0.month() < first_month { self.0.year().saturating_sub(1) } else { self.0.year() }
    }
}

impl Month {
    /// # Errors
    /// A text that is no month such as `2026-01`.
    pub fn parse(text: &str) -> Result<Self, PeriodError> {
        let day = Day::parse(&format!("{text}-01"));
        day.map(Day::month).map_err(|_| PeriodError::NotAMonth { text: text.to_owned() })
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl Zone {
    /// The day that holds `at`, in this zone.
    ///
    /// # Errors
    /// An instant outside of what calendars cover.
    pub fn day_of(&self, at: Timestamp) -> Result<Day, PeriodError> {
        let instant =
            Instant::from_millisecond(at.0).map_err(|_| PeriodError::OutOfRange { at: at.0 })?;
        Ok(Day(instant.to_zoned(self.0.clone()).date()))
    }

    /// Where the day begins, in this zone.
    ///
    /// # Errors
    /// A day that begins at no bucket's edge.
    pub fn start_of(&self, day: Day) -> Result<Bucket, PeriodError> {
        let begin = day.0.to_zoned(self.0.clone()).and_then(|day| day.start_of_day());
        let out_of_range = |_| PeriodError::NotADate { text: day.to_string() };
        self.edge(begin.map_err(out_of_range)?.timestamp())
    }
}
