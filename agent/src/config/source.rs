//! Where values come from: the file and the environment, laid over each other, each value with its
//! place.
//!
//! **Owns** reading files and the environment, and finding unknown keys. **Does not own** what a
//! value must look like.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::closest::closest;
use super::reference::{self, KEYS, Key, Kind};
use super::{FILE_BYTES_MAX, Problem, VARIABLE_PREFIX};

/// A value as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    List(Vec<Located>),
    Table(Vec<(String, Located)>),
    /// Something that no key takes; in words.
    Other(&'static str),
}

impl Value {
    /// What it is, in words.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(words) => words,
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The reference table: nobody gave it.
    Default,
    Line {
        file: String,
        line: usize,
    },
    Variable(String),
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Given values by the path of their key.
pub(super) type Found = BTreeMap<&'static str, Located>;

/// Reads a text file of bounded size.
pub(super) fn read_file(path: &Path) -> Result<String, Problem> {
    let problem = |message: String, remedy: &str| Problem {
        place: path.display().to_string(),
        message,
        remedy: remedy.to_owned(),
    };
    let mut text = String::new();
    // One byte more than allowed shows that there are too many.
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_string(&mut text))
        .map_err(|error| {
            problem(
                format!("failed to read the file: {error}"),
                "check the path, that the file exists and that this user may read it",
            )
        })?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > FILE_BYTES_MAX) {
        return Err(problem(
            format!("is larger than {FILE_BYTES_MAX} bytes"),
            "check that this is the right file",
        ));
    }
    Ok(text)
}

/// The variables of the overlay in the process's environment.
pub(super) fn environment() -> (Vec<(String, String)>, Vec<Problem>) {
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else {
            continue;
        };
        match value.into_string() {
            Ok(value) => variables.push((name.to_owned(), value)),
            Err(_) => problems.push(Problem {
                place: name.to_owned(),
                message: "is not UTF-8".to_owned(),
                remedy: "set it to a UTF-8 text".to_owned(),
            }),
        }
    }
    variables.sort();
    (variables, problems)
}

/// Collects what the file and the variables give, and what of it no key takes.
///
/// A file that is not TOML is an error of its own: whatever else it seems to lack may be there.
pub(super) fn gather(
    text: &str,
    file: &str,
    folder: &Path,
    variables: &[(String, String)],
) -> Result<(Found, Vec<Problem>), Vec<Problem>> {
    let mut source = Source { text, file, folder, found: Found::new(), problems: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = source.line(error.span().unwrap_or(0..0));
        source.problem(
            place,
            format!("not TOML: {}", error.message()),
            "mend the line; see https://toml.io",
        );
    }
    if !source.problems.is_empty() {
        return Err(source.problems);
    }
    source.document(document.get_ref());
    for (name, value) in variables {
        source.variable(name, value, variables);
    }
    Ok((source.found, source.problems))
}

struct Source<'a> {
    text: &'a str,
    file: &'a str,
    folder: &'a Path,
    found: Found,
    problems: Vec<Problem>,
}

impl Source<'_> {
    fn document(&mut self, document: &DeTable<'_>) {
        for (name, value) in document {
            let section = name.get_ref().as_ref();
            if reference::sections().any(|known| known == section) {
                match value.get_ref() {
                    DeValue::Table(keys) => self.section(section, keys),
                    _ => {
                        let place = self.line(name.span());
                        self.problem(
                            place,
                            format!("`{section}` is a section"),
                            &format!("write [{section}] on a line of its own, and its keys below"),
                        );
                    }
                }
            } else {
                self.entry(section, name, value);
            }
        }
    }

    fn section(&mut self, section: &str, keys: &DeTable<'_>) {
        for (name, value) in keys {
            self.entry(&format!("{section}.{}", name.get_ref()), name, value);
        }
    }

    fn entry(
        &mut self,
        path: &str,
        name: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let place = self.line(name.span());
        if let Some(key) = reference::find(path) {
            let located = self.located(value);
            self.insert(key, located);
        } else if let Some(key) = secret_in_file(path) {
            match value.get_ref() {
                DeValue::String(named) => self.take_file(key, place, named),
                other => {
                    let found = words(other);
                    self.problem(
                        place,
                        format!("`{path}` is {found}"),
                        "write the path of a file, as text",
                    );
                }
            }
        } else {
            let what = match value.get_ref() {
                DeValue::Table(_) if !path.contains('.') => format!("there is no section [{path}]"),
                _ => format!("there is no key `{path}`"),
            };
            let remedy = suggestion(path);
            self.problem(place, what, &remedy);
        }
    }

    fn variable(&mut self, name: &str, value: &str, all: &[(String, String)]) {
        let place = Place::Variable(name.to_owned());
        if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
            match overlaid(key, value, &place) {
                Some(value) => self.insert(key, Located { value, place }),
                None => self.problem(
                    place,
                    format!("`{}` cannot be given in the environment", key.path),
                    "give it in the configuration file",
                ),
            }
            return;
        }
        let in_file = name.strip_suffix("_FILE");
        let key = in_file.and_then(|name| KEYS.iter().find(|key| key.variable() == name));
        match (key, in_file) {
            (Some(key), Some(plain)) if all.iter().any(|(other, _)| other == plain) => self
                .problem(
                    place,
                    format!("`{}` is given twice: {plain} is set too", key.path),
                    "unset one of the two variables",
                ),
            (Some(key), _) => self.take_file(key, place, value),
            (None, _) => {
                let path =
                    name.trim_start_matches(VARIABLE_PREFIX).replace("__", ".").to_lowercase();
                let near =
                    closest(&path, KEYS.iter().map(|key| key.path)).and_then(reference::find);
                let remedy = near.map_or_else(
                    || "unset it; `tidemark-agent config-reference` lists all keys".to_owned(),
                    |key| format!("did you mean {}?", key.variable()),
                );
                self.problem(place, format!("there is no key `{path}`"), &remedy);
            }
        }
    }

    /// Takes a key's value from the file that `named` names.
    fn take_file(&mut self, key: &'static Key, place: Place, named: &str) {
        let path = self.folder.join(named);
        match read_file(&path) {
            Ok(text) => {
                let place = Place::File(path);
                // Editors and `echo` end a file with a newline that no one means.
                match overlaid(key, text.trim_end_matches(['\n', '\r']), &place) {
                    Some(value) => self.insert(key, Located { value, place }),
                    None => self.problem(
                        place,
                        format!("`{}` cannot be read from a file", key.path),
                        "give it in the configuration file",
                    ),
                }
            }
            Err(problem) => self.problem(
                place,
                format!("`{}`: {}: {}", key.path, problem.place, problem.message),
                &problem.remedy,
            ),
        }
    }

    /// Later sources are laid over earlier ones; a file gives a key at most once.
    fn insert(&mut self, key: &'static Key, located: Located) {
        self.found.insert(key.path, located);
    }

    fn located(&self, value: &Spanned<DeValue<'_>>) -> Located {
        let place = self.line(value.span());
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.as_ref().to_owned()),
            DeValue::Integer(integer) => {
                match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(integer) => Value::Integer(integer),
                    Err(_) => Value::Other("a number that is too large"),
                }
            }
            DeValue::Array(values) => {
                Value::List(values.iter().map(|value| self.located(value)).collect())
            }
            DeValue::Table(table) => Value::Table(
                table
                    .iter()
                    .map(|(name, value)| (name.get_ref().as_ref().to_owned(), self.located(value)))
                    .collect(),
            ),
            other @ (DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_)) => {
                Value::Other(words(other))
            }
        };
        Located { value, place }
    }

    fn line(&self, span: Range<usize>) -> Place {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
        Place::Line { file: self.file.to_owned(), line }
    }

    fn problem(&mut self, place: Place, message: String, remedy: &str) {
        self.problems.push(Problem {
            place: place.to_string(),
            message,
            remedy: remedy.to_owned(),
        });
    }
}

/// The secret that a key of the file such as `doors.http_token_file` stands for.
fn secret_in_file(path: &str) -> Option<&'static Key> {
    reference::find(path.strip_suffix("_file")?).filter(|key| key.kind == Kind::Secret)
}

/// What to do about an unknown key of the file.
pub(super) fn suggestion(path: &str) -> String {
    let known = KEYS.iter().map(|key| key.path).chain(reference::sections());
    match closest(path, known) {
        Some(near) if reference::find(near).is_none() => format!("did you mean [{near}]?"),
        Some(near) => match near.split_once('.') {
            Some((section, name)) => format!("did you mean `{name}` in [{section}]?"),
            None => format!("did you mean `{near}` at the top, before the first section?"),
        },
        None => "remove it; `tidemark-agent config-reference` lists all keys".to_owned(),
    }
}

/// The value that a text outside the file stands for; `None` if the kind has no such form.
fn overlaid(key: &Key, text: &str, place: &Place) -> Option<Value> {
    match key.kind {
        Kind::Seed => None,
        Kind::Texts | Kind::Addresses | Kind::Collectors | Kind::Uids => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            let located =
                |part: &str| Located { value: Value::Text(part.to_owned()), place: place.clone() };
            Some(Value::List(parts.map(located).collect()))
        }
        Kind::Text
        | Kind::Secret
        | Kind::Path
        | Kind::OptionalPath
        | Kind::Address
        | Kind::Duration
        | Kind::Bytes
        | Kind::Count
        | Kind::Mode
        | Kind::Choice(_) => Some(Value::Text(text.to_owned())),
    }
}

/// The default of a key, through the same parser as a given value.
pub(super) fn default(key: &Key) -> Option<Located> {
    let text = key.default?;
    let parsed = DeValue::parse(text).expect("the defaults of the reference are TOML");
    let source =
        Source { text, file: "", folder: Path::new(""), found: Found::new(), problems: Vec::new() };
    let mut located = source.located(&parsed);
    located.place = Place::Default;
    Some(located)
}

fn words(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
