//! Typed reads: each takes a key of the reference and gives its value or notes a problem.
//!
//! A problem leaves a placeholder behind, so that reading goes on and all problems come out at once;
//! [`Reader::finish`] then withholds the configuration.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reference::{self, Key, Kind};
use super::source::{self, Found, Located, Place, Value};
use super::value::{self, Unfit};
use super::{CollectorAddress, Problem, Secret};

pub(super) struct Reader<'a> {
    found: Found,
    file: &'a str,
    folder: &'a Path,
    problems: Vec<Problem>,
    read: BTreeSet<&'static str>,
    /// Keys with a problem already; a second one would only repeat the first.
    failed: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        found: Found,
        file: &'a str,
        folder: &'a Path,
        problems: Vec<Problem>,
    ) -> Self {
        Self { found, file, folder, problems, read: BTreeSet::new(), failed: BTreeSet::new() }
    }

    /// All problems.
    ///
    /// # Panics
    /// If a key of the reference was never read: it would be documented and do nothing.
    pub(super) fn finish(self) -> Vec<Problem> {
        for key in reference::KEYS {
            assert!(self.read.contains(key.path), "the key {} is never read", key.path);
        }
        self.problems
    }

    pub(super) fn duration(&mut self, path: &str) -> Duration {
        let read = |key: &Key, given: &Value| match given {
            Value::Integer(number) => Err(value::duration_without_unit(*number)),
            Value::Text(text) => value::duration(text),
            other @ (Value::List(_) | Value::Table(_) | Value::Other(_)) => {
                Err(wrong_kind(key, other))
            }
        };
        self.take(path, Kind::Duration, read).unwrap_or_default()
    }

    pub(super) fn bytes(&mut self, path: &str) -> u64 {
        self.whole(path, Kind::Bytes, value::bytes)
    }

    pub(super) fn count(&mut self, path: &str) -> u64 {
        self.whole(path, Kind::Count, value::count)
    }

    fn whole(&mut self, path: &str, kind: Kind, parse: fn(&str) -> Result<u64, Unfit>) -> u64 {
        let read = |key: &Key, given: &Value| match given {
            Value::Integer(number) => parse(&number.to_string()),
            Value::Text(text) => parse(text),
            other @ (Value::List(_) | Value::Table(_) | Value::Other(_)) => {
                Err(wrong_kind(key, other))
            }
        };
        self.take(path, kind, read).unwrap_or_default()
    }

    pub(super) fn mode(&mut self, path: &str) -> u32 {
        self.parsed(path, Kind::Mode, value::mode).unwrap_or_default()
    }

    pub(super) fn address(&mut self, path: &str) -> SocketAddr {
        self.parsed(path, Kind::Address, value::address)
            .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// The place in `words`, which are the key's own, of the one given.
    pub(super) fn choice(&mut self, path: &str) -> usize {
        let key = known(path);
        let Kind::Choice(words) = key.kind else { panic!("{path} is not a choice") };
        let position = |text: &str| {
            words.iter().position(|word| *word == text).ok_or_else(|| Unfit {
                message: format!("{text:?} is none of the choices"),
                remedy: format!("write one of {}", quoted(words)),
            })
        };
        self.parsed(path, key.kind, position).unwrap_or_default()
    }

    pub(super) fn text(&mut self, path: &str) -> String {
        self.parsed(path, Kind::Text, |text| Ok(text.to_owned())).unwrap_or_default()
    }

    /// A text that may be empty, for none, and what `parse` makes of it.
    pub(super) fn optional<T>(
        &mut self,
        path: &str,
        parse: impl Fn(&str) -> Result<T, Unfit>,
    ) -> Option<T> {
        self.parsed(path, Kind::Text, |text| {
            if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
        })
        .flatten()
    }

    pub(super) fn secret(&mut self, path: &str) -> Option<Secret> {
        let text = self.parsed(path, Kind::Secret, |text| Ok(text.to_owned()))?;
        (!text.is_empty()).then_some(Secret(text))
    }

    pub(super) fn path(&mut self, path: &str) -> PathBuf {
        let nonempty = |text: &str| {
            if text.is_empty() {
                return Err(Unfit {
                    message: "is empty".to_owned(),
                    remedy: "write the path of a file".to_owned(),
                });
            }
            Ok(PathBuf::from(text))
        };
        let given = self.parsed(path, Kind::Path, nonempty).unwrap_or_default();
        self.folder.join(given)
    }

    pub(super) fn optional_path(&mut self, path: &str) -> Option<PathBuf> {
        let text = self.parsed(path, Kind::OptionalPath, value::path)?;
        (!text.is_empty()).then(|| self.folder.join(text))
    }

    pub(super) fn texts(&mut self, path: &str) -> Vec<String> {
        self.list(path, Kind::Texts, |text| Ok(text.to_owned()))
    }

    pub(super) fn uids(&mut self, path: &str) -> Vec<u32> {
        self.list(path, Kind::Uids, value::uid)
    }

    pub(super) fn addresses(&mut self, path: &str) -> Vec<SocketAddr> {
        self.list(path, Kind::Addresses, value::address)
    }

    pub(super) fn collectors(&mut self, path: &str) -> Vec<CollectorAddress> {
        self.list(path, Kind::Collectors, value::collector)
    }

    /// The tables of a seed, each with its place.
    pub(super) fn tables(&mut self, path: &str) -> Vec<(Place, Vec<(String, Located)>)> {
        let (key, entries) = self.entries(path, Kind::Seed);
        let mut tables = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry.value {
                Value::Table(fields) => tables.push((entry.place, fields)),
                other => self.note(key, &entry.place, wrong_kind(key, &other)),
            }
        }
        tables
    }

    /// True while nothing was wrong with a key.
    pub(super) fn is_sound(&self, path: &str) -> bool {
        !self.failed.contains(path)
    }

    /// Notes a problem with a key, at the place where its value was given.
    pub(super) fn problem(
        &mut self,
        path: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.is_sound(path) {
            let key = known(path);
            let place =
                self.found.get(key.path).map_or(Place::Default, |located| located.place.clone());
            self.note(key, &place, Unfit { message: message.into(), remedy: remedy.into() });
        }
    }

    /// Notes a problem inside a key's value.
    pub(super) fn problem_at(&mut self, place: &Place, path: &str, message: String, remedy: &str) {
        self.note(known(path), place, Unfit { message, remedy: remedy.to_owned() });
    }

    fn parsed<T>(
        &mut self,
        path: &str,
        kind: Kind,
        parse: impl Fn(&str) -> Result<T, Unfit>,
    ) -> Option<T> {
        self.take(path, kind, |key, given| match given {
            Value::Text(text) => parse(text),
            other @ (Value::Integer(_) | Value::List(_) | Value::Table(_) | Value::Other(_)) => {
                Err(wrong_kind(key, other))
            }
        })
    }

    fn list<T>(
        &mut self,
        path: &str,
        kind: Kind,
        parse: impl Fn(&str) -> Result<T, Unfit>,
    ) -> Vec<T> {
        let (key, entries) = self.entries(path, kind);
        let mut values = Vec::with_capacity(entries.len());
        for entry in entries {
            let read = match &entry.value {
                Value::Text(text) => parse(text),
                Value::Integer(number) if kind == Kind::Uids => parse(&number.to_string()),
                other
                @ (Value::Integer(_) | Value::List(_) | Value::Table(_) | Value::Other(_)) => {
                    Err(wrong_kind(key, other))
                }
            };
            match read {
                Ok(value) => values.push(value),
                Err(unfit) => self.note(key, &entry.place, unfit),
            }
        }
        values
    }

    fn entries(&mut self, path: &str, kind: Kind) -> (&'static Key, Vec<Located>) {
        let read = |key: &Key, given: &Value| match given {
            Value::List(entries) => Ok(entries.clone()),
            other @ (Value::Text(_) | Value::Integer(_) | Value::Table(_) | Value::Other(_)) => {
                Err(wrong_kind(key, other))
            }
        };
        (known(path), self.take(path, kind, read).unwrap_or_default())
    }

    /// Reads the given value, else the default; without either, or if it is unfit, notes a problem.
    fn take<T>(
        &mut self,
        path: &str,
        kind: Kind,
        read: impl Fn(&Key, &Value) -> Result<T, Unfit>,
    ) -> Option<T> {
        let key = known(path);
        assert!(key.kind == kind, "{path} is read as {kind:?} and documented as {:?}", key.kind);
        self.read.insert(key.path);
        let Some(located) = self.found.get(key.path).cloned().or_else(|| source::default(key))
        else {
            let remedy = format!(
                "add `{} = ...` to [{}], or set {}",
                key.name(),
                key.section(),
                key.variable()
            );
            self.note(key, &Place::Default, Unfit { message: "is missing".to_owned(), remedy });
            return None;
        };
        match read(key, &located.value) {
            Ok(value) => Some(value),
            Err(unfit) => {
                self.note(key, &located.place, unfit);
                None
            }
        }
    }

    fn note(&mut self, key: &Key, place: &Place, unfit: Unfit) {
        self.failed.insert(key.path);
        let place = match place {
            // Nobody gave the value: the file is where to give it.
            Place::Default => self.file.to_owned(),
            Place::Line { .. } | Place::Variable(_) | Place::File(_) => place.to_string(),
        };
        let message = format!("`{}`: {}", key.path, unfit.message);
        self.problems.push(Problem { place, message, remedy: unfit.remedy });
    }
}

fn known(path: &str) -> &'static Key {
    reference::find(path).unwrap_or_else(|| panic!("the key {path} is not in the reference"))
}

fn wrong_kind(key: &Key, found: &Value) -> Unfit {
    let remedy = match key.kind {
        Kind::Text | Kind::Secret => "write a text, in quotes".to_owned(),
        Kind::Path | Kind::OptionalPath => "write a path, in quotes".to_owned(),
        Kind::Uids => "write a list of users' numbers: [1000, 1001]".to_owned(),
        Kind::Texts => "write a list of texts: [\"a\", \"b\"]".to_owned(),
        Kind::Address => "write \"127.0.0.1:8128\", in quotes".to_owned(),
        Kind::Addresses => "write a list of addresses: [\"127.0.0.1:8125\"]".to_owned(),
        Kind::Collectors => {
            "write a list of addresses: [\"collector.example.com:8129\"]".to_owned()
        }
        Kind::Duration => "write a duration with its unit, in quotes: \"10s\"".to_owned(),
        Kind::Bytes => "write a size with its unit, in quotes: \"8MiB\"".to_owned(),
        Kind::Count => "write a whole number".to_owned(),
        Kind::Mode => "write permission bits in octal, in quotes: \"0660\"".to_owned(),
        Kind::Choice(words) => format!("write one of {}", quoted(words)),
        Kind::Seed => "write [[rules.seed]] tables of `meter` and `dimensions`".to_owned(),
    };
    Unfit { message: format!("is {}", found.words()), remedy }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}
