#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use proptest::prelude::*;

use super::*;

fn zone(name: &str) -> Zone {
    Zone::parse(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp(text.parse::<Instant>().unwrap().as_millisecond())
}

fn shown(zone: &Zone, period: Period) -> String {
    format!("{} {}", zone.rfc3339(period.start.start()), zone.rfc3339(period.end.start()))
}

#[test]
fn months_begin_at_local_midnight() {
    let check = |name: &str, instant: &str, expected: &str| {
        let zone = zone(name);
        assert_eq!(shown(&zone, zone.month_of(at(instant)).unwrap()), expected, "{name} {instant}");
    };
    check("UTC", "2026-02-28T23:59:59.999Z", "2026-02-01T00:00:00Z 2026-03-01T00:00:00Z");
    check("UTC", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z 2026-04-01T00:00:00Z");
    // Already the next month in India, still the month before in New York.
    check(
        "Asia/Kolkata",
        "2026-01-31T18:30:00Z",
        "2026-02-01T00:00:00+05:30 2026-03-01T00:00:00+05:30",
    );
    check(
        "Asia/Kolkata",
        "2026-01-31T18:29:59Z",
        "2026-01-01T00:00:00+05:30 2026-02-01T00:00:00+05:30",
    );
    check(
        "America/New_York",
        "2026-03-01T04:59:00Z",
        "2026-02-01T00:00:00-05:00 2026-03-01T00:00:00-05:00",
    );
    // The month of a clock change ends on another offset than it began on.
    check(
        "America/New_York",
        "2026-03-15T00:00:00Z",
        "2026-03-01T00:00:00-05:00 2026-04-01T00:00:00-04:00",
    );
    check(
        "Asia/Kathmandu",
        "2026-12-31T18:15:00Z",
        "2027-01-01T00:00:00+05:45 2027-02-01T00:00:00+05:45",
    );
    // Samoa skipped 2011-12-30.
    check(
        "Pacific/Apia",
        "2011-12-31T12:00:00Z",
        "2012-01-01T00:00:00+14:00 2012-02-01T00:00:00+14:00",
    );
}

fn check_windows(name: &str, from: &str, to: &str, window: Window, expected: &[&str]) {
    let zone = zone(name);
    let range = Period { start: parse_edge(from).unwrap(), end: parse_edge(to).unwrap() };
    let windows = zone.windows(range, window).unwrap();
    let starts: Vec<_> = windows.iter().map(|window| zone.rfc3339(window.start.start())).collect();
    assert_eq!(starts, expected, "{name} {from} {to}");
    assert_eq!(windows.last().unwrap().end, range.end);
    assert!(windows.windows(2).all(|pair| pair[0].end == pair[1].start));
}

#[test]
fn windows_are_cut_at_local_hours_and_midnights() {
    check_windows(
        "Asia/Kolkata",
        "2026-01-01T00:00:00Z",
        "2026-01-01T02:00:00Z",
        Window::Hour,
        &["2026-01-01T05:30:00+05:30", "2026-01-01T06:00:00+05:30", "2026-01-01T07:00:00+05:30"],
    );
    check_windows(
        "Asia/Kolkata",
        "2026-01-01T00:00:00Z",
        "2026-01-02T18:30:00Z",
        Window::Day,
        &["2026-01-01T05:30:00+05:30", "2026-01-02T00:00:00+05:30"],
    );
    check_windows(
        "UTC",
        "2026-01-01T00:15:00Z",
        "2026-01-05T00:00:00Z",
        Window::Total,
        &["2026-01-01T00:15:00Z"],
    );
}

#[test]
fn a_day_of_a_clock_change_has_23_or_25_hours() {
    let check = |name: &str, from: &str, to: &str, hours: usize| {
        let zone = zone(name);
        let range = Period { start: parse_edge(from).unwrap(), end: parse_edge(to).unwrap() };
        assert_eq!(zone.windows(range, Window::Day).unwrap(), [range], "{name} {from}");
        assert_eq!(zone.windows(range, Window::Hour).unwrap().len(), hours, "{name} {from}");
    };
    check("America/New_York", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", 23);
    check("America/New_York", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25);
    check("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23);
    check("Asia/Kolkata", "2026-03-07T18:30:00Z", "2026-03-08T18:30:00Z", 24);
    // Lord Howe Island moves by half an hour: one window of 30 minutes.
    check("Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z", 25);
}

#[test]
fn windows_are_bounded() {
    let range = Period { start: Bucket(0), end: Bucket(4_000_000) };
    assert_eq!(
        zone("UTC").windows(range, Window::Hour),
        Err(PeriodError::TooManyWindows { windows_max: WINDOWS_MAX })
    );
}

#[test]
fn edges_are_told_from_what_lies_between() {
    let check = |text: &str, expected: Result<u32, &str>| {
        let read = parse_edge(text).map(|bucket| bucket.0).map_err(|error| error.to_string());
        assert_eq!(read, expected.map_err(str::to_owned), "{text}");
    };
    let not_a_time =
        "is neither RFC 3339 (2026-01-31T00:00:00Z) nor unix seconds, between 1970 and 2100";
    check("0", Ok(0));
    check("900", Ok(1));
    check("1970-01-01T00:15:00Z", Ok(1));
    check("1970-01-01T05:45:00+05:30", Ok(1));
    // As a query has it whose plus was not encoded.
    check("1970-01-01T05:45:00 05:30", Ok(1));
    check(
        "901",
        Err(
            "is not a multiple of 15 minutes; the nearest are 1970-01-01T00:15:00Z and 1970-01-01T00:30:00Z",
        ),
    );
    check(
        "1970-01-01T00:14:59.999Z",
        Err(
            "is not a multiple of 15 minutes; the nearest are 1970-01-01T00:00:00Z and 1970-01-01T00:15:00Z",
        ),
    );
    check(
        "1970-01-01T00:15:00.0000001Z",
        Err(
            "is not a multiple of 15 minutes; the nearest are 1970-01-01T00:15:00Z and 1970-01-01T00:30:00Z",
        ),
    );
    for text in ["", "yesterday", "-900", "2026-01-01", "9999999999999999", "2101-01-01T00:00:00Z"]
    {
        check(text, Err(not_a_time));
    }
}

#[test]
fn unknown_zones_are_refused() {
    assert!(matches!(Zone::parse("Mars/Olympus"), Err(PeriodError::UnknownZone { .. })));
    assert_eq!(zone("Europe/Berlin").name(), "Europe/Berlin");
}

proptest! {
    #[test]
    fn any_text_is_judged_without_panic(text in ".*") {
        let _edge = parse_edge(&text);
        let _zone = Zone::parse(&text);
    }

    /// Windows cover the range without holes, whatever the zone.
    #[test]
    fn windows_tile_the_range(start in 1_500_000_u32..2_100_000, length in 1_u32..2_000, zone_index in 0_usize..5, day in any::<bool>()) {
        let name = ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Chatham"][zone_index];
        let range = Period { start: Bucket(start), end: Bucket(start + length) };
        let window = if day { Window::Day } else { Window::Hour };
        let windows = zone(name).windows(range, window).unwrap();
        prop_assert_eq!(windows[0].start, range.start);
        prop_assert_eq!(windows.last().unwrap().end, range.end);
        for pair in windows.windows(2) {
            prop_assert!(pair[0].start < pair[0].end && pair[0].end == pair[1].start);
        }
    }
}

/// An instant, what periods are counted from -> the first and last day of its period.
fn check_period(interval: Interval, anchor: Option<&str>, instant: &str, expected: &str) {
    let zone = zone("Europe/Berlin");
    let anchor = anchor.map(|anchor| Anchor::parse(anchor).unwrap());
    let period = zone.period_of(at(instant), interval, anchor).unwrap();
    let day = |bucket: Bucket| zone.rfc3339(bucket.start());
    let [start, end] = [day(period.start), day(period.end)];
    for edge in [&start, &end] {
        assert!(edge.contains("T00:00:00"), "{edge} is no midnight");
    }
    assert_eq!(format!("{} {}", &start[..10], &end[..10]), expected, "{interval:?} {instant}");
}

#[test]
fn calendar_periods() {
    let check = |interval, expected| check_period(interval, None, "2026-03-29T12:00:00Z", expected);
    check(Interval::Day, "2026-03-29 2026-03-30");
    check(Interval::Week, "2026-03-23 2026-03-30");
    check(Interval::Month, "2026-03-01 2026-04-01");
    check(Interval::Quarter, "2026-01-01 2026-04-01");
    check(Interval::Year, "2026-01-01 2027-01-01");
    // Before the calendar's anchor, and on edges.
    check_period(Interval::Quarter, None, "1999-12-31T22:59:59Z", "1999-10-01 2000-01-01");
    check_period(Interval::Quarter, None, "1999-12-31T23:00:00Z", "2000-01-01 2000-04-01");
    check_period(Interval::Week, None, "2026-03-22T22:59:59Z", "2026-03-16 2026-03-23");
}

#[test]
fn anniversaries() {
    let month = |instant, expected| {
        check_period(Interval::Month, Some("2026-01-31"), instant, expected);
    };
    month("2026-01-31T12:00:00Z", "2026-01-31 2026-02-28");
    month("2026-02-27T12:00:00Z", "2026-01-31 2026-02-28");
    month("2026-02-28T12:00:00Z", "2026-02-28 2026-03-31");
    month("2026-03-30T12:00:00Z", "2026-02-28 2026-03-31");
    month("2026-04-30T12:00:00Z", "2026-04-30 2026-05-31");
    month("2028-02-29T12:00:00Z", "2028-02-29 2028-03-31");
    // Before the anchor too.
    month("2025-12-31T12:00:00Z", "2025-12-31 2026-01-31");
    month("2025-12-30T12:00:00Z", "2025-11-30 2025-12-31");
    let check = |interval, anchor, instant, expected| {
        check_period(interval, Some(anchor), instant, expected)
    };
    check(Interval::Quarter, "2025-11-30", "2026-02-27T12:00:00Z", "2025-11-30 2026-02-28");
    check(Interval::Year, "2024-02-29", "2026-02-28T12:00:00Z", "2026-02-28 2027-02-28");
    check(Interval::Year, "2024-02-29", "2028-02-28T12:00:00Z", "2027-02-28 2028-02-29");
    check(Interval::Week, "2026-01-01", "2026-03-29T12:00:00Z", "2026-03-26 2026-04-02");
    check(Interval::Week, "2026-01-01", "2025-12-31T12:00:00Z", "2025-12-25 2026-01-01");
}

#[test]
fn anchors_are_dates() {
    for text in [
        "",
        "2026-02-30",
        "2026-1-1",
        "2026-01-01T00:00:00",
        "1969-12-31",
        "2100-01-01",
        "31.1.2026",
    ] {
        assert!(Anchor::parse(text).is_err(), "{text}");
    }
    assert_eq!(Anchor::parse("2026-01-31").unwrap().to_string(), "2026-01-31");
}

proptest! {
    /// Each instant from 1972 on is in its period, and the next period begins where it ends.
    #[test]
    fn periods_follow_each_other(millis in 63_072_000_000_i64..4_000_000_000_000, nth in 0_usize..5, day in 0_i64..20_000) {
        let at = Timestamp(millis);
        let date = jiff::civil::date(1970, 1, 1).checked_add(Span::new().days(day)).unwrap();
        let zone = zone("America/New_York");
        for anchor in [None, Some(Anchor(date))] {
            let interval = Interval::ALL[nth];
            let period = zone.period_of(at, interval, anchor).unwrap();
            prop_assert!(period.start.start() <= at && at < period.end.start());
            let next = zone.period_of(period.end.start(), interval, anchor).unwrap();
            prop_assert_eq!(next.start, period.end);
        }
    }
}
