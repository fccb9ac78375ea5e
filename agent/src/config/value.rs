//! Texts to durations, sizes, addresses and modes, each with an error that says how to write it.
//!
//! Pure: text in, value out. **Does not own** where a text stands.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CollectorAddress;
use crate::intake::forward::ForwardAddress;

/// Why a text is not such a value, and how one is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) message: String,
    pub(super) remedy: String,
}

fn unfit(message: impl Into<String>, remedy: impl Into<String>) -> Unfit {
    Unfit { message: message.into(), remedy: remedy.into() }
}

const MILLIS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const BYTES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const DURATION_REMEDY: &str =
    "write a whole number and a unit: \"5ms\", \"10s\", \"5m\", \"24h\" or \"35d\"";
const BYTES_REMEDY: &str = "write a whole number of bytes, or a number and a unit: \"64KiB\", \"8MiB\", \"1GiB\" (or KB, MB, GB)";

/// `5ms`, `10s`, `5m`, `24h`, `35d`.
pub(super) fn duration(text: &str) -> Result<Duration, Unfit> {
    let millis = with_unit(text, &MILLIS)
        .ok_or_else(|| unfit(format!("{text:?} is not a duration"), DURATION_REMEDY))?;
    Ok(Duration::from_millis(millis))
}

/// A duration written as a bare number: the unit is missing.
pub(super) fn duration_without_unit(number: i64) -> Unfit {
    unfit(format!("{number} has no unit"), DURATION_REMEDY)
}

/// `64KiB`, `1GiB`, `1000`.
pub(super) fn bytes(text: &str) -> Result<u64, Unfit> {
    text.parse()
        .ok()
        .or_else(|| with_unit(text, &BYTES))
        .ok_or_else(|| unfit(format!("{text:?} is not a size"), BYTES_REMEDY))
}

/// A whole number, not below zero.
pub(super) fn count(text: &str) -> Result<u64, Unfit> {
    text.parse().map_err(|_| {
        unfit(format!("{text:?} is not a number"), "write a whole number of 0 or more")
    })
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A path. The text of a key in its place would be shown wherever the path is: in errors, in the log.
pub(super) fn path(text: &str) -> Result<String, Unfit> {
    if text.contains("-----BEGIN") {
        return Err(unfit(
            "is the text of a PEM file, not its path",
            "write the path of the file, or give the text in `ca_pem`, `certificate_pem` or `key_pem`",
        ));
    }
    Ok(text.to_owned())
}

/// A user's number; a name would have to be looked up.
pub(super) fn uid(text: &str) -> Result<u32, Unfit> {
    text.parse().map_err(|_| {
        unfit(format!("{text:?} is not a user's number"), "write what `id -u NAME` says: [1000]")
    })
}

/// Permission bits, in octal: `0660`.
pub(super) fn mode(text: &str) -> Result<u32, Unfit> {
    let bits =
        u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777 && !text.starts_with('+'));
    bits.ok_or_else(|| {
        unfit(
            format!("{text:?} is not a file mode"),
            "write permission bits in octal, as text: \"0660\"",
        )
    })
}

/// An address with a port; a name is not enough, since the agent listens there.
pub(super) fn address(text: &str) -> Result<SocketAddr, Unfit> {
    text.parse().map_err(|_| {
        unfit(
            format!("{text:?} is not an address with a port"),
            "write \"127.0.0.1:8125\", or \"[::1]:8125\" with brackets for IPv6",
        )
    })
}

/// `address:port`, or `unix:///path`. A name would have to be looked up, and intake waits for nobody.
pub(super) fn forward_address(text: &str) -> Result<ForwardAddress, Unfit> {
    let remedy =
        "write \"10.0.0.7:8125\", \"[2001:db8::7]:8125\" or \"unix:///run/datadog/dsd.socket\"";
    if let Some(path) = text.strip_prefix("unix://") {
        return match Path::new(path).is_absolute() {
            true => Ok(ForwardAddress::Unix(PathBuf::from(path))),
            false => Err(unfit(format!("{text:?} holds no absolute path"), remedy)),
        };
    }
    let address: Option<SocketAddr> = text.parse().ok();
    let usable = address.filter(|to| to.port() > 0 && !to.ip().is_unspecified());
    usable
        .map(ForwardAddress::Udp)
        .ok_or_else(|| unfit(format!("{text:?} is no address with a port"), remedy))
}

/// `host:port`; the host is a name or an address.
pub(super) fn collector(text: &str) -> Result<CollectorAddress, Unfit> {
    let remedy =
        "write \"collector.example.com:8129\", or \"[2001:db8::1]:8129\" with brackets for IPv6";
    let wrong = || unfit(format!("{text:?} is not a host with a port"), remedy);
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(inside) => {
            inside.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            inside
        }
        None if is_host(host) => host,
        None => return Err(wrong()),
    };
    Ok(CollectorAddress { host: host.to_owned(), port })
}

fn is_host(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, millis: Option<u64>| {
            assert_eq!(duration(text).ok(), millis.map(Duration::from_millis), "{text}");
        };
        check("5ms", Some(5));
        check("10s", Some(10_000));
        check("5m", Some(300_000));
        check("24h", Some(86_400_000));
        check("35d", Some(3_024_000_000));
        check("0s", Some(0));
        for wrong in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "1.5s",
            "5min",
            "5S",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn sizes() {
        let check = |text, expected: Option<u64>| assert_eq!(bytes(text).ok(), expected, "{text}");
        check("0", Some(0));
        check("65500", Some(65_500));
        check("1KiB", Some(1_024));
        check("8MiB", Some(8 << 20));
        check("2GB", Some(2_000_000_000));
        for wrong in ["", "-1", "1.5GiB", "1gb", "1 GiB", "GiB", "99999999999TiB"] {
            check(wrong, None);
        }
    }

    #[test]
    fn modes() {
        let check = |text, expected: Option<u32>| assert_eq!(mode(text).ok(), expected, "{text}");
        check("0660", Some(0o660));
        check("600", Some(0o600));
        for wrong in ["", "8", "0999", "1777", "rw", "+660"] {
            check(wrong, None);
        }
    }

    #[test]
    fn forward_addresses() {
        let check = |text, expected: Option<&str>| {
            let found = forward_address(text).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("10.0.0.7:8125", Some("10.0.0.7:8125"));
        check("[::1]:8125", Some("[::1]:8125"));
        check("unix:///run/dsd.socket", Some("unix:///run/dsd.socket"));
        for wrong in [
            "localhost:8125",
            "10.0.0.7",
            "10.0.0.7:0",
            "0.0.0.0:8125",
            "unix://dsd.socket",
            "/run/dsd.socket",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn collectors() {
        let check = |text, expected: Option<&str>| {
            assert_eq!(
                collector(text).ok().map(|address| address.to_string()).as_deref(),
                expected,
                "{text}"
            );
        };
        check("localhost:8129", Some("localhost:8129"));
        check("[::1]:8129", Some("[::1]:8129"));
        check("10.0.0.1:1", Some("10.0.0.1:1"));
        for wrong in
            ["", "localhost", ":8129", "a:0", "a:70000", "::1:8129", "[x]:1", "http://a:1", "a b:1"]
        {
            check(wrong, None);
        }
    }
}
