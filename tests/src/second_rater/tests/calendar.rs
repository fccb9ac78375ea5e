//! Periods whose days are known.

use crate::second_rater::calendar::{Interval, day, first_of_month, instant};

#[test]
fn periods() {
    // 2024-02-29 was a Thursday, the day 19,782.
    let at = 19_782 * 96 + 95;
    assert_eq!(instant(at), "2024-02-29T23:45:00Z");
    let check = |interval: Interval, start: &str, end: &str| {
        let (first, after) = interval.period(at);
        assert_eq!((day(first), day(after)), (start.to_owned(), end.to_owned()), "{interval:?}");
    };
    check(Interval::Day, "2024-02-29", "2024-03-01");
    check(Interval::Week, "2024-02-26", "2024-03-04");
    check(Interval::Month, "2024-02-01", "2024-03-01");
    check(Interval::Quarter, "2024-01-01", "2024-04-01");
    check(Interval::Year, "2024-01-01", "2025-01-01");
    // What is to come begins where this ends.
    for interval in Interval::ALL {
        let (start, end) = interval.period(at);
        assert_eq!(interval.period(start), (start, end));
        assert_eq!(interval.period(end).0, end);
        assert_eq!(interval.period(start - 1).1, start);
    }
    assert_eq!(Interval::Quarter.period(first_of_month(2025, 12)).1, first_of_month(2026, 1));
    assert_eq!(instant(first_of_month(2100, 3)), "2100-03-01T00:00:00Z");
}
