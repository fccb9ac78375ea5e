//! Who should report: a list of instances, from a file or from a service registry over HTTP.
//!
//! ```text
//! file   one name a line, `#` begins a comment; or JSON as below
//! JSON   ["shop-1", {"name": "shop-2", "since": "2026-11-01T00:00:00Z"}]; or {"instances": [..]}
//! ```
//! **Owns** the list, and naming who of it never registered. **Does not own** what an identity may bill.
//!
//! A name is an agent's identity, as in its certificate. One that ever registered is judged by its streams; one that
//! never did is as a stream that has been silent since `since`, or for all the time looked at. A list that cannot be read
//! keeps everybody back: nobody knows who is missing.
//!
//! Limits: [`INSTANCES_MAX`] names, [`LIST_BYTES_MAX`], within [`ANSWER_MAX`].

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

use super::{Certainty, Finding, Kind, Scope, Span};
use crate::ledger::Snapshot;
use crate::ledger::store::StoreError;

/// A list has at most so many names.
const INSTANCES_MAX: usize = 200_000;
/// And at most so many bytes.
const LIST_BYTES_MAX: u64 = 32 << 20;
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Where the list is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ExpectedSource {
    /// There is none: whoever registers is known.
    #[default]
    Nowhere,
    File(PathBuf),
    Url(String),
}

/// One that should report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub name: AgentName,
    pub since: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ListRead {
    Bare(Vec<InstanceRead>),
    Within { instances: Vec<InstanceRead> },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum InstanceRead {
    Name(String),
    Full {
        name: String,
        #[serde(default)]
        since: Option<String>,
    },
}

impl ExpectedSource {
    /// The list as it is now; empty if there is none. Blocks.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub fn read(&self) -> Result<Vec<Instance>, String> {
        let (place, bytes) = match self {
            Self::Nowhere => return Ok(Vec::new()),
            Self::File(path) => (path.display().to_string(), read_file(path)),
            Self::Url(url) => (url.clone(), fetch(url)),
        };
        bytes.and_then(|bytes| parse(&bytes)).map_err(|reason| format!("{place}: {reason}"))
    }
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let (mut bytes, limit) = (Vec::new(), LIST_BYTES_MAX.saturating_add(1));
    file.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= LIST_BYTES_MAX => Ok(bytes),
        _ => Err(format!("it has more than {LIST_BYTES_MAX} bytes")),
    }
}

fn fetch(url: &str) -> Result<Vec<u8>, String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER_MAX)).build();
    let mut answer =
        ureq::Agent::from(config).get(url).call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(LIST_BYTES_MAX).read_to_vec();
    body.map_err(|error| error.to_string())
}

/// Reads a list's bytes.
///
/// # Errors
/// What is wrong with them.
fn parse(bytes: &[u8]) -> Result<Vec<Instance>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let read = if text.trim_start().starts_with(['[', '{']) {
        match serde_json::from_str(text).map_err(|error| format!("it is no such JSON: {error}"))? {
            ListRead::Bare(all) | ListRead::Within { instances: all } => all,
        }
    } else {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let names = lines.filter(|line| !line.is_empty());
        names.map(|name| InstanceRead::Name(name.to_owned())).collect()
    };
    if read.len() > INSTANCES_MAX {
        return Err(format!("it has more than {INSTANCES_MAX} names"));
    }
    read.into_iter().map(instance).collect()
}

fn instance(read: InstanceRead) -> Result<Instance, String> {
    let (name, since) = match read {
        InstanceRead::Name(name) => (name, None),
        InstanceRead::Full { name, since } => (name, since),
    };
    let parsed = AgentName::parse(&name).map_err(|error| format!("the name {name:?} {error}"))?;
    let since = since.map(|text| {
        let at = text.parse::<jiff::Timestamp>();
        at.map(|at| Timestamp(at.as_millisecond()))
            .map_err(|_| format!("`since` of {name:?} is {text:?}: write RFC 3339"))
    });
    Ok(Instance { name: parsed, since: since.transpose()? })
}

/// Who of the list never registered; or that it cannot be read.
pub(super) fn findings(
    list: &Result<Vec<Instance>, String>,
    snapshot: &Snapshot,
    span: Span,
) -> Result<Vec<Finding>, StoreError> {
    let instances = match list {
        Ok(instances) => instances,
        Err(reason) => return Ok(vec![unreadable(reason, span)]),
    };
    let mut absent = Vec::new();
    for instance in instances {
        if !snapshot.has_agent(&instance.name)? {
            absent.push(instance);
        }
    }
    let found = absent.into_iter().map(|instance| {
        let name = instance.name.as_str();
        let from = instance.since.unwrap_or(span.from).max(span.from);
        Finding {
            kind: Kind::ExpectedMissing,
            id: format!("expected/{name}"),
            told: format!("the instance {name:?} is expected and never registered"),
            remedy: "start its agent, or take it off the list if it is not to report".to_owned(),
            events: 0,
            certainty: Certainty::AtLeast,
            quantity: None,
            money: Vec::new(),
            streams: Vec::new(),
            meter: None,
            scope: Scope::Billable(instance.name.clone()),
            span: Span { from, to: span.to },
            since: from,
            cover: None,
        }
    });
    Ok(found.filter(|finding| finding.span.overlaps(span)).collect())
}

fn unreadable(reason: &str, span: Span) -> Finding {
    Finding {
        kind: Kind::ExpectedUnreadable,
        id: "expected_list".to_owned(),
        told: format!("the list of expected instances cannot be read: {reason}"),
        remedy: "mend the file or the service that [reconcile] in collector.toml names".to_owned(),
        events: 0,
        certainty: Certainty::AtLeast,
        quantity: None,
        money: Vec::new(),
        streams: Vec::new(),
        meter: None,
        scope: Scope::Global,
        span,
        since: span.from,
        cover: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let shown = parse(text.as_bytes()).map(|list| {
            let shown = list.iter().map(|one| match one.since {
                Some(since) => format!("{}@{}", one.name, since.0),
                None => one.name.to_string(),
            });
            shown.collect::<Vec<_>>().join(" ")
        });
        match (shown, expected) {
            (Ok(shown), Ok(expected)) => assert_eq!(shown, expected, "{text}"),
            (Err(shown), Err(expected)) => assert!(shown.contains(expected), "{shown}"),
            (shown, expected) => panic!("{text}: {shown:?}, not {expected:?}"),
        }
    }

    #[test]
    fn lists_are_names_or_json() {
        check("shop-1\n# none\n\nshop-2 # the second\n", Ok("shop-1 shop-2"));
        check(r#"["shop-1", {"name": "shop-2"}]"#, Ok("shop-1 shop-2"));
        check(
            r#"{"instances": [{"name": "a", "since": "1970-01-01T00:00:01Z", "zone": "x"}]}"#,
            Ok("a@1000"),
        );
        check("", Ok(""));
        check(r#"{"instances": 7}"#, Err("no such JSON"));
        check("shop 1", Err("shop 1"));
        check(r#"[{"name": "a", "since": "yesterday"}]"#, Err("write RFC 3339"));
    }
}
