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
