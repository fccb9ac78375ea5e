//! Digests and trees: of a customer's usage, of all customers, of streams.
//!
//! ```text
//! day        H("tidemark/day/1" + day u32 + n u32 + n * (length u32 + text))
//! customer   H("tidemark/customer/1" + customer str + n u32 + n * (day u32 + day's digest))
//! position   the first 6 bytes of HMAC(salt, "tidemark/position/1" + customer's id)
//! leaf       H(0x00 + position [6] + customer's digest)       at depth 48, where its position's bits lead, the highest first
//! node       H(0x01 + left + right)
//! empty      HMAC(salt, "tidemark/empty/1" + depth u8 + prefix [6])        a subtree without leaves
//! ```
//! **Owns** these digests. **Does not own** what the texts say.

use ring::digest::{Context, SHA256};
use ring::hmac::{self, HMAC_SHA256};

use super::Refusal;

pub(super) type Digest = [u8; 32];

/// Siblings on the way from a leaf to the root.
pub(super) const DEPTH: usize = 48;
pub(super) type Position = [u8; 6];

/// SHA-256 of all pieces, one behind the other.
pub(super) fn hash(pieces: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for piece in pieces {
        context.update(piece);
    }
    finished(context)
}

fn finished(context: Context) -> Digest {
    let mut digest = [0; 32];
    for (byte, found) in digest.iter_mut().zip(context.finish().as_ref()) {
        *byte = *found;
    }
    digest
}

fn count(length: usize) -> Result<[u8; 4], Refusal> {
    let too_many = |_| Refusal::new("days", "there are more texts or bytes than 32 bits count");
    u32::try_from(length).map(u32::to_be_bytes).map_err(too_many)
}

/// The digest of one day of a customer.
pub(super) fn day<'t>(
    day: u32,
    texts: impl ExactSizeIterator<Item = &'t str>,
) -> Result<Digest, Refusal> {
    let mut context = Context::new(&SHA256);
    context.update(b"tidemark/day/1");
    context.update(&day.to_be_bytes());
    context.update(&count(texts.len())?);
    for text in texts {
        context.update(&count(text.len())?);
        context.update(text.as_bytes());
    }
    Ok(finished(context))
}

/// The digest of a customer.
pub(super) fn customer(id: &str, days: &[(u32, Digest)]) -> Result<Digest, Refusal> {
    let mut context = Context::new(&SHA256);
    context.update(b"tidemark/customer/1");
    let too_long = |_| Refusal::new("customer", "the id is too long");
    context.update(&u16::try_from(id.len()).map_err(too_long)?.to_be_bytes());
    context.update(id.as_bytes());
    context.update(&count(days.len())?);
    for (day, digest) in days {
        context.update(&day.to_be_bytes());
        context.update(digest);
    }
    Ok(finished(context))
}

pub(super) fn leaf(position: &Position, customer: &Digest) -> Digest {
    hash(&[&[0], position, customer])
}

pub(super) fn node(left: &Digest, right: &Digest) -> Digest {
    hash(&[&[1], left, right])
}

/// The root above a leaf: `siblings` from its own up.
pub(super) fn root_above(position: &Position, leaf: Digest, siblings: &[Digest; DEPTH]) -> Digest {
    let bits = position.iter().rev().flat_map(|byte| (0..8).map(move |bit| (byte >> bit) & 1));
    siblings.iter().zip(bits).fold(leaf, |below, (sibling, bit)| match bit {
        0 => node(&below, sibling),
        _ => node(sibling, &below),
    })
}

/// What keys the tree of one certificate.
#[derive(Debug)]
pub(super) struct Salt(hmac::Key);

impl Salt {
    pub(super) fn new(salt: &[u8; 32]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, salt))
    }

    fn tag<const N: usize>(&self, pieces: &[&[u8]]) -> [u8; N] {
        let mut context = hmac::Context::with_key(&self.0);
        for piece in pieces {
            context.update(piece);
        }
        let mut tag = [0; N];
        for (byte, found) in tag.iter_mut().zip(context.sign().as_ref()) {
            *byte = *found;
        }
        tag
    }

    pub(super) fn position(&self, customer: &str) -> Position {
        self.tag(&[b"tidemark/position/1", customer.as_bytes()])
    }

    /// The root over all leaves.
    pub(super) fn root(&self, leaves: &mut [(Position, Digest)]) -> Result<Digest, Refusal> {
        leaves.sort_unstable();
        let mut pairs = leaves.iter().zip(leaves.iter().skip(1));
        let clash = pairs.any(|(one, next)| one.0 == next.0);
        super::ensure(!clash, "the usage tree", || "two customers have one position".to_owned())?;
        Ok(self.subtree(0, [0; 6], leaves))
    }

    /// The node above ascending leaves that all begin with the first `depth` bits of `prefix`.
    fn subtree(&self, depth: u8, prefix: Position, leaves: &[(Position, Digest)]) -> Digest {
        match leaves {
            [] => self.tag(&[b"tidemark/empty/1", &[depth], &prefix]),
            [(_, leaf)] if usize::from(depth) == DEPTH => *leaf,
            _ => {
                let bit = |position: &Position| {
                    let byte = position.get(usize::from(depth >> 3)).copied().unwrap_or(0);
                    byte & (0x80 >> (depth & 7))
                };
                let (left, right) = leaves.split_at(leaves.partition_point(|(at, _)| bit(at) == 0));
                let mut ones = prefix;
                if let Some(byte) = ones.get_mut(usize::from(depth >> 3)) {
                    *byte |= 0x80 >> (depth & 7);
                }
                let below = depth.saturating_add(1);
                node(&self.subtree(below, prefix, left), &self.subtree(below, ones, right))
            }
        }
    }
}

/// The root of RFC 6962, section 2.1, over leaves that are hashed already.
pub(super) fn merkle_root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => hash(&[]),
        [leaf] => *leaf,
        _ => {
            // The largest power of two below their number.
            let left = leaves.len().div_ceil(2).next_power_of_two();
            let (left, right) = leaves.split_at(left);
            node(&merkle_root(left), &merkle_root(right))
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemark_common::hex;

    use super::*;

    #[test]
    fn the_left_part_is_the_largest_power_of_two() {
        let leaves: Vec<Digest> = (0..7).map(|byte| [byte; 32]).collect();
        let [a, b, c, d, e, f, g] = leaves.clone().try_into().unwrap();
        let left = node(&node(&a, &b), &node(&c, &d));
        assert_eq!(merkle_root(&leaves), node(&left, &node(&node(&e, &f), &g)));
        assert_eq!(merkle_root(&leaves[..5]), node(&left, &e));
        assert_eq!(merkle_root(&leaves[..2]), node(&a, &b));
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(&merkle_root(&[])), nothing);
    }

    #[test]
    fn a_path_leads_to_the_same_root_as_the_whole_tree() {
        let salt = Salt::new(&[3; 32]);
        let mut leaves: Vec<(Position, Digest)> =
            ["a", "b", "c"].map(|name| (salt.position(name), [7; 32])).to_vec();
        let root = salt.root(&mut leaves).unwrap();
        // From below: each subtree on the way without the leaf's own half.
        let (position, leaf) = leaves[1];
        let mut siblings = [[0; 32]; DEPTH];
        for (above, sibling) in siblings.iter_mut().enumerate() {
            let depth = DEPTH - above;
            let mut other = position;
            other[(depth - 1) / 8] ^= 0x80 >> ((depth - 1) % 8);
            let keeps = |at: &Position| {
                (0..depth).all(|bit| (at[bit / 8] ^ other[bit / 8]) & (0x80 >> (bit % 8)) == 0)
            };
            let below: Vec<_> = leaves.iter().filter(|(at, _)| keeps(at)).copied().collect();
            for bit in depth..DEPTH {
                other[bit / 8] &= !(0x80 >> (bit % 8));
            }
            *sibling = salt.subtree(u8::try_from(depth).unwrap(), other, &below);
        }
        assert_eq!(root_above(&position, leaf, &siblings), root);
        assert!(salt.root(&mut [leaves[0], leaves[0]]).is_err());
    }
}
