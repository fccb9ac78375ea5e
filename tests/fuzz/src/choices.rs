//! An input read as a list of decisions, so that any bytes mean something.

/// What is left of an input. An input that has run out decides for zero.
#[derive(Debug, Clone, Copy)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let number = match end {
            0..=256 => usize::from(self.byte()),
            257..=65_536 => usize::from(self.u16()),
            _ => self.u32() as usize,
        };
        number.checked_rem(end).unwrap_or(0)
    }

    /// One of `items`, which are some.
    pub fn of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        let index = self.below(items.len());
        &items[index]
    }

    /// Up to `bytes` bytes.
    pub fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
