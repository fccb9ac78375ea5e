//! Unsigned 256-bit integers, as far as exact amounts need them.
//!
//! **Owns** the product of two 128-bit factors, adding to it, and dividing by a power of ten.
//! **Does not own** what the numbers mean, or any rounding: division here cuts off.

const LIMB_BITS: u32 = 64;
/// The largest power of ten by which one limb step divides.
const STEP_DIGITS: u32 = 18;

/// Four limbs of 64 bits, least significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wide([u64; 4]);

impl Wide {
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
    pub(super) fn checked_add(self, other: u128) -> Option<Self> {
        let [low, high] = halves(other);
        let mut carry = false;
        let mut limbs = self.0;
        for (limb, added) in limbs.iter_mut().zip([low, high, 0, 0]) {
            let (sum, over) = limb.overflowing_add(added);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over || over_again);
        }
        (!carry).then_some(Self(limbs))
    }

    /// Divided by 10^`digits`, cut off. Cutting off in steps is the same as at once.
    pub(super) fn shifted_right_by_digits(self, digits: u32) -> Self {
        let mut wide = self;
        let mut left = digits;
        while left > 0 {
            let step = left.min(STEP_DIGITS);
            wide = wide.divided_by(10_u64.pow(step));
            left = left.saturating_sub(step);
        }
        wide
    }

    /// The value, if 128 bits hold it.
    pub(super) fn to_u128(self) -> Option<u128> {
        match self.0 {
            [low, high, 0, 0] => Some(u128::from(high) << LIMB_BITS | u128::from(low)),
            _ => None,
        }
    }

    fn divided_by(self, divisor: u64) -> Self {
        let mut limbs = self.0;
        let mut remainder = 0_u64;
        for limb in limbs.iter_mut().rev() {
            let dividend = u128::from(remainder) << LIMB_BITS | u128::from(*limb);
            let divisor = u128::from(divisor);
            // The remainder is below the divisor, so the quotient fits one limb.
            [*limb, _] = halves(dividend.checked_div(divisor).expect("a power of ten is not zero"));
            [remainder, _] =
                halves(dividend.checked_rem(divisor).expect("a power of ten is not zero"));
        }
        Self(limbs)
    }
}

/// The low and the high 64 bits.
fn halves(value: u128) -> [u64; 2] {
    let low = u64::try_from(value & u128::from(u64::MAX)).expect("masked to 64 bits");
    let high = u64::try_from(value >> LIMB_BITS).expect("shifted to 64 bits");
    [low, high]
}
