//! How much of a door one identity, or one address, holds.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;

/// Places by who holds them. Bounded by the places that there are: whoever holds none is not kept.
#[derive(Debug)]
pub(crate) struct Holders<K: Eq + Hash> {
    /// At most this many for each.
    most: u32,
    held: Mutex<HashMap<K, u32>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'h, K: Eq + Hash> {
    holders: &'h Holders<K>,
    key: K,
}

impl<K: Eq + Hash + Clone> Holders<K> {
    pub(crate) fn new(most: u32) -> Self {
        Self { most, held: Mutex::default() }
    }

    /// A place for `key`; `None` if it holds as many as it may.
    pub(crate) fn enter(&self, key: K) -> Option<Place<'_, K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&key).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        held.insert(key.clone(), count.saturating_add(1));
        Some(Place { holders: self, key })
    }
}

impl<K: Eq + Hash> Drop for Place<'_, K> {
    fn drop(&mut self) {
        let mut held = self.holders.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.key) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            Some(_) | None => drop(held.remove(&self.key)),
        }
    }
}

/// What counts as one address: of IPv6 the first 64 bits, as one machine may have all the rest.
pub(crate) fn one_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holds_its_own_places_and_nothing_is_kept_of_those_that_left() {
        let holders = Holders::new(2);
        let first = holders.enter("a").unwrap();
        let second = holders.enter("a").unwrap();
        assert!(holders.enter("a").is_none());
        let other = holders.enter("b").unwrap();
        drop(first);
        drop(holders.enter("a").unwrap());
        drop((second, other));
        assert!(holders.held.lock().unwrap().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let check = |address: &str, expected: &str| {
            let one = one_address(address.parse().unwrap());
            assert_eq!(one, expected.parse::<IpAddr>().unwrap(), "{address}");
        };
        check("10.0.0.1", "10.0.0.1");
        check("::ffff:10.0.0.1", "10.0.0.1");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
    }
}
