//! What a request's headers say of its body. [p]

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::parse::cloudevents::Shape;

/// Why a body of this kind is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsupported {
    Missing,
    MediaType,
    Charset,
    Encoding,
    /// CloudEvents binary mode: attributes in headers, the body is data only.
    BinaryMode,
}

impl Unsupported {
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Missing => "The request has no content type.",
            Self::MediaType => "The content type is none that holds CloudEvents in JSON.",
            Self::Charset => "The body is not in UTF-8, says the content type.",
            Self::Encoding => "The body is compressed.",
            Self::BinaryMode => "The event's attributes are in headers (CloudEvents binary mode).",
        }
    }

    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Missing | Self::MediaType => {
                "Send application/cloudevents+json for one event, application/cloudevents-batch+json for an \
                 array, or application/json for either."
            }
            Self::Charset => "Send JSON in UTF-8.",
            Self::Encoding => "Send the body without Content-Encoding.",
            Self::BinaryMode => {
                "Send structured mode: the whole event as one JSON object, for example with `to_structured`."
            }
        }
    }
}

/// The shape that `headers` promise.
pub(super) fn shape(headers: &HeaderMap) -> Result<Shape, Unsupported> {
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Unsupported::Encoding);
    }
    let content_type = headers.get(CONTENT_TYPE).ok_or(Unsupported::Missing)?;
    let content_type = content_type.to_str().map_err(|_| Unsupported::MediaType)?;
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let shape = match media_type.as_str() {
        "application/cloudevents+json" => Shape::One,
        "application/cloudevents-batch+json" => Shape::Batch,
        "application/json" => Shape::Either,
        _ => return Err(Unsupported::MediaType),
    };
    if shape == Shape::Either && headers.contains_key("ce-specversion") {
        return Err(Unsupported::BinaryMode);
    }
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        let readable =
            ["utf-8", "utf8", "us-ascii"].iter().any(|charset| value.eq_ignore_ascii_case(charset));
        if name.trim().eq_ignore_ascii_case("charset") && !readable {
            return Err(Unsupported::Charset);
        }
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    /// Headers as `name: value`, one a line.
    fn check(headers: &str, expected: Result<Shape, Unsupported>) {
        let parsed: HeaderMap = headers
            .lines()
            .map(|line| line.trim().split_once(": ").unwrap())
            .map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
            })
            .collect();
        assert_eq!(shape(&parsed), expected, "{headers}");
    }

    #[test]
    fn content_types() {
        check("content-type: application/cloudevents+json", Ok(Shape::One));
        check("content-type: application/cloudevents+json; charset=utf-8", Ok(Shape::One));
        check(
            "content-type: Application/CloudEvents-Batch+JSON;charset=\"UTF-8\"",
            Ok(Shape::Batch),
        );
        check("content-type: application/json ; version=1; charset=us-ascii", Ok(Shape::Either));
        check("content-type: application/json;", Ok(Shape::Either));
        check("content-type: application/json; charset=iso-8859-1", Err(Unsupported::Charset));
        check("content-type: text/plain", Err(Unsupported::MediaType));
        check("content-type: application/x-www-form-urlencoded", Err(Unsupported::MediaType));
        check("content-type: application/jsonx", Err(Unsupported::MediaType));
        check("", Err(Unsupported::Missing));
    }

    #[test]
    fn compressed_and_binary_bodies_are_told_apart() {
        let json = "content-type: application/json";
        check(&format!("{json}\ncontent-encoding: identity"), Ok(Shape::Either));
        check(&format!("{json}\ncontent-encoding: gzip"), Err(Unsupported::Encoding));
        check(&format!("{json}\nce-specversion: 1.0"), Err(Unsupported::BinaryMode));
        check("content-type: application/cloudevents+json\nce-specversion: 1.0", Ok(Shape::One));
    }
}
