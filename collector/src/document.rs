//! A TOML text read key by key, with every problem collected and placed on its line.
//!
//! **Owns** turning spans into lines, the wording of shape errors, and finding keys that nobody
//! asked for. **Does not own** what the keys mean: `catalog` and `config` do.
//!
//! Pure; never panics on any text. Limits: a text of [`TEXT_BYTES_MAX`], [`PROBLEMS_MAX`] problems.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A document has at most this many bytes.
pub const TEXT_BYTES_MAX: usize = 16 << 20;
/// At most this many problems are reported at once.
pub const PROBLEMS_MAX: usize = 100;

/// One thing that is wrong in a file, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 where no line is to blame.
    pub line: usize,
    pub message: String,
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}; {}", self.message, self.remedy)
    }
}

/// A value and the bytes that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// What has been found wrong so far with one text.
#[derive(Debug)]
pub struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Problem>,
}

/// Reads `text`'s outermost table.
///
/// # Errors
/// Every place at which the text is not TOML.
pub fn parse<'a>(text: &'a str, file: &'a str) -> Result<(Table<'a>, Problems<'a>), Vec<Problem>> {
    let mut problems = Problems { file, text, found: Vec::new() };
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the file has {} bytes", text.len());
        problems.report(0..0, message, format!("keep it below {TEXT_BYTES_MAX} bytes"));
        return Err(problems.into_found());
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        problems.report(error.span().unwrap_or(0..0), error.message(), "write it as TOML 1.0 asks");
    }
    if !problems.found.is_empty() {
        return Err(problems.into_found());
    }
    let span = table.span();
    Ok((
        Table { entries: table.into_inner(), span, path: String::new(), asked: BTreeSet::new() },
        problems,
    ))
}

impl Problems<'_> {
    pub fn report(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let line = self.line_of(span.start);
        self.found.push(Problem {
            file: self.file.to_owned(),
            line,
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    /// The name of the file that is read.
    #[must_use]
    pub fn file(&self) -> &str {
        self.file
    }

    /// The line, from 1, that holds the byte at `offset`.
    #[must_use]
    pub fn line_of(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them, in the order of the file's lines, none twice.
    #[must_use]
    pub fn into_found(self) -> Vec<Problem> {
        let mut found = self.found;
        found.sort_by(|left, right| {
            left.line.cmp(&right.line).then_with(|| left.message.cmp(&right.message))
        });
        found.dedup();
        found.truncate(PROBLEMS_MAX);
        found
    }
}

/// A table of the document, which remembers the keys that were asked for.
#[derive(Debug)]
pub struct Table<'a> {
    entries: DeTable<'a>,
    pub span: Range<usize>,
    /// How people call it: `plan.price`, or empty for the outermost.
    path: String,
    asked: BTreeSet<&'static str>,
}

impl<'a> Table<'a> {
    /// The names of this table's keys, for tables whose keys are data.
    pub fn names(&self) -> Vec<Located<String>> {
        self.entries
            .iter()
            .map(|(key, _)| Located { value: key.get_ref().to_string(), span: key.span() })
            .collect()
    }

    /// Whether the key is there.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// A string.
    pub fn text(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Located<String>> {
        let value = self.take(key)?;
        self.text_of(key, value, problems)
    }

    /// A string under a key that is data.
    pub fn text_named(
        &mut self,
        key: &str,
        problems: &mut Problems<'_>,
    ) -> Option<Located<String>> {
        let value = self.entries.remove(key)?;
        self.text_of(key, value, problems)
    }

    /// A string that must be there.
    pub fn required_text(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Problems<'_>,
    ) -> Option<Located<String>> {
        if !self.entries.contains_key(key) {
            self.asked.insert(key);
            let message = format!("{} has no `{key}`", self.name());
            problems.report(self.span.clone(), message, format!("add {key} = {example:?}"));
            return None;
        }
        self.text(key, problems)
    }

    /// A string, integer or boolean as text, for settings that are read further by their own rules.
    pub fn scalar(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Located<String>> {
        let value = self.take(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::String(text) => Some(Located { value: text.into_owned(), span }),
            DeValue::Integer(integer) => {
                Some(Located { value: integer.to_string().replace('_', ""), span })
            }
            DeValue::Boolean(yes) => Some(Located { value: yes.to_string(), span }),
            other @ (DeValue::Float(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_)) => {
                self.wrong_shape(key, span, &other, "a string, an integer or a boolean", problems);
                None
            }
        }
    }

    /// True or false; absent is false.
    pub fn flag(&mut self, key: &'static str, problems: &mut Problems<'_>) -> bool {
        let Some(value) = self.take(key) else { return false };
        let span = value.span();
        match value.into_inner() {
            DeValue::Boolean(yes) => yes,
            other => {
                self.wrong_shape(key, span, &other, "true or false", problems);
                false
            }
        }
    }

    /// A list of strings; absent is empty.
    pub fn texts(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Vec<Located<String>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(items) => {
                items.into_iter().filter_map(|item| self.text_of(key, item, problems)).collect()
            }
            other => {
                self.wrong_shape(key, span, &other, "a list of strings", problems);
                Vec::new()
            }
        }
    }

    /// A table (`[key]`).
    pub fn table(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<Table<'a>> {
        let value = self.take(key)?;
        self.table_of(key, value, &format!("a table, [{}]", self.joined(key)), problems)
    }

    /// A list of tables (`[[key]]`); absent is empty.
    pub fn tables(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Vec<Table<'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let span = value.span();
        let expected = format!("a list of tables, [[{}]]", self.joined(key));
        match value.into_inner() {
            DeValue::Array(items) => items
                .into_iter()
                .filter_map(|item| self.table_of(key, item, &expected, problems))
                .collect(),
            other => {
                self.wrong_shape(key, span, &other, &expected, problems);
                Vec::new()
            }
        }
    }

    /// Reports each key that nobody asked for, with the closest one that somebody did.
    pub fn finish(self, problems: &mut Problems<'_>) {
        for (key, _) in self.entries.iter() {
            let message = format!("{} has no key `{}`", self.name(), key.get_ref());
            let remedy = match closest(key.get_ref(), self.asked.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "it knows {}",
                    self.asked.iter().copied().collect::<Vec<_>>().join(", ")
                ),
            };
            problems.report(key.span(), message, remedy);
        }
    }

    fn name(&self) -> String {
        if self.path.is_empty() { "the file".to_owned() } else { format!("[{}]", self.path) }
    }

    fn joined(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'a>>> {
        self.asked.insert(key);
        self.entries.remove(key)
    }

    fn text_of(
        &self,
        key: &str,
        value: Spanned<DeValue<'a>>,
        problems: &mut Problems<'_>,
    ) -> Option<Located<String>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::String(text) => Some(Located { value: text.into_owned(), span }),
            other => {
                self.wrong_shape(key, span, &other, "a string in quotes", problems);
                None
            }
        }
    }

    fn table_of(
        &self,
        key: &str,
        value: Spanned<DeValue<'a>>,
        expected: &str,
        problems: &mut Problems<'_>,
    ) -> Option<Table<'a>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(entries) => {
                Some(Table { entries, span, path: self.joined(key), asked: BTreeSet::new() })
            }
            other => {
                self.wrong_shape(key, span, &other, expected, problems);
                None
            }
        }
    }

    fn wrong_shape(
        &self,
        key: &str,
        span: Range<usize>,
        value: &DeValue<'_>,
        expected: &str,
        problems: &mut Problems<'_>,
    ) {
        let message = format!("`{}` is of type {}", self.joined(key), value.type_str());
        problems.report(span, message, format!("write {expected}"));
    }
}

/// The candidate that differs in the fewest letters, if it is close at all.
pub fn closest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min()
        .map(|(_, c)| c)
}

/// The Levenshtein distance, of at most the first 64 letters.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().take(64).enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i.saturating_add(1);
        }
        for (j, b) in right.iter().enumerate() {
            let above = row[j.saturating_add(1)];
            let replaced = diagonal.saturating_add(usize::from(a != *b));
            row[j.saturating_add(1)] =
                replaced.min(above.saturating_add(1)).min(row[j].saturating_add(1));
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_key_is_named_only_when_close() {
        let known = ["dimensions", "aggregation", "unit", "name"];
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(closest(word, known.into_iter()), expected, "{word}");
        };
        check("dimension", Some("dimensions"));
        check("agregation", Some("aggregation"));
        check("nmae", None);
        check("units", Some("unit"));
        check("colour", None);
    }

    #[test]
    fn lines_are_counted_from_one() {
        let problems = Problems { file: "f", text: "a\nb\n\nc", found: Vec::new() };
        assert_eq!([0, 1, 2, 4, 5, 99].map(|at| problems.line_of(at)), [1, 1, 2, 3, 4, 1]);
    }
}
