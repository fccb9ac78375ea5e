//! When a certificate begins and ends: so that somebody is warned before it does, and told after.
//!
//! A reader of just as much DER as stands before the validity (RFC 5280, 4.1):
//!
//! ```text
//! Certificate ::= SEQUENCE { tbsCertificate SEQUENCE {
//!     version [0] OPTIONAL, serialNumber INTEGER, signature SEQUENCE, issuer SEQUENCE,
//!     validity SEQUENCE { notBefore Time, notAfter Time }, ... }, ... }
//! Time ::= UTCTime "YYMMDDHHMMSSZ" (1950-2049) | GeneralizedTime "YYYYMMDDHHMMSSZ"
//! ```
//!
//! It decides nothing: whether a certificate is valid is rustls' judgement.

use rustls::pki_types::{CertificateDer, UnixTime};

use crate::time::Timestamp;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The clock by which handshakes judge certificates: the machine's.
#[must_use]
pub fn now() -> Timestamp {
    let seconds = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    Timestamp(seconds.saturating_mul(1_000))
}

/// The last instant at which the certificate is valid; `None` if it cannot be read.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    validity(certificate).map(|(_, until)| until)
}

/// The first and the last instant at which the certificate is valid.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (outer, _) = expect(certificate.as_ref(), SEQUENCE)?;
    let (mut rest, _) = expect(outer, SEQUENCE)?;
    if let Some((_, after)) = expect(rest, VERSION) {
        rest = after;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = expect(rest, tag)?;
    }
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (tag, begin, after_begin) = element(validity)?;
    let from = instant(tag, begin)?;
    let (tag, end, _) = element(after_begin)?;
    Some((from, instant(tag, end)?))
}

/// An instant as `2026-11-26 14:05 UTC`.
pub(super) fn minute(at: Timestamp) -> String {
    let minutes = at.0.div_euclid(60_000);
    let (days, of_day) = (minutes.div_euclid(1_440), minutes.rem_euclid(1_440));
    let (year, month, day) = date_of(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", of_day / 60, of_day % 60)
}

/// The content of an element that must have `tag`, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// The first element: its tag, content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ 0..=0x7f => (short, rest),
        // The long form: 1 to 4 bytes of length follow.
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(long & 0x0f)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn instant(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME => {
            let (digits, rest) = text.split_at_checked(2)?;
            let short: i64 = digits.parse().ok()?;
            (short.checked_add(if short < 50 { 2_000 } else { 1_900 })?, rest)
        }
        GENERALIZED_TIME => {
            let (digits, rest) = text.split_at_checked(4)?;
            (digits.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let field = |index: usize| rest.get(index..index.checked_add(2)?)?.parse::<i64>().ok();
    let days = days_since_1970(year, field(0)?, field(2)?)?;
    let seconds = [(24, field(4)?), (60, field(6)?), (60, field(8)?)]
        .into_iter()
        .try_fold(days, |sum, (scale, value)| {
            i64::checked_add(i64::checked_mul(sum, scale)?, value)
        })?;
    Some(Timestamp(seconds.checked_mul(1_000)?))
}

/// Days from 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the leap day
/// is a year's last; a month of such a year begins on day (153 m + 2) / 5.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 {
        (year, month.checked_sub(3)?)
    } else {
        (year.checked_sub(1)?, month.checked_add(9)?)
    };
    let of_years = [(365, 1), (1, 4), (-1, 100), (1, 400)].into_iter().try_fold(
        0,
        |days, (factor, every)| {
            i64::checked_add(days, i64::checked_mul(year.div_euclid(every), factor)?)
        },
    )?;
    let of_months = month.checked_mul(153)?.checked_add(2)?.div_euclid(5);
    // 1970-01-01 is day 719,468 of this count.
    of_years.checked_add(of_months)?.checked_add(day)?.checked_sub(719_469)
}

/// The date of a day since 1970-01-01: the reverse of [`days_since_1970`].
fn date_of(days: i64) -> (i64, i64, i64) {
    // Days since 0000-03-01, in eras of 400 years.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    // Without the leap days before it, a day falls into a year of 365.
    let leap_days =
        (of_era / 1_460).saturating_sub(of_era / 36_524).saturating_add(of_era / 146_096);
    let year_of_era = of_era.saturating_sub(leap_days) / 365;
    let before = year_of_era.saturating_mul(365).saturating_add(year_of_era / 4);
    let of_year = of_era.saturating_sub(before.saturating_sub(year_of_era / 100));
    let shifted = of_year.saturating_mul(5).saturating_add(2) / 153;
    let month_begin = shifted.saturating_mul(153).saturating_add(2) / 5;
    let day = of_year.saturating_sub(month_begin).saturating_add(1);
    let month = if shifted < 10 { shifted.saturating_add(3) } else { shifted.saturating_sub(9) };
    let year = era.saturating_mul(400).saturating_add(year_of_era);
    (year.saturating_add(i64::from(month <= 2)), month, day)
}
