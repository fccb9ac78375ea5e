//! The tree over a batch's lines: RFC 6962, with salted leaves.
//!
//! ```text
//! salt(i)  first 16 bytes of HMAC-SHA256(salt, "tidemark/salt/1" + i u32)
//! leaf(i)  H(0x00 + salt(i) + i u32 + line)      node  H(0x01 + left + right)      empty  H("")
//! ```
//!
//! The left part of a node is the largest power of two below the number of its leaves; nothing is
//! duplicated. A proof of line i shows salt(i), i, the line, the number of lines and one digest per
//! level: salts keep a reader from guessing the lines that hide behind those digests.
//!
//! **Owns** leaves, roots, paths. **Does not own** the bytes of a line.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::id::Digest;

/// Derives each line's salt from the batch's.
#[derive(Debug, Clone)]
pub struct Salts(Hmac<Sha256>);

impl Salts {
    #[must_use]
    pub fn new(salt: &[u8; 32]) -> Self {
        let mut mac = super::hmac(salt);
        mac.update(b"tidemark/salt/1");
        Self(mac)
    }

    /// The salt of line `index`.
    #[must_use]
    pub fn of(&self, index: u32) -> [u8; 16] {
        let mut mac = self.0.clone();
        mac.update(&index.to_be_bytes());
        super::first_half(mac)
    }
}

/// The leaf of line `index`.
#[must_use]
pub fn leaf(salt: &[u8; 16], index: u32, line: &[u8]) -> Digest {
    super::sha256(&[0], &[salt, &index.to_be_bytes(), line])
}

/// The node over two others.
#[must_use]
pub fn node(left: &Digest, right: &Digest) -> Digest {
    super::sha256(&[1], &[&left.0, &right.0])
}

/// The root over leaves that come one by one. Holds one digest per level.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    leaves: u32,
    /// Roots of whole subtrees, widest first: one for each bit that is set in `leaves`.
    whole: Vec<Digest>,
}

impl Tree {
    /// # Panics
    /// Beyond 2^32 - 1 leaves, which no body has bytes for.
    pub fn push(&mut self, leaf: Digest) {
        let mut digest = leaf;
        for _ in 0..self.leaves.trailing_ones() {
            let left = self.whole.pop().expect("each set bit has its subtree");
            digest = node(&left, &digest);
        }
        self.whole.push(digest);
        self.leaves = self.leaves.checked_add(1).expect("a body has no bytes for 2^32 lines");
    }

    #[must_use]
    pub fn leaves(&self) -> u32 {
        self.leaves
    }

    /// The root over all leaves so far.
    #[must_use]
    pub fn root(&self) -> Digest {
        let Some((last, wider)) = self.whole.split_last() else {
            return super::sha256(b"", &[]);
        };
        wider.iter().rev().fold(*last, |right, left| node(left, &right))
    }
}

/// The digests that prove leaf `index`, from the leaf's sibling upwards; `None` if there is no such leaf.
#[must_use]
pub fn path(leaves: &[Digest], index: u32) -> Option<Vec<Digest>> {
    let mut index = usize::try_from(index).ok()?;
    let mut part = leaves;
    if index >= part.len() {
        return None;
    }
    let mut path = Vec::new();
    while part.len() > 1 {
        let (left, right) = part.split_at(left_width(part.len()));
        // `index` stays within the part that is kept, so the subtraction holds.
        let (kept, other) = match index.checked_sub(left.len()) {
            None => (left, right),
            Some(in_right) => {
                index = in_right;
                (right, left)
            }
        };
        path.push(root_of(other));
        part = kept;
    }
    path.reverse();
    Some(path)
}

/// Whether `path` proves that `leaf` stands at `index` of `leaves` leaves under `root`.
#[must_use]
pub fn verify(leaf: &Digest, index: u32, leaves: u32, path: &[Digest], root: &Digest) -> bool {
    if index >= leaves {
        return false;
    }
    // RFC 9162, 2.1.3.2: `at` and `last` are the places of this node and of the last one in their level.
    let (mut at, mut last) = (index, leaves.saturating_sub(1));
    let mut digest = *leaf;
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            digest = node(sibling, &digest);
            // A last node without a sibling rises unchanged until it is a right one.
            while at % 2 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            digest = node(&digest, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && digest == *root
}

/// The largest power of two below `leaves`, which are two or more.
fn left_width(leaves: usize) -> usize {
    leaves.next_power_of_two() >> 1
}

fn root_of(leaves: &[Digest]) -> Digest {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree.root()
}

#[cfg(test)]
mod tests;
