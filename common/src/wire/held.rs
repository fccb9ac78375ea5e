//! What Hello says in `extras` of the first batch that the journal still holds.
//!
//! ```text
//! tag 2   sequence u64, first event number u64     (big-endian)
//! ```
//! **Owns** these bytes. An agent says it after it has found that the ledger lacks batches which the
//! journal has forgotten: so the collector knows which, and how many events they held.

use super::Extra;
use crate::id::{EventNumber, Sequence};

/// Even: a collector that does not know it goes on without.
const TAG: u16 = 2;

/// The first batch that a journal holds; the one to be sealed next if it holds none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstHeld {
    pub sequence: Sequence,
    pub event: EventNumber,
}

impl FirstHeld {
    #[must_use]
    pub fn to_extra(self) -> Extra {
        let bytes = [self.sequence.0.to_be_bytes(), self.event.0.to_be_bytes()].concat();
        Extra { tag: TAG, bytes }
    }

    /// What `extras` say of it; `None` if they do not, or in bytes of another length.
    #[must_use]
    pub fn among(extras: &[Extra]) -> Option<Self> {
        let extra = extras.iter().find(|extra| extra.tag == TAG)?;
        let (sequence, event) = extra.bytes.split_first_chunk::<8>()?;
        let sequence = Sequence(u64::from_be_bytes(*sequence));
        Some(Self { sequence, event: EventNumber(u64::from_be_bytes(event.try_into().ok()?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_bytes() {
        let held = FirstHeld { sequence: Sequence(3), event: EventNumber(0x0102) };
        let extra = held.to_extra();
        assert_eq!(
            (extra.tag, &extra.bytes[..]),
            (2, &b"\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\x01\x02"[..])
        );
        let other = Extra { tag: 4, bytes: vec![1] };
        assert_eq!(FirstHeld::among(&[other.clone(), extra]), Some(held));
        assert_eq!(FirstHeld::among(&[other]), None);
        for length in [0, 8, 15, 17] {
            assert_eq!(FirstHeld::among(&[Extra { tag: 2, bytes: vec![0; length] }]), None);
        }
    }
}
