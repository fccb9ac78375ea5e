//! Instants as documents write them: RFC 3339 with an offset, in one form.

use super::Refusal;

const QUARTER_SECONDS: i64 = 900;

/// Unix milliseconds of `2026-10-01T00:00:00+02:00`, `...Z`, with a fraction of a second or without.
pub(super) fn millis(text: &str, place: &str) -> Result<i64, Refusal> {
    let wrong = || Refusal::new(place, format!("{text:?} is no instant of RFC 3339"));
    let bytes = text.as_bytes();
    let is_plain = text.len() >= 20
        && text.len() <= 40
        && bytes.get(10) == Some(&b'T')
        && bytes.iter().all(|byte| byte.is_ascii_digit() || b"-:.+TZ".contains(byte));
    if !is_plain {
        return Err(wrong());
    }
    let instant: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    Ok(instant.as_millisecond())
}

/// A quarter of an hour since 1970.
pub(super) fn bucket(text: &str, place: &str) -> Result<u32, Refusal> {
    let millis = millis(text, place)?;
    let (seconds, rest) = (millis.div_euclid(1000), millis.rem_euclid(1000));
    let bucket = u32::try_from(seconds.div_euclid(QUARTER_SECONDS));
    match (bucket, rest, seconds.rem_euclid(QUARTER_SECONDS)) {
        (Ok(bucket), 0, 0) => Ok(bucket),
        _ => Err(Refusal::new(place, format!("{text} is no quarter of an hour since 1970"))),
    }
}

/// For people, in UTC.
pub(super) fn told(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| format!("{millis} ms"), |instant| instant.to_string())
}
