//! The tree against RFC 6962's recursive definition, written down word for word.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of a test are its own")]

use proptest::prelude::*;

use super::*;

/// RFC 6962, 2.1: MTH.
fn naive_root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => super::super::sha256(b"", &[]),
        [only] => *only,
        more => {
            let (left, right) = more.split_at(naive_split(more.len()));
            node(&naive_root(left), &naive_root(right))
        }
    }
}

/// RFC 6962, 2.1.1: PATH.
fn naive_path(leaves: &[Digest], index: usize) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let split = naive_split(leaves.len());
    let (left, right) = leaves.split_at(split);
    let (mut path, other) = match index < split {
        true => (naive_path(left, index), right),
        false => (naive_path(right, index - split), left),
    };
    path.push(naive_root(other));
    path
}

fn naive_split(leaves: usize) -> usize {
    let mut split = 1;
    while split * 2 < leaves {
        split *= 2;
    }
    split
}

fn leaves(count: u32) -> Vec<Digest> {
    (0..count).map(|index| leaf(&[7; 16], index, b"a line")).collect()
}

fn root(leaves: &[Digest]) -> Digest {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree.root()
}

#[test]
fn every_leaf_of_every_small_tree_is_proved_and_nothing_else() {
    for count in 0..40 {
        let leaves = leaves(count);
        let root = root(&leaves);
        assert_eq!(root, naive_root(&leaves), "{count} leaves");
        for index in 0..count {
            let at = index as usize;
            let path = path(&leaves, index).unwrap();
            assert_eq!(path, naive_path(&leaves, at), "{index} of {count}");
            assert!(verify(&leaves[at], index, count, &path, &root), "{index} of {count}");
            for other in (0..count).filter(|other| *other != index) {
                assert!(
                    !verify(&leaves[at], other, count, &path, &root),
                    "{index} as {other} of {count}"
                );
                assert!(
                    !verify(&leaves[other as usize], index, count, &path, &root),
                    "{other} for {index}"
                );
            }
        }
        assert_eq!(path(&leaves, count), None);
    }
}

#[test]
fn a_path_of_another_length_proves_nothing() {
    let leaves = leaves(11);
    let root = root(&leaves);
    for index in 0..11 {
        let mut path = path(&leaves, index).unwrap();
        let leaf = &leaves[index as usize];
        assert!(
            !verify(leaf, index, 11, &path[1..], &root),
            "{index}: its first digest is missing"
        );
        assert!(
            !verify(leaf, index, 11, &path[..path.len() - 1], &root),
            "{index}: its last digest is missing"
        );
        path.push(root);
        assert!(!verify(leaf, index, 11, &path, &root), "{index}: one digest more");
    }
    assert!(!verify(&leaves[0], 0, 0, &[], &leaves[0]));
}

#[test]
fn salts_and_places_are_in_the_leaves() {
    let salts = [Salts::new(&[1; 32]), Salts::new(&[2; 32])];
    assert_ne!(salts[0].of(0), salts[0].of(1));
    assert_ne!(salts[0].of(0), salts[1].of(0));
    assert_ne!(leaf(&[1; 16], 0, b"x"), leaf(&[2; 16], 0, b"x"));
    assert_ne!(leaf(&[1; 16], 0, b"x"), leaf(&[1; 16], 1, b"x"));
}

proptest! {
    #[test]
    fn large_trees(count in 40_u32..3_000, at in any::<prop::sample::Index>(), broken in any::<prop::sample::Index>()) {
        let leaves = leaves(count);
        let root = root(&leaves);
        prop_assert_eq!(root, naive_root(&leaves));
        let index = at.index(leaves.len());
        let number = u32::try_from(index).unwrap();
        let mut path = path(&leaves, number).unwrap();
        prop_assert_eq!(&path, &naive_path(&leaves, index));
        prop_assert!(verify(&leaves[index], number, count, &path, &root));
        let broken = broken.index(path.len());
        path[broken].0[31] ^= 1;
        prop_assert!(!verify(&leaves[index], number, count, &path, &root));
    }

    #[test]
    fn any_claim_is_judged_without_panic(
        index in any::<u32>(),
        leaves in any::<u32>(),
        path in prop::collection::vec(any::<[u8; 32]>().prop_map(Digest), 0..40),
    ) {
        prop_assert!(!verify(&Digest([1; 32]), index, leaves, &path, &Digest([2; 32])));
    }
}
