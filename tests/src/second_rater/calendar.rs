//! Periods of the calendar in UTC, and how instants are written.
//!
//! **Owns** days, weeks, months, quarters and years of the Gregorian calendar from 1970 on. **Does not own** zones
//! and anchors: all is UTC, and periods are those of the calendar; weeks begin on Monday.
//!
//! Instants are quarters of an hour since 1970.

const QUARTERS_PER_DAY: u32 = 96;

/// A plan's billing interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interval {
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Interval {
    pub const ALL: [Self; 5] = [Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

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

    /// The period `[start, end)` that holds `at`.
    #[must_use]
    pub fn period(self, at: u32) -> (u32, u32) {
        let day = at / QUARTERS_PER_DAY;
        let (year, month, _) = date(day);
        let months = |first: u32, count: u32| {
            let (after_year, after) = if first + count > 12 {
                (year + 1, first + count - 12)
            } else {
                (year, first + count)
            };
            (day_of(year, first), day_of(after_year, after))
        };
        let (first, after) = match self {
            Self::Day => (day, day + 1),
            // 1970-01-01 was a Thursday, three days after a Monday.
            Self::Week => {
                let first = day - (day + 3) % 7;
                (first, first + 7)
            }
            Self::Month => months(month, 1),
            Self::Quarter => months((month - 1) / 3 * 3 + 1, 3),
            Self::Year => months(1, 12),
        };
        (first * QUARTERS_PER_DAY, after * QUARTERS_PER_DAY)
    }
}

/// `2025-03-31T23:45:00Z`
#[must_use]
pub fn instant(at: u32) -> String {
    let minutes = at % QUARTERS_PER_DAY * 15;
    format!("{}T{:02}:{:02}:00Z", day(at), minutes / 60, minutes % 60)
}

/// `2025-03-31`
#[must_use]
pub fn day(at: u32) -> String {
    let (year, month, day) = date(at / QUARTERS_PER_DAY);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The beginning of a month's first day.
#[must_use]
pub fn first_of_month(year: u32, month: u32) -> u32 {
    day_of(year, month) * QUARTERS_PER_DAY
}

/// Year, month and day of the month of a day since 1970, by counting.
fn date(day: u32) -> (u32, u32, u32) {
    let (mut year, mut left) = (1970, day);
    while left >= days_of_year(year) {
        left -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while left >= days_of_month(year, month) {
        left -= days_of_month(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

/// The day since 1970 that a month begins with.
fn day_of(year: u32, month: u32) -> u32 {
    let years: u32 = (1970..year).map(days_of_year).sum();
    years + (1..month).map(|before| days_of_month(year, before)).sum::<u32>()
}

fn days_of_year(year: u32) -> u32 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}
