//! JSON as text: members, elements and scalars as they were sent, so that numbers stay exact.
//!
//! **Owns** the meeting with serde_json; none of its types leave this file. **Does not own** what any
//! member means.
//!
//! Reading is lazy: a value is checked to be JSON once, and its parts are found when asked for. An
//! object that names a member twice is none here, since readers differ in which one they believe.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// An object with more members than this is not read.
pub(super) const MEMBERS_MAX: usize = 1_024;

/// One JSON value, as text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json<'a>(&'a RawValue);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// The elements of an array, or that there are too many.
#[derive(Debug)]
pub(super) enum Elements<'a> {
    All(Vec<Json<'a>>),
    TooMany,
}

impl<'a> Json<'a> {
    /// Reads a whole text as one value; `Err` says where it is not JSON.
    pub(super) fn read(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map(Self).map_err(|error| error.to_string())
    }

    pub(super) fn kind(self) -> Kind {
        match self.0.get().as_bytes() {
            [b'n', ..] => Kind::Null,
            [b't' | b'f', ..] => Kind::Bool,
            [b'"', ..] => Kind::String,
            [b'[', ..] => Kind::Array,
            [b'{', ..] => Kind::Object,
            // What is left of JSON begins with a digit or a minus.
            _ => Kind::Number,
        }
    }

    /// The members; `None` unless this is an object of at most [`MEMBERS_MAX`], each named once.
    pub(super) fn object(self) -> Option<Object<'a>> {
        match self.kind() {
            Kind::Object => serde_json::from_str::<Members<'a>>(self.0.get()).ok()?.into_object(),
            Kind::Null | Kind::Bool | Kind::Number | Kind::String | Kind::Array => None,
        }
    }

    /// The elements; `None` unless this is an array.
    pub(super) fn elements(self, elements_max: usize) -> Option<Elements<'a>> {
        let mut reader = serde_json::Deserializer::from_str(self.0.get());
        reader.deserialize_seq(ElementsVisitor { elements_max }).ok()
    }

    /// The content of a string.
    pub(super) fn string(self) -> Option<Cow<'a, str>> {
        serde_json::from_str::<Text<'a>>(self.0.get()).ok().map(|text| text.0)
    }

    /// The text of a number, or the content of a string.
    pub(super) fn number(self) -> Option<Cow<'a, str>> {
        match self.kind() {
            Kind::Number => Some(Cow::Borrowed(self.0.get())),
            Kind::String => self.string(),
            Kind::Null | Kind::Bool | Kind::Array | Kind::Object => None,
        }
    }

    /// The text of a number, of `true` or `false`, or the content of a string.
    pub(super) fn scalar(self) -> Option<Cow<'a, str>> {
        match self.kind() {
            Kind::Number | Kind::Bool => Some(Cow::Borrowed(self.0.get())),
            Kind::String => self.string(),
            Kind::Null | Kind::Array | Kind::Object => None,
        }
    }
}

/// The members of an object, each named once.
#[derive(Debug, Default)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Object<'a> {
    pub(super) fn get(&self, name: &str) -> Option<Json<'a>> {
        let index = self.0.binary_search_by(|(member, _)| member.as_ref().cmp(name)).ok()?;
        self.0.get(index).map(|(_, value)| *value)
    }

    /// The member, unless it is null.
    pub(super) fn present(&self, name: &str) -> Option<Json<'a>> {
        self.get(name).filter(|value| value.kind() != Kind::Null)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&str, Json<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }
}

/// A string that is borrowed where it holds no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Members as sent; `None` if there are too many.
struct Members<'a>(Option<Vec<(Cow<'a, str>, Json<'a>)>>);

impl<'a> Members<'a> {
    fn into_object(self) -> Option<Object<'a>> {
        let mut members = self.0?;
        members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let repeated = members.windows(2).any(|pair| pair[0].0 == pair[1].0);
        (!repeated).then_some(Object(members))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            if members.len() == MEMBERS_MAX {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(Members(None));
            }
            members.push((name, Json(value)));
        }
        Ok(Members(Some(members)))
    }
}

struct ElementsVisitor {
    elements_max: usize,
}

impl<'de> Visitor<'de> for ElementsVisitor {
    type Value = Elements<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Elements<'de>, A::Error> {
        let mut elements = Vec::new();
        while let Some(value) = sequence.next_element::<&'de RawValue>()? {
            if elements.len() == self.elements_max {
                while sequence.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Elements::TooMany);
            }
            elements.push(Json(value));
        }
        Ok(Elements::All(elements))
    }
}
