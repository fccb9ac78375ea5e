//! Which lines of a batch are unauthorised: the verdict of its admission, stored beside it.
//!
//! ```text
//! MARKS        a bit a line, in the body's order, the lowest bit of each byte first; bytes of zeros at the
//!              end are left out. A batch without such lines has no row.
//! ```
//! **Owns** these bytes. A batch's own bytes are the agent's and frozen; whether its identity may bill a line
//! is the collector's judgement, made once, when the batch is opened to be admitted. Totals are summed from
//! batch and marks, so that a rebuild after the patterns changed gives what it gave before.

use thiserror::Error;
use tidemark_common::batch::Line;

use crate::usage::Class;

/// A batch's marks. The last byte is never zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks(Vec<u8>);

/// Marks that are not of their batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("its marks are of more than its {lines} lines")]
pub struct MarksError {
    pub lines: usize,
}

impl Marks {
    /// Marks each line that `class` finds unauthorised.
    #[must_use]
    pub fn of(lines: &[Line], class: impl Fn(&Line) -> Class) -> Self {
        let byte = |lines: &[Line]| {
            lines.iter().rev().fold(0_u8, |byte, line| match class(line) {
                Class::Normal | Class::Suppressed => byte << 1,
                Class::Unauthorised => (byte << 1) | 1,
            })
        };
        let mut bytes: Vec<u8> = lines.chunks(8).map(byte).collect();
        let end = bytes.iter().rposition(|byte| *byte != 0);
        bytes.truncate(end.map_or(0, |last| last.saturating_add(1)));
        Self(bytes)
    }

    /// Reads [`Self::bytes`] of a batch with so many lines.
    ///
    /// # Errors
    /// Marks of lines that there are not.
    pub fn read(bytes: &[u8], lines: usize) -> Result<Self, MarksError> {
        let held = lines.div_ceil(8);
        let beyond = match bytes.get(held.saturating_sub(1)) {
            Some(last) if bytes.len() == held => last.checked_shr(used_bits(lines)).unwrap_or(0),
            Some(_) => 1,
            None => 0,
        };
        if beyond == 0 { Ok(Self(bytes.to_vec())) } else { Err(MarksError { lines }) }
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether no line is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The class of the body's line at `index`.
    #[must_use]
    pub fn class(&self, index: usize) -> Class {
        let (byte, bit) = (index.div_euclid(8), index.rem_euclid(8));
        match self.0.get(byte) {
            Some(byte) if (byte >> bit) & 1 == 1 => Class::Unauthorised,
            Some(_) | None => Class::Normal,
        }
    }
}

/// How many bits of the last byte stand for lines.
fn used_bits(lines: usize) -> u32 {
    u32::try_from(lines.saturating_sub(1).rem_euclid(8)).map_or(8, |last| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use tidemark_common::batch::{Dimensions, LineKey, LineValue};
    use tidemark_common::id::{CustomerId, MeterName};
    use tidemark_common::time::Bucket;

    use super::*;

    /// One line a letter; `x` is unauthorised.
    fn check(lines: &str, expected: &[u8]) {
        let line = |letter: char| {
            let key = LineKey {
                meter: MeterName::parse("m").unwrap(),
                customer: CustomerId::parse(&letter.to_string()).unwrap(),
                dimensions: Dimensions::default(),
                bucket: Bucket(0),
                part: 0,
            };
            Line { key, value: LineValue::default() }
        };
        let all: Vec<_> = lines.chars().map(line).collect();
        let class = |line: &Line| {
            if line.key.customer.as_str() == "x" { Class::Unauthorised } else { Class::Normal }
        };
        let marks = Marks::of(&all, class);
        assert_eq!((marks.bytes(), marks.is_empty()), (expected, expected.is_empty()), "{lines}");
        let read = Marks::read(expected, all.len()).unwrap();
        for (index, line) in all.iter().enumerate() {
            assert_eq!(read.class(index), class(line), "{lines}: {index}");
        }
    }

    #[test]
    fn a_bit_a_line_in_the_bodys_order() {
        check("", &[]);
        check("ooo", &[]);
        check("xoo", &[1]);
        check("oox", &[4]);
        check("xxxxxxxx", &[0xff]);
        check("oooooooox", &[0, 1]);
        check("xooooooooo", &[1]);
    }

    #[test]
    fn marks_beyond_the_lines_are_refused() {
        assert_eq!(Marks::read(&[4], 2), Err(MarksError { lines: 2 }));
        assert_eq!(Marks::read(&[0, 1], 8), Err(MarksError { lines: 8 }));
        assert_eq!(Marks::read(&[1], 0), Err(MarksError { lines: 0 }));
        assert!(Marks::read(&[0x80], 8).is_ok());
        assert!(Marks::read(&[], 0).is_ok());
    }
}
