//! Billing periods and windows in a customer's time zone, as half-open ranges of buckets.
//!
//! **Owns** civil time: where a month, a day and an hour begin in a zone. **Does not own** the clock:
//! the instant is an argument.
//!
//! The zone data is compiled in, so that a period begins at the same instant on every machine.
//! Every civil offset in use since 1972 is a multiple of 15 minutes, so local midnights and hours are
//! bucket edges; where history disagrees, the answer is an error, never a shifted period.

mod day;

use std::fmt;
use std::sync::LazyLock;

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp as Instant, Unit};
use thiserror::Error;

use tidemark_common::time::{BUCKET_MILLIS, Bucket, Timestamp};

pub use day::{Day, Month};

/// An answer is cut into at most this many windows.
pub const WINDOWS_MAX: usize = 10_000;

const HOUR_MILLIS: i64 = 3_600_000;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone of the IANA database.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// Failed to find a place in civil time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeriodError {
    #[error("{name:?} is not a time zone of the IANA database")]
    UnknownZone { name: String },
    #[error("{text:?} is no date such as 2026-01-31, between 1970 and 2099")]
    NotADate { text: String },
    #[error("{text:?} is no month such as 2026-01, between 1970 and 2099")]
    NotAMonth { text: String },
    #[error("failed to find the period of {at}: it is out of range")]
    OutOfRange { at: i64 },
    #[error("failed to place {at} in {zone}: it is not a multiple of 15 minutes of UTC")]
    NotAnEdge { zone: String, at: i64 },
    #[error("the range makes more than {windows_max} windows")]
    TooManyWindows { windows_max: usize },
}

/// A half-open range of buckets, [start, end).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    pub start: Bucket,
    pub end: Bucket,
}

/// How long a billing period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interval {
    Day,
    /// From Monday on, unless anchored.
    Week,
    Month,
    Quarter,
    Year,
}

/// The first day of some period: all others begin whole intervals before or after it. A day of the month that a
/// month does not have is its last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor(Date);

/// How an answer is cut in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Total,
    Hour,
    Day,
}

impl Interval {
    pub const ALL: [Self; 5] = [Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    /// The name, as the catalogue and the API write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }

    /// How many days or months it has.
    fn length(self) -> Length {
        match self {
            Self::Day => Length::Days(1),
            Self::Week => Length::Days(7),
            Self::Month => Length::Months(1),
            Self::Quarter => Length::Months(3),
            Self::Year => Length::Months(12),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Length {
    Days(i32),
    Months(i32),
}

impl Length {
    /// The day that is `count` lengths after `first`.
    fn after(self, first: Date, count: i32) -> Result<Date, jiff::Error> {
        let span = match self {
            Self::Days(days) => Span::new().try_days(days.saturating_mul(count))?,
            Self::Months(months) => Span::new().try_months(months.saturating_mul(count))?,
        };
        first.checked_add(span)
    }

    /// The greatest number of lengths after `first` that is not after `day`.
    fn until(self, first: Date, day: Date) -> Result<i32, jiff::Error> {
        let passed = match self {
            Self::Days(days) => first.until((Unit::Day, day))?.get_days().div_euclid(days),
            Self::Months(months) => {
                let number = |date: Date| {
                    i32::from(date.year()).saturating_mul(12).saturating_add(date.month().into())
                };
                number(day).saturating_sub(number(first)).div_euclid(months)
            }
        };
        // Months are counted without their days.
        let is_late = self.after(first, passed)? > day;
        Ok(if is_late { passed.saturating_sub(1) } else { passed })
    }
}

impl Anchor {
    /// A Monday, and the first of a year.
    const CALENDAR: Self = Self(Date::constant(2001, 1, 1));

    /// # Errors
    /// A text that is no date such as `2026-01-31`.
    pub fn parse(text: &str) -> Result<Self, PeriodError> {
        Day::parse(text).map(|Day(date)| Self(date))
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Zone {
    /// # Errors
    /// A name that the IANA database does not list.
    pub fn parse(name: &str) -> Result<Self, PeriodError> {
        ZONES.get(name).map(Self).map_err(|_| PeriodError::UnknownZone { name: name.to_owned() })
    }

    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone's IANA name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// `at` as RFC 3339 with this zone's offset; `Z` in UTC.
    #[must_use]
    pub fn rfc3339(&self, at: Timestamp) -> String {
        match Instant::from_millisecond(at.0) {
            Ok(instant) if self.name() == "UTC" => instant.to_string(),
            Ok(instant) => instant.display_with_offset(self.0.to_offset(instant)).to_string(),
            Err(_) => format!("{} ms", at.0),
        }
    }

    /// The calendar month that holds `at`, in this zone.
    ///
    /// # Errors
    /// As [`Self::period_of`].
    pub fn month_of(&self, at: Timestamp) -> Result<Period, PeriodError> {
        self.period_of(at, Interval::Month, None)
    }

    /// The period that holds `at`, in this zone: of the calendar, or counted from `anchor`.
    ///
    /// # Errors
    /// An instant outside of what calendars and buckets cover.
    pub fn period_of(
        &self,
        at: Timestamp,
        interval: Interval,
        anchor: Option<Anchor>,
    ) -> Result<Period, PeriodError> {
        let out_of_range = |_| PeriodError::OutOfRange { at: at.0 };
        let instant = Instant::from_millisecond(at.0).map_err(out_of_range)?;
        let day = instant.to_zoned(self.0.clone()).date();
        let (length, Anchor(first)) = (interval.length(), anchor.unwrap_or(Anchor::CALENDAR));
        let count = length.until(first, day).map_err(out_of_range)?;
        let edge = |count| {
            let day = length.after(first, count).and_then(|day| day.to_zoned(self.0.clone()));
            let begin = day.and_then(|day| day.start_of_day()).map_err(out_of_range)?;
            self.edge(begin.timestamp())
        };
        Ok(Period { start: edge(count)?, end: edge(count.saturating_add(1))? })
    }

    /// `range` cut at this zone's local hours or midnights, ascending. The first and the last may be
    /// shorter, where the range begins or ends inside a window; a day of a clock change has 23 or 25
    /// hours.
    ///
    /// # Errors
    /// More than [`WINDOWS_MAX`] windows, or an edge that is no bucket's.
    pub fn windows(&self, range: Period, window: Window) -> Result<Vec<Period>, PeriodError> {
        if window == Window::Total || range.start >= range.end {
            return Ok(vec![range]);
        }
        let mut windows = Vec::new();
        let mut start = range.start;
        while start < range.end {
            if windows.len() >= WINDOWS_MAX {
                return Err(PeriodError::TooManyWindows { windows_max: WINDOWS_MAX });
            }
            let end = self.next_edge(start, window)?.min(range.end);
            windows.push(Period { start, end });
            start = end;
        }
        Ok(windows)
    }

    /// The first local hour or midnight after the start of `bucket`.
    fn next_edge(&self, bucket: Bucket, window: Window) -> Result<Bucket, PeriodError> {
        let at = bucket.start();
        let out_of_range = |_| PeriodError::OutOfRange { at: at.0 };
        let instant = Instant::from_millisecond(at.0).map_err(out_of_range)?;
        match window {
            Window::Total => Ok(Bucket(u32::MAX)),
            Window::Hour => {
                let offset_millis =
                    i64::from(self.0.to_offset(instant).seconds()).saturating_mul(1_000);
                let into_hour = at.0.saturating_add(offset_millis).rem_euclid(HOUR_MILLIS);
                let next = at.plus_millis(HOUR_MILLIS.saturating_sub(into_hour));
                self.edge(Instant::from_millisecond(next.0).map_err(out_of_range)?)
            }
            Window::Day => {
                let local = instant.to_zoned(self.0.clone());
                let next = local
                    .date()
                    .tomorrow()
                    .and_then(|date| date.to_zoned(self.0.clone()))
                    .and_then(|day| day.start_of_day())
                    .map_err(out_of_range)?;
                self.edge(next.timestamp())
            }
        }
    }

    fn edge(&self, instant: Instant) -> Result<Bucket, PeriodError> {
        let at = instant.as_millisecond();
        Bucket::starting_at(Timestamp(at))
            .ok_or_else(|| PeriodError::NotAnEdge { zone: self.name().to_owned(), at })
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}

/// Why a text is no bucket's edge.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EdgeError {
    #[error("is neither RFC 3339 (2026-01-31T00:00:00Z) nor unix seconds, between 1970 and 2100")]
    NotATime,
    #[error("is not a multiple of 15 minutes; the nearest are {before} and {after}")]
    NotAnEdge { before: String, after: String },
}

/// Reads RFC 3339 or unix seconds that stand exactly on a bucket's edge.
///
/// # Errors
/// Not a time, or between two edges, which are named.
pub fn parse_edge(text: &str) -> Result<Bucket, EdgeError> {
    let instant = match text.parse::<i64>() {
        Ok(seconds) => Instant::from_second(seconds).map_err(|_| EdgeError::NotATime)?,
        Err(_) => {
            // A plus that was not percent-encoded arrives as a space.
            let mended = match text.rsplit_once(' ') {
                Some((time, offset)) if time.contains('T') => Some(format!("{time}+{offset}")),
                Some(_) | None => None,
            };
            let text = mended.as_deref().unwrap_or(text);
            text.parse::<Instant>().map_err(|_| EdgeError::NotATime)?
        }
    };
    let at = Timestamp(instant.as_millisecond());
    // 2100-01-01; far inside what a bucket's number and civil arithmetic hold.
    if at.0 < 0 || at.0 > 4_102_444_800_000 {
        return Err(EdgeError::NotATime);
    }
    let bucket = Bucket::of(at).ok_or(EdgeError::NotATime)?;
    if instant.subsec_nanosecond() == 0 && bucket.start() == at {
        return Ok(bucket);
    }
    let utc = Zone::utc();
    Err(EdgeError::NotAnEdge {
        before: utc.rfc3339(bucket.start()),
        after: utc.rfc3339(bucket.start().plus_millis(BUCKET_MILLIS)),
    })
}

#[cfg(test)]
mod tests;
