//! Whom an agent's identity may bill, and for what: the catalogue's `[[identity]]` tables.
//!
//! **Owns** patterns and the judgement of a line. **Does not own** the file's grammar (`catalog/read.rs`),
//! or keeping the verdict: the ledger stores it with the batch (`ledger/marks.rs`), so that later patterns
//! change nothing that is posted.
//!
//! An identity may bill what any of the entries that match it allows. One that no entry matches may bill
//! everything or nothing, as the catalogue says. A drainer bills as the agent whose journal it ships, by the
//! name that the ledger knows; where the ledger does not know the journal yet, by its own, `drainer:NAME`. It
//! then bills nothing unless an entry says so, once there are entries: else an agent that never shows its own
//! name would get around them.
//!
//! Limits: [`IDENTITIES_MAX`], [`NAMES_MAX`], [`WILDCARDS_MAX`], [`PATTERN_BYTES_MAX`].

use std::collections::BTreeSet;

use thiserror::Error;
use tidemark_common::batch::LineKey;
use tidemark_common::tls::AgentName;

use crate::usage::Class;

/// A catalogue has at most this many `[[identity]]` tables.
pub const IDENTITIES_MAX: usize = 1_000;
/// One table lists at most this many meters, and as many customers.
pub const NAMES_MAX: usize = 10_000;
/// Of one list, at most this many hold a `*`: each is tried on every line.
pub const WILDCARDS_MAX: usize = 64;
/// A pattern has at most this many bytes, as the names that it is for.
pub const PATTERN_BYTES_MAX: usize = 128;

/// What an identity may do that no entry matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Otherwise {
    #[default]
    Allow,
    Deny,
}

/// All entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    pub otherwise: Otherwise,
    pub identities: Vec<Identity>,
}

/// One entry: who may bill which customers, and for which meters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: Pattern,
    pub meters: Patterns,
    pub customers: Patterns,
}

/// A name in which each `*` stands for any text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

/// What is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PatternError {
    #[error("is empty")]
    Empty,
    #[error("has more than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    #[error("holds control characters")]
    Control,
}

/// Several patterns, those without a `*` one look-up away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    exact: BTreeSet<String>,
    wild: Vec<Pattern>,
}

/// What one identity may bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant<'a> {
    All,
    /// What any of these allows; nothing if there are none.
    Only(Vec<&'a Identity>),
}

impl Grants {
    #[must_use]
    pub fn of(&self, agent: &AgentName) -> Grant<'_> {
        let entries = self.identities.iter();
        let found: Vec<_> = entries.filter(|entry| entry.name.matches(agent.as_str())).collect();
        match self.otherwise {
            Otherwise::Allow
                if found.is_empty() && (self.identities.is_empty() || !agent.is_drainer()) =>
            {
                Grant::All
            }
            Otherwise::Allow | Otherwise::Deny => Grant::Only(found),
        }
    }
}

impl Grant<'_> {
    /// The class under which a line of this identity's is posted.
    #[must_use]
    pub fn class(&self, line: &LineKey) -> Class {
        let allowed = match self {
            Self::All => true,
            Self::Only(entries) => entries.iter().any(|entry| {
                entry.meters.match_any(line.meter.as_str())
                    && entry.customers.match_any(line.customer.as_str())
            }),
        };
        if allowed { Class::Normal } else { Class::Unauthorised }
    }
}

impl Pattern {
    /// # Errors
    /// Says what about `text` is no pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_wild(&self) -> bool {
        self.0.contains('*')
    }

    /// The texts between two `*` are found from the left, each as early as it can be, so that no text is
    /// looked at twice; the last one must stand at the end.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else {
            return self.0 == name;
        };
        let Some(mut name) = name.strip_prefix(head) else {
            return false;
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*').filter(|part| !part.is_empty()) {
            let Some((_, after)) = name.split_once(part) else {
                return false;
            };
            name = after;
        }
        name.ends_with(tail)
    }
}

impl Patterns {
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = Pattern>) -> Self {
        let mut found = Self::default();
        for pattern in all {
            if pattern.is_wild() {
                found.wild.push(pattern);
            } else {
                found.exact.insert(pattern.0);
            }
        }
        found
    }

    /// All of them, those without a `*` first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let wild = self.wild.iter().map(Pattern::as_str);
        self.exact.iter().map(String::as_str).chain(wild)
    }

    #[must_use]
    pub fn match_any(&self, name: &str) -> bool {
        self.exact.contains(name) || self.wild.iter().any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use tidemark_common::batch::Dimensions;
    use tidemark_common::id::{CustomerId, MeterName};
    use tidemark_common::time::Bucket;

    use super::*;

    fn check_pattern(pattern: &str, matching: &[&str], others: &[&str]) {
        let pattern = Pattern::parse(pattern).unwrap();
        for (names, expected) in [(matching, true), (others, false)] {
            for name in names {
                assert_eq!(pattern.matches(name), expected, "{pattern:?} on {name:?}");
            }
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        check_pattern("shop-*", &["shop-1", "shop-"], &["shop", "a-shop-1"]);
        check_pattern("*", &["", "anything"], &[]);
        check_pattern("acme", &["acme"], &["acme2", "ACME", ""]);
        check_pattern("*.calls", &["api.calls", ".calls"], &["calls", "api.calls.x"]);
        check_pattern("a*b*c", &["abc", "a-b-b-c", "abcbc"], &["ac", "acb", "ab", "abcx"]);
        // The head and the tail do not share a letter.
        check_pattern("aba*aba", &["abaaba", "aba-aba"], &["aba", "ababa"]);
        check_pattern("a**z", &["az", "a-z"], &["a"]);
        check_pattern("eu-*", &["eu-ö"], &["us-ö"]);
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        assert_eq!(Pattern::parse(""), Err(PatternError::Empty));
        assert_eq!(Pattern::parse("a\nb"), Err(PatternError::Control));
        assert_eq!(Pattern::parse(&"a".repeat(129)), Err(PatternError::TooLong));
    }

    fn identity(name: &str, meters: &[&str], customers: &[&str]) -> Identity {
        let parse = |text: &&str| Pattern::parse(text).unwrap();
        Identity {
            name: parse(&name),
            meters: Patterns::new(meters.iter().map(parse)),
            customers: Patterns::new(customers.iter().map(parse)),
        }
    }

    fn check(otherwise: Otherwise, agent: &str, meter: &str, customer: &str, expected: Class) {
        let grants = Grants {
            otherwise,
            identities: vec![
                identity("shop-*", &["api.*"], &["acme", "eu-*"]),
                identity("shop-7", &["llm.tokens"], &["globex"]),
            ],
        };
        let line = LineKey {
            meter: MeterName::parse(meter).unwrap(),
            customer: CustomerId::parse(customer).unwrap(),
            dimensions: Dimensions::default(),
            bucket: Bucket(0),
            part: 0,
        };
        let class = grants.of(&AgentName::parse(agent).unwrap()).class(&line);
        assert_eq!(class, expected, "{agent} {meter} {customer}");
    }

    #[test]
    fn an_identity_may_bill_what_any_of_its_entries_allows() {
        use Class::{Normal, Unauthorised};
        for otherwise in [Otherwise::Allow, Otherwise::Deny] {
            check(otherwise, "shop-1", "api.calls", "acme", Normal);
            check(otherwise, "shop-1", "api.calls", "eu-9", Normal);
            check(otherwise, "shop-1", "api.calls", "globex", Unauthorised);
            check(otherwise, "shop-1", "llm.tokens", "acme", Unauthorised);
            check(otherwise, "shop-7", "llm.tokens", "globex", Normal);
            // Each entry allows its own customers for its own meters.
            check(otherwise, "shop-7", "llm.tokens", "acme", Unauthorised);
        }
        check(Otherwise::Allow, "till", "api.calls", "acme", Normal);
        check(Otherwise::Deny, "till", "api.calls", "acme", Unauthorised);
    }

    #[test]
    fn a_drainer_that_no_entry_names_bills_nothing_of_its_own() {
        let pattern = |text| Pattern::parse(text).unwrap();
        let entry = |name| Identity {
            name: pattern(name),
            meters: Patterns::new([pattern("*")]),
            customers: Patterns::new([pattern("*")]),
        };
        let all = |identities| Grants { otherwise: Otherwise::Allow, identities };
        let drainer = AgentName::parse_identity("drainer:node-7").unwrap();
        let agent = AgentName::parse("other").unwrap();
        assert_eq!(all(Vec::new()).of(&drainer), Grant::All);
        let some = all(vec![entry("shop-*")]);
        assert_eq!((some.of(&drainer), some.of(&agent)), (Grant::Only(Vec::new()), Grant::All));
        let named = all(vec![entry("drainer:*")]);
        assert_eq!(named.of(&drainer), Grant::Only(vec![&named.identities[0]]));
    }
}
