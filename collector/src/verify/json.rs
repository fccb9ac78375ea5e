//! JSON of one form only: a text that is read here is, written again, the same text.
//!
//! ```text
//! no spaces; integers alone, at most 20 digits, no -0; `"`, `\` and control characters escaped as
//! \" \\ \b \f \n \r \t, else \u00xx in lower case, and nothing else; no key twice
//! ```
//! **Owns** this reading, and objects whose keys come in a known order. **Does not own** what they mean.
//!
//! Limits: [`DEPTH_MAX`], [`KEYS_MAX`]; the texts' lengths are the file's. Never panics: the input is anybody's.

use super::Refusal;

/// Lists and objects within each other; the deepest in use are the tiers of a line.
const DEPTH_MAX: u32 = 16;
/// Keys of one object.
const KEYS_MAX: usize = 64;
/// Digits of an integer.
const DIGITS_MAX: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// Reads all of a text.
pub(super) fn parse(text: &str, place: &str) -> Result<Value, Refusal> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0).and_then(|value| match reader.rest() {
        [] => Ok(value),
        _ => Err("something follows its end"),
    });
    value.map_err(|what| Refusal::new(place, format!("{what}, at byte {}", reader.at)))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

type Read<T> = Result<T, &'static str>;

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    fn takes(&mut self, word: &str) -> bool {
        let takes = self.rest().starts_with(word.as_bytes());
        if takes {
            self.skip(word.len());
        }
        takes
    }

    fn value(&mut self, depth: u32) -> Read<Value> {
        if depth > DEPTH_MAX {
            return Err("it is nested too deep");
        }
        match self.peek().ok_or("it ends too early")? {
            b'"' => self.string().map(Value::Text),
            b'[' => self.list(depth),
            b'{' => self.object(depth),
            b'-' | b'0'..=b'9' => self.integer(),
            _ if self.takes("null") => Ok(Value::Null),
            _ if self.takes("true") => Ok(Value::Bool(true)),
            _ if self.takes("false") => Ok(Value::Bool(false)),
            _ => Err("there is no value in the one form that is read"),
        }
    }

    fn list(&mut self, depth: u32) -> Read<Value> {
        self.skip(1);
        let mut items = Vec::new();
        if self.takes("]") {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth.saturating_add(1))?);
            if self.takes("]") {
                return Ok(Value::List(items));
            }
            if !self.takes(",") {
                return Err("a list goes on with something else than `,` or `]`");
            }
        }
    }

    fn object(&mut self, depth: u32) -> Read<Value> {
        self.skip(1);
        let mut fields: Vec<(String, Value)> = Vec::new();
        if self.takes("}") {
            return Ok(Value::Object(fields));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err("there is no key");
            }
            let key = self.string()?;
            if fields.len() >= KEYS_MAX {
                return Err("an object has too many keys");
            }
            if fields.iter().any(|(other, _)| *other == key) {
                return Err("a key stands twice");
            }
            if !self.takes(":") {
                return Err("a key has no value");
            }
            fields.push((key, self.value(depth.saturating_add(1))?));
            if self.takes("}") {
                return Ok(Value::Object(fields));
            }
            if !self.takes(",") {
                return Err("an object goes on with something else than `,` or `}`");
            }
        }
    }

    fn integer(&mut self) -> Read<Value> {
        let length = self.rest().iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
        let end = self.at.saturating_add(1).saturating_add(length);
        let text = self.text.get(self.at..end).unwrap_or_default();
        let value = integer(text).ok_or("a number is not an integer in its shortest form")?;
        self.at = end;
        Ok(Value::Integer(value))
    }

    fn string(&mut self) -> Read<String> {
        self.skip(1);
        let mut text = String::new();
        loop {
            let plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let length = self.rest().iter().take_while(plain).count();
            let end = self.at.saturating_add(length);
            text.push_str(self.text.get(self.at..end).unwrap_or_default());
            self.at = end;
            match self.peek() {
                Some(b'"') => {
                    self.skip(1);
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escaped()?),
                Some(_) => return Err("a control character is not escaped"),
                None => return Err("a text has no end"),
            }
        }
    }

    fn escaped(&mut self) -> Read<char> {
        let (length, letter) = match self.rest() {
            [_, b'"', ..] => (2, '"'),
            [_, b'\\', ..] => (2, '\\'),
            [_, b'b', ..] => (2, '\u{8}'),
            [_, b'f', ..] => (2, '\u{c}'),
            [_, b'n', ..] => (2, '\n'),
            [_, b'r', ..] => (2, '\r'),
            [_, b't', ..] => (2, '\t'),
            [_, b'u', b'0', b'0', high @ (b'0' | b'1'), low @ (b'0'..=b'9' | b'a'..=b'f'), ..] => {
                let nibble = char::from(*low).to_digit(16).unwrap_or(0);
                let code = if *high == b'1' { nibble | 16 } else { nibble };
                let letter = char::from_u32(code).unwrap_or('"');
                if matches!(letter, '\u{8}' | '\u{c}' | '\n' | '\r' | '\t') {
                    return Err("a character is escaped by its number that has a shorter form");
                }
                (6, letter)
            }
            _ => return Err("something is escaped that is not"),
        };
        self.skip(length);
        Ok(letter)
    }
}

/// An integer in its shortest form, of few digits.
fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    (digits.len() <= DIGITS_MAX).then(|| whole(text))?
}

/// A whole number as text, in its shortest form.
pub(super) fn whole(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_shortest = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && text != "-0";
    (is_shortest && !digits.is_empty()).then(|| text.parse().ok())?
}

/// A text as it is written.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\0'..='\u{1f}' => quoted.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

impl Value {
    /// For people.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Text(text) => text.clone(),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Object(_) => "an object".to_owned(),
        }
    }

    fn wrong<T>(&self, place: &str, due: &str) -> Result<T, Refusal> {
        Err(Refusal::new(place, format!("{} stands where {due} is due", self.told())))
    }

    pub(super) fn text(&self, place: &str) -> Result<&str, Refusal> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::List(_) | Self::Object(_) => {
                self.wrong(place, "a text")
            }
        }
    }

    pub(super) fn list(&self, place: &str) -> Result<&[Self], Refusal> {
        match self {
            Self::List(items) => Ok(items),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Text(_) | Self::Object(_) => {
                self.wrong(place, "a list")
            }
        }
    }

    /// An integer that fits what is due.
    pub(super) fn number<N: TryFrom<i128>>(&self, place: &str) -> Result<N, Refusal> {
        match self {
            Self::Integer(value) => N::try_from(*value).or_else(|_| self.wrong(place, "another")),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => {
                self.wrong(place, "an integer")
            }
        }
    }

    pub(super) fn flag(&self, place: &str) -> Result<bool, Refusal> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Null | Self::Integer(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => {
                self.wrong(place, "true or false")
            }
        }
    }

    /// Bytes in lower-case hexadecimal digits.
    pub(super) fn hex<const N: usize>(&self, place: &str) -> Result<[u8; N], Refusal> {
        hex(self.text(place)?).map_or_else(|| self.wrong(place, "hexadecimal digits"), Ok)
    }

    pub(super) fn is_null(&self) -> bool {
        *self == Self::Null
    }
}

/// Exactly `N` bytes, in lower case.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_lower.then(|| tidemark_common::hex::decode_array(text))?
}

/// An object's values, asked for in the order of its keys.
#[derive(Debug)]
pub(super) struct Fields<'v> {
    place: String,
    rest: &'v [(String, Value)],
}

impl<'v> Fields<'v> {
    pub(super) fn of(value: &'v Value, place: &str) -> Result<Self, Refusal> {
        match value {
            Value::Object(fields) => Ok(Self { place: place.to_owned(), rest: fields }),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Text(_) | Value::List(_) => {
                value.wrong(place, "an object")
            }
        }
    }

    /// The place of a key, for messages.
    pub(super) fn at(&self, key: &str) -> String {
        let place = &self.place;
        if place.is_empty() { key.to_owned() } else { format!("{place}: `{key}`") }
    }

    /// The value of `key`, if that is the next one.
    pub(super) fn maybe(&mut self, key: &str) -> Option<&'v Value> {
        let (name, value) = self.rest.first()?;
        if name != key {
            return None;
        }
        self.rest = self.rest.get(1..).unwrap_or_default();
        Some(value)
    }

    /// The value of `key`, which must be the next one.
    pub(super) fn value(&mut self, key: &str) -> Result<&'v Value, Refusal> {
        let found = self.rest.first().map_or("nothing", |(name, _)| name);
        let missing = || Refusal::new(self.at(key), format!("it is due here, and {found} stands"));
        let missing = missing();
        self.maybe(key).ok_or(missing)
    }

    pub(super) fn text(&mut self, key: &str) -> Result<&'v str, Refusal> {
        let place = self.at(key);
        self.value(key)?.text(&place)
    }

    pub(super) fn maybe_text(&mut self, key: &str) -> Result<Option<&'v str>, Refusal> {
        let place = self.at(key);
        self.maybe(key).map(|value| value.text(&place)).transpose()
    }

    pub(super) fn list(&mut self, key: &str) -> Result<&'v [Value], Refusal> {
        let place = self.at(key);
        self.value(key)?.list(&place)
    }

    pub(super) fn number<N: TryFrom<i128>>(&mut self, key: &str) -> Result<N, Refusal> {
        let place = self.at(key);
        self.value(key)?.number(&place)
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<bool, Refusal> {
        let place = self.at(key);
        self.value(key)?.flag(&place)
    }

    pub(super) fn hex<const N: usize>(&mut self, key: &str) -> Result<[u8; N], Refusal> {
        let place = self.at(key);
        self.value(key)?.hex(&place)
    }

    /// A number, or `null`.
    pub(super) fn nullable<N: TryFrom<i128>>(&mut self, key: &str) -> Result<Option<N>, Refusal> {
        let place = self.at(key);
        let value = self.value(key)?;
        if value.is_null() { Ok(None) } else { value.number(&place).map(Some) }
    }

    /// `format` as it must be.
    pub(super) fn format(&mut self, due: &str) -> Result<(), Refusal> {
        let found = self.text("format")?;
        if found == due {
            return Ok(());
        }
        Err(Refusal::new(self.at("format"), format!("it is {found:?}, and {due:?} is read here")))
    }

    /// Nothing may follow.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        match self.rest.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::new(self.at(name), "nobody knows this key here")),
        }
    }
}
