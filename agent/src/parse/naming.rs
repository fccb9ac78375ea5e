//! Who is billed by which meter, from the names that clients send.
//!
//! **Owns** the names of the special tags, name patterns for clients without tags, the default
//! customer, and which metrics are metered at all. **Does not own** any syntax.
//!
//! A metric's customer is, in this order:
//! 1. its customer tag. The whole name is then the meter, and no pattern is looked at: a pattern for
//!    clients without tags matches nearly every name, and must not cut those of clients with tags. A
//!    tag that is there but empty or invalid rejects the event, it does not fall through.
//! 2. what the first matching name pattern says. `{customer}` stands for one or more characters
//!    without a dot, `{meter}` for the rest; the text around them is literal.
//! 3. the default customer, with the whole name as the meter.
//!
//! Metered is what some pattern of `metered` matches and no pattern with a leading `!` does; a list of
//! exclusions only means all others. `*` stands for any characters, dots too. It is judged on the
//! name as sent, and only for DogStatsD: JSON lines and CloudEvents are sent here on purpose.

use serde::Deserialize;
use thiserror::Error;
use tidemark_common::id::{CustomerId, MeterName, NameError};

use crate::event::RejectReason;

const CUSTOMER: &str = "{customer}";
const METER: &str = "{meter}";
/// Characters that end a name or a tag in DogStatsD, and so never stand in one.
const DELIMITERS: [char; 6] = [':', '|', ',', '#', '\n', '\r'];

/// The part of the configuration that names are read by.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamingOptions {
    /// The DogStatsD tag that names the customer.
    pub customer_tag: String,
    /// The DogStatsD tag that holds the idempotency id.
    pub id_tag: String,
    /// The DogStatsD tag that names the producer.
    pub source_tag: String,
    /// The DogStatsD tag that holds the producer's own counter.
    pub source_count_tag: String,
    /// Who is billed for events that name nobody.
    pub customer_default: Option<String>,
    /// Patterns with `{customer}` and `{meter}`, for clients without tags; the first match counts.
    pub name_patterns: Vec<String>,
    /// Which metrics are usage: names with `*`, and with a leading `!` for those that are not.
    pub metered: Vec<String>,
}

impl Default for NamingOptions {
    fn default() -> Self {
        Self {
            customer_tag: "customer".to_owned(),
            id_tag: "id".to_owned(),
            source_tag: "source".to_owned(),
            source_count_tag: "source_seq".to_owned(),
            customer_default: None,
            name_patterns: Vec::new(),
            metered: vec!["*".to_owned(), "!datadog.*".to_owned()],
        }
    }
}

/// What in [`NamingOptions`] cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NamingError {
    #[error("failed to use {key} = {tag:?}: {problem}")]
    Tag { key: &'static str, tag: String, problem: &'static str },
    #[error("failed to use customer_default = {customer:?}: it {error}")]
    CustomerDefault { customer: String, error: NameError },
    #[error("failed to read the name pattern {pattern:?}: {problem}")]
    NamePattern { pattern: String, problem: &'static str },
    #[error("failed to read the pattern {pattern:?}: {problem}")]
    Metered { pattern: String, problem: &'static str },
    #[error("failed to read metered: the list is empty; [\"*\"] meters every name")]
    MeteredEmpty,
}

/// [`NamingOptions`], checked and ready for use.
#[derive(Debug, Clone)]
pub struct Naming {
    pub(super) customer_tag: String,
    pub(super) id_tag: String,
    pub(super) source_tag: String,
    pub(super) source_count_tag: String,
    customer_default: Option<CustomerId>,
    name_patterns: Vec<NamePattern>,
    metered: Patterns,
}

impl Naming {
    /// # Errors
    /// Names the option that cannot be used, and why.
    pub fn new(options: &NamingOptions) -> Result<Self, NamingError> {
        check_tags(options)?;
        let customer_default = match &options.customer_default {
            Some(customer) => Some(CustomerId::parse(customer).map_err(|error| {
                NamingError::CustomerDefault { customer: customer.clone(), error }
            })?),
            None => None,
        };
        Ok(Self {
            customer_tag: options.customer_tag.clone(),
            id_tag: options.id_tag.clone(),
            source_tag: options.source_tag.clone(),
            source_count_tag: options.source_count_tag.clone(),
            customer_default,
            name_patterns: options
                .name_patterns
                .iter()
                .map(|text| NamePattern::parse(text))
                .collect::<Result<_, _>>()?,
            metered: metered(&options.metered)?,
        })
    }

    /// Whether a metric of this name, as sent, is usage.
    #[must_use]
    pub fn metered(&self, name: &str) -> bool {
        self.metered.matches(name)
    }

    /// The meter and the customer of a metric called `name` with this value of its customer tag.
    ///
    /// # Errors
    /// [`RejectReason::BadMeter`], [`RejectReason::BadCustomer`] or [`RejectReason::NoCustomer`].
    pub fn resolve(
        &self,
        name: &str,
        customer: Option<&str>,
    ) -> Result<(MeterName, CustomerId), RejectReason> {
        if customer.is_none()
            && let Some((customer, meter)) =
                self.name_patterns.iter().find_map(|pattern| pattern.split(name))
        {
            return Ok((parse_meter(meter)?, parse_customer(customer)?));
        }
        Ok((parse_meter(name)?, self.customer(customer)?))
    }

    /// The customer that an event names, or the default one.
    pub(super) fn customer(&self, customer: Option<&str>) -> Result<CustomerId, RejectReason> {
        match (customer, &self.customer_default) {
            (Some(customer), _) => parse_customer(customer),
            (None, Some(customer)) => Ok(customer.clone()),
            (None, None) => Err(RejectReason::NoCustomer),
        }
    }
}

impl Default for Naming {
    fn default() -> Self {
        Self::new(&NamingOptions::default()).expect("the defaults are valid")
    }
}

pub(super) fn parse_meter(text: &str) -> Result<MeterName, RejectReason> {
    MeterName::parse(text).map_err(|_| RejectReason::BadMeter)
}

fn parse_customer(text: &str) -> Result<CustomerId, RejectReason> {
    CustomerId::parse(text).map_err(|_| RejectReason::BadCustomer)
}

fn check_tags(options: &NamingOptions) -> Result<(), NamingError> {
    let tags = [
        ("customer_tag", &options.customer_tag),
        ("id_tag", &options.id_tag),
        ("source_tag", &options.source_tag),
        ("source_count_tag", &options.source_count_tag),
    ];
    for (index, (key, tag)) in tags.into_iter().enumerate() {
        let problem = if tag.is_empty() {
            "a tag's name cannot be empty"
        } else if tag.contains(DELIMITERS) {
            "a tag's name cannot hold any of : | , # or a line's end"
        } else if tags.into_iter().take(index).any(|(_, other)| other == tag) {
            "another of the four tags has this name already"
        } else {
            continue;
        };
        return Err(NamingError::Tag { key, tag: tag.clone(), problem });
    }
    Ok(())
}

/// `before{customer}between{meter}after`, or the two the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NamePattern {
    before: String,
    between: String,
    after: String,
    first: First,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Customer,
    Meter,
}

impl NamePattern {
    fn parse(pattern: &str) -> Result<Self, NamingError> {
        let fault = |problem| NamingError::NamePattern { pattern: pattern.to_owned(), problem };
        let (Some(customer), Some(meter)) = (pattern.find(CUSTOMER), pattern.find(METER)) else {
            return Err(fault(
                "it needs both {customer} and {meter}; customer_default serves all names alike",
            ));
        };
        let first = if customer < meter { First::Customer } else { First::Meter };
        let (opening, closing) = match first {
            First::Customer => (CUSTOMER, METER),
            First::Meter => (METER, CUSTOMER),
        };
        let parts = pattern.split_once(opening).and_then(|(before, rest)| {
            rest.split_once(closing).map(|(between, after)| (before, between, after))
        });
        let (before, between, after) =
            parts.expect("both placeholders stand in the pattern, in this order");
        if [before, between, after].iter().any(|literal| literal.contains(['{', '}'])) {
            return Err(fault(
                "{customer} and {meter} may each stand in it once, and no other braces",
            ));
        }
        if [before, between, after].iter().any(|literal| literal.contains(DELIMITERS)) {
            return Err(fault("no name holds any of : | , # or a line's end"));
        }
        if between.is_empty() {
            return Err(fault(
                "something must stand between {customer} and {meter}, such as a dot",
            ));
        }
        Ok(Self {
            before: before.to_owned(),
            between: between.to_owned(),
            after: after.to_owned(),
            first,
        })
    }

    /// The customer and the meter in `name`; the customer is as short as `between` allows.
    fn split<'a>(&self, name: &'a str) -> Option<(&'a str, &'a str)> {
        let inner = name.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        let (customer, meter) = match self.first {
            First::Customer => inner.split_once(self.between.as_str())?,
            First::Meter => {
                let (meter, customer) = inner.rsplit_once(self.between.as_str())?;
                (customer, meter)
            }
        };
        let matches = !customer.is_empty() && !meter.is_empty() && !customer.contains('.');
        matches.then_some((customer, meter))
    }
}

/// Which names a list of globs matches: some without a leading `!`, and none with it.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Patterns {
    /// An empty list matches nothing; a list of exclusions only, all others.
    ///
    /// # Errors
    /// Names the pattern that cannot be used, and why.
    pub fn parse(patterns: &[String]) -> Result<Self, NamingError> {
        let mut parsed = Self::default();
        for pattern in patterns {
            let (list, glob) = match pattern.strip_prefix('!') {
                Some(glob) => (&mut parsed.exclude, glob),
                None => (&mut parsed.include, pattern.as_str()),
            };
            let fault = |problem| NamingError::Metered { pattern: pattern.clone(), problem };
            if glob.is_empty() {
                return Err(fault("it names nothing; * stands for every name"));
            }
            if glob.contains(['?', '[', ']', '{', '}', '!', '\\']) {
                return Err(fault("only * is special, and ! only at the beginning"));
            }
            if glob.contains(DELIMITERS) || glob.contains(char::is_whitespace) {
                return Err(fault("no name holds a space or any of : | , #"));
            }
            list.push(glob.to_owned());
        }
        if parsed.include.is_empty() && !parsed.exclude.is_empty() {
            parsed.include.push("*".to_owned());
        }
        Ok(parsed)
    }

    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let any = |globs: &[String]| globs.iter().any(|glob| glob_matches(glob, name));
        any(&self.include) && !any(&self.exclude)
    }
}

fn metered(patterns: &[String]) -> Result<Patterns, NamingError> {
    if patterns.is_empty() {
        return Err(NamingError::MeteredEmpty);
    }
    Patterns::parse(patterns)
}

/// Whether `name` is `glob` with each `*` replaced by something, or by nothing.
fn glob_matches(glob: &str, name: &str) -> bool {
    let Some((head, rest)) = glob.split_once('*') else {
        return glob == name;
    };
    let Some(mut name) = name.strip_prefix(head) else {
        return false;
    };
    // Between two stars the leftmost match is as good as any; the last piece is bound to the end.
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some((_, after)) = name.split_once(piece) else {
            return false;
        };
        name = after;
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests;
