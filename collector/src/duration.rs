//! Durations and sizes as people write them in configuration: `10s`, `250ms`, `64 MiB`.
//!
//! Pure. A unit is always written, so that nobody has to guess it.

use thiserror::Error;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not a duration such as \"250ms\", \"10s\", \"5m\", \"24h\" or \"35d\"")]
pub struct NotADuration;

/// Why a text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not a size such as \"65536\", \"64 KiB\", \"16 MiB\" or \"4 GiB\"")]
pub struct NotASize;

/// Reads a whole number of one unit, in milliseconds.
///
/// # Errors
/// Anything else.
pub fn parse_millis(text: &str) -> Result<u64, NotADuration> {
    let factor = |unit: &str| match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    amount(text, factor).ok_or(NotADuration)
}

/// Reads a number of bytes with an optional binary unit.
///
/// # Errors
/// Anything else.
pub fn parse_bytes(text: &str) -> Result<u64, NotASize> {
    let factor = |unit: &str| match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    amount(text, factor).ok_or(NotASize)
}

fn amount(text: &str, factor: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    digits.parse::<u64>().ok()?.checked_mul(factor(unit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_millis(text).ok(), expected, "{text}")
        };
        check("250ms", Some(250));
        check("10s", Some(10_000));
        check("5 m", Some(300_000));
        check("24h", Some(86_400_000));
        check("35d", Some(3_024_000_000));
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 sec",
            "1h30m",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn sizes_are_binary() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_bytes(text).ok(), expected, "{text}")
        };
        check("0", Some(0));
        check("512 B", Some(512));
        check("64KiB", Some(65_536));
        check("16 MiB", Some(16 << 20));
        for text in ["", "MiB", "1 MB", "1k", "1.5 MiB", "-1", "99999999999 TiB"] {
            check(text, None);
        }
    }
}
