//! Currencies of ISO 4217 and their minor units.

use std::fmt;

use thiserror::Error;

/// Active codes of ISO 4217 whose minor unit is not a hundredth, with their decimal places.
const OTHER_MINOR_UNITS: [(&str, u32); 26] = [
    ("BHD", 3),
    ("BIF", 0),
    ("CLF", 4),
    ("CLP", 0),
    ("DJF", 0),
    ("GNF", 0),
    ("IQD", 3),
    ("ISK", 0),
    ("JOD", 3),
    ("JPY", 0),
    ("KMF", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("LYD", 3),
    ("OMR", 3),
    ("PYG", 0),
    ("RWF", 0),
    ("TND", 3),
    ("UGX", 0),
    ("UYI", 0),
    ("UYW", 4),
    ("VND", 0),
    ("VUV", 0),
    ("XAF", 0),
    ("XOF", 0),
    ("XPF", 0),
];

/// Active codes of ISO 4217 with hundredths, in groups of three letters.
const HUNDREDTHS: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN \
    BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP \
    GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA \
    MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON \
    RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH \
    USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG";

/// A currency of ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: [u8; 3],
    pub(super) places: u32,
}

/// Why a text is no currency.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code:?} is not an active currency code of ISO 4217")]
pub struct UnknownCurrency {
    pub code: String,
}

impl Currency {
    /// Reads a code in capital letters (`EUR`).
    ///
    /// # Errors
    /// A code that ISO 4217 does not list as active.
    pub fn parse(text: &str) -> Result<Self, UnknownCurrency> {
        let unknown = || UnknownCurrency { code: text.to_owned() };
        let code: [u8; 3] = text.as_bytes().try_into().map_err(|_| unknown())?;
        let places = match OTHER_MINOR_UNITS.iter().find(|(other, _)| *other == text) {
            Some((_, places)) => *places,
            None if HUNDREDTHS.split_ascii_whitespace().any(|other| other == text) => 2,
            None => return Err(unknown()),
        };
        Ok(Self { code, places })
    }

    /// The three letters.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.code).expect("a code was parsed from ASCII letters")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
