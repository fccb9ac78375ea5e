//! The tree over all customers' usage: binary, 48 deep, and the same to look at whatever it holds.
//!
//! ```text
//! position  first 6 bytes of HMAC(salt, "tidemark/position/1" + customer)
//! leaf      H(0x00 + position + customer's digest)        node   H(0x01 + left + right)
//! empty     HMAC(salt, "tidemark/empty/1" + depth u8 + prefix [6])
//! ```
//! **Owns** positions, the root, and paths. **Does not own** a customer's digest (`usage.rs`).
//!
//! Invariant: a path has [`DEPTH`] siblings and tells nothing of how many customers there are. Memory: a leaf for each
//! customer, and a node for each subtree of two or more, about as many again.

use hashbrown::HashMap;
use ring::hmac;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use tidemark_common::id::CustomerId;

/// How deep the tree is.
pub const DEPTH: u8 = 48;
/// The bits of a position, in a `u64`: its lowest 48.
const POSITION_MASK: u64 = (1 << DEPTH) - 1;

/// A node's digest.
pub type Node = [u8; 32];

/// Keyed by a certificate's salt: where customers stand, and how nothing looks.
#[derive(Debug, Clone)]
pub struct Keyed(hmac::Key);

impl Keyed {
    #[must_use]
    pub fn new(salt: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, salt))
    }

    #[must_use]
    pub fn position(&self, customer: &CustomerId) -> u64 {
        let text = [b"tidemark/position/1", customer.as_str().as_bytes()].concat();
        let tag = hmac::sign(&self.0, &text);
        let first = tag.as_ref().iter().take(6);
        first.fold(0, |position, byte| (position << 8) | u64::from(*byte))
    }

    /// A subtree at `depth` without leaves; of `prefix` only the first `depth` bits count.
    fn empty(&self, depth: u8, prefix: u64) -> Node {
        let mut text = b"tidemark/empty/1".to_vec();
        text.push(depth);
        text.extend_from_slice(&bytes(prefix));
        let mut node = [0; 32];
        node.copy_from_slice(hmac::sign(&self.0, &text).as_ref());
        node
    }
}

/// Two customers have one position: another salt is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("two customers have one position")]
pub struct Collision;

/// The whole tree.
#[derive(Debug)]
pub struct UsageTree {
    keyed: Keyed,
    /// Positions and leaves, ascending.
    leaves: Vec<(u64, Node)>,
    /// Subtrees of two leaves and more, by depth and prefix.
    shared: HashMap<(u8, u64), Node>,
    root: Node,
}

impl UsageTree {
    /// The tree of customers at their positions, with their digests.
    ///
    /// # Errors
    /// If two have one position.
    pub fn new(keyed: Keyed, customers: Vec<(u64, Node)>) -> Result<Self, Collision> {
        let mut leaves = customers;
        for (position, digest) in &mut leaves {
            *digest = leaf(*position, digest);
        }
        leaves.sort_unstable();
        if leaves.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err(Collision);
        }
        let mut tree = Self { keyed, leaves, shared: HashMap::new(), root: [0; 32] };
        let mut shared = HashMap::new();
        tree.root = tree.build(0, 0, &tree.leaves, &mut shared);
        tree.shared = shared;
        Ok(tree)
    }

    #[must_use]
    pub fn root(&self) -> Node {
        self.root
    }

    /// The siblings of what stands at `position`, from the deepest up.
    #[must_use]
    pub fn path(&self, position: u64) -> Vec<Node> {
        (1..=DEPTH).rev().map(|depth| self.at(depth, sibling(depth, position))).collect()
    }

    /// The node at `depth` whose leaves begin with `prefix`.
    fn at(&self, depth: u8, prefix: u64) -> Node {
        if let Some(node) = self.shared.get(&(depth, prefix)) {
            return *node;
        }
        let first = self.leaves.partition_point(|(position, _)| *position < prefix);
        match self.leaves.get(first) {
            Some((position, leaf)) if cut(depth, *position) == prefix => {
                self.lifted(depth, *position, *leaf)
            }
            _ => self.keyed.empty(depth, prefix),
        }
    }

    fn build(
        &self,
        depth: u8,
        prefix: u64,
        leaves: &[(u64, Node)],
        shared: &mut HashMap<(u8, u64), Node>,
    ) -> Node {
        match leaves {
            [] => self.keyed.empty(depth, prefix),
            [(position, leaf)] => self.lifted(depth, *position, *leaf),
            _ => {
                let below = depth.saturating_add(1);
                let right = prefix | bit(below);
                let (lower, upper) =
                    leaves.split_at(leaves.partition_point(|(position, _)| *position < right));
                let left = self.build(below, prefix, lower, shared);
                let node = node(&left, &self.build(below, right, upper, shared));
                shared.insert((depth, prefix), node);
                node
            }
        }
    }

    /// The node at `depth` above one leaf that is alone below it.
    fn lifted(&self, depth: u8, position: u64, leaf: Node) -> Node {
        let mut lifted = leaf;
        for below in (depth.saturating_add(1)..=DEPTH).rev() {
            let beside = self.keyed.empty(below, sibling(below, position));
            lifted = join(below, position, &lifted, &beside);
        }
        lifted
    }
}

/// The node over `own`, which leads to `position`, and its sibling; both at `depth`.
#[must_use]
fn join(depth: u8, position: u64, own: &Node, beside: &Node) -> Node {
    if position & bit(depth) == 0 { node(own, beside) } else { node(beside, own) }
}

/// The bit that decides which way goes from above to `depth`: 1 is the highest of a position's 48.
fn bit(depth: u8) -> u64 {
    1_u64.checked_shl(u32::from(DEPTH.saturating_sub(depth))).unwrap_or(0)
}

/// A position's first `depth` bits, the others 0.
fn cut(depth: u8, position: u64) -> u64 {
    let low = bit(depth).saturating_sub(1);
    position & POSITION_MASK & !low
}

/// The prefix beside that of `position` at `depth`.
fn sibling(depth: u8, position: u64) -> u64 {
    cut(depth, position) ^ bit(depth)
}

/// A position as it is written: 6 bytes.
#[must_use]
pub fn bytes(position: u64) -> [u8; 6] {
    let [_, _, bytes @ ..] = position.to_be_bytes();
    bytes
}

fn leaf(position: u64, digest: &Node) -> Node {
    Sha256::new()
        .chain_update([0])
        .chain_update(bytes(position))
        .chain_update(digest)
        .finalize()
        .into()
}

fn node(left: &Node, right: &Node) -> Node {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests {
    use super::*;

    fn keyed() -> Keyed {
        Keyed::new(&[7; 32])
    }

    /// The root by the definition alone: every subtree from its leaves.
    fn slow(keyed: &Keyed, depth: u8, prefix: u64, leaves: &[(u64, Node)]) -> Node {
        let held: Vec<_> = leaves
            .iter()
            .filter(|(position, _)| cut(depth, *position) == prefix)
            .copied()
            .collect();
        match (held.as_slice(), depth) {
            ([], _) => keyed.empty(depth, prefix),
            ([(position, digest)], DEPTH) => leaf(*position, digest),
            _ => node(
                &slow(keyed, depth + 1, prefix, &held),
                &slow(keyed, depth + 1, prefix | bit(depth + 1), &held),
            ),
        }
    }

    fn climbed(position: u64, digest: &Node, path: &[Node]) -> Node {
        let mut own = leaf(position, digest);
        for (depth, beside) in (1..=DEPTH).rev().zip(path) {
            own = join(depth, position, &own, beside);
        }
        own
    }

    #[test]
    fn every_path_leads_to_the_root_that_the_definition_gives() {
        for count in [0_u64, 1, 2, 3, 17] {
            let customers: Vec<(u64, Node)> = (0..count)
                .map(|n| {
                    let id = CustomerId::parse(&format!("customer-{n}")).unwrap();
                    (keyed().position(&id), [u8::try_from(n).unwrap(); 32])
                })
                .collect();
            let tree = UsageTree::new(keyed(), customers.clone()).unwrap();
            assert_eq!(tree.root(), slow(&keyed(), 0, 0, &customers), "{count}");
            for (position, digest) in &customers {
                let path = tree.path(*position);
                assert_eq!(path.len(), usize::from(DEPTH));
                assert_eq!(climbed(*position, digest, &path), tree.root());
                assert_ne!(climbed(*position, &[99; 32], &path), tree.root());
            }
        }
    }

    #[test]
    fn neighbours_to_the_last_bit_have_paths_too() {
        let customers = vec![(0b10, [1; 32]), (0b11, [2; 32]), (POSITION_MASK, [3; 32])];
        let tree = UsageTree::new(keyed(), customers.clone()).unwrap();
        assert_eq!(tree.root(), slow(&keyed(), 0, 0, &customers));
        for (position, digest) in customers {
            assert_eq!(climbed(position, &digest, &tree.path(position)), tree.root());
        }
        assert_eq!(
            UsageTree::new(keyed(), vec![(5, [1; 32]), (5, [2; 32])]).err(),
            Some(Collision)
        );
    }
}
