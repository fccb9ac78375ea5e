//! Big-endian fields one after another: the way every part of a batch is written and read.

/// Reads fields from the front of a slice. `None`: it ends before the field does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn i128(&mut self) -> Option<i128> {
        self.array().map(i128::from_be_bytes)
    }

    /// A `str`'s bytes: u16 length, then as many.
    pub(super) fn str_bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.slice(usize::from(length))
    }
}

/// Appends a `str`: u16 length, UTF-8.
pub(super) fn put_str(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&str_length(text).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// The length field of a `str`.
pub(super) fn str_length(text: &str) -> u16 {
    u16::try_from(text.len()).expect("names are at most 128 bytes")
}
