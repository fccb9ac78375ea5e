//! Unsigned 256-bit integers, as far as exact amounts need them.
//!
//! **Owns** the product of two 128-bit factors, sums, differences, and dividing.
//! **Does not own** what the numbers mean, or any rounding: division here cuts off, and says what is left.

const LIMB_BITS: u32 = 64;

/// Four limbs of 64 bits, least significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wide([u64; 4]);

impl Wide {
    pub(super) const ZERO: Self = Self([0; 4]);

    /// `left` times `right`; 256 bits hold any such product.
    pub(super) fn product(left: u128, right: u128) -> Self {
        let mut limbs = [0_u64; 4];
        for (i, a) in halves(left).into_iter().enumerate() {
            let mut carry = 0_u64;
            for (j, b) in halves(right).into_iter().enumerate() {
                let at = i.wrapping_add(j);
                // (2^64 - 1)^2 + 2 * (2^64 - 1) = 2^128 - 1: it cannot overflow.
                let sum = u128::from(a)
                    .wrapping_mul(u128::from(b))
                    .wrapping_add(u128::from(limbs[at]))
                    .wrapping_add(u128::from(carry));
                [limbs[at], carry] = halves(sum);
            }
            limbs[i.wrapping_add(2)] = carry;
        }
        Self(limbs)
    }

    /// The sum, or `None` beyond 256 bits.
    pub(super) fn checked_add(self, other: Self) -> Option<Self> {
        self.each_limb(other, u64::overflowing_add)
    }

    /// The difference, or `None` below zero.
    pub(super) fn checked_sub(self, other: Self) -> Option<Self> {
        self.each_limb(other, u64::overflowing_sub)
    }

    /// Adds or subtracts limb by limb; `None` if something is carried beyond the last.
    fn each_limb(self, other: Self, step: fn(u64, u64) -> (u64, bool)) -> Option<Self> {
        let mut carry = false;
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            let (one, over) = step(*limb, other);
            let (both, over_again) = step(one, u64::from(carry));
            (*limb, carry) = (both, over || over_again);
        }
        (!carry).then_some(Self(limbs))
    }

    /// The quotient, cut off, and the remainder; `None` if 128 bits do not hold the quotient, or `divisor` is
    /// zero or above 2^127.
    pub(super) fn div_rem(self, divisor: u128) -> Option<(u128, u128)> {
        if divisor == 0 || divisor.leading_zeros() == 0 {
            return None;
        }
        let (mut quotient, mut remainder) = (0_u128, 0_u128);
        for limb in self.0.into_iter().rev() {
            for bit in (0..LIMB_BITS).rev() {
                // The remainder is below the divisor, which is below 2^127.
                remainder = (remainder << 1) | u128::from((limb >> bit) & 1);
                if quotient.leading_zeros() == 0 {
                    return None;
                }
                quotient <<= 1;
                if let Some(less) = remainder.checked_sub(divisor) {
                    (remainder, quotient) = (less, quotient | 1);
                }
            }
        }
        Some((quotient, remainder))
    }
}

/// The low and the high 64 bits.
fn halves(value: u128) -> [u64; 2] {
    let low = u64::try_from(value & u128::from(u64::MAX)).expect("masked to 64 bits");
    let high = u64::try_from(value >> LIMB_BITS).expect("shifted to 64 bits");
    [low, high]
}
