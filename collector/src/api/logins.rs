//! Failed logins: how many an address may have before its tokens are not looked at any more.
//!
//! **Owns** the judgement, in bounded memory. **Does not own** comparing tokens (`auth.rs`), or time: it is
//! given, by the monotonic clock. Ledger time may stand still for a day.
//!
//! While an address, or all together, had more failures than they may, a token passes only if it has passed
//! from that address before: so guesses are limited, and whoever shares the address (behind a proxy all do)
//! and is known by it reads on. A right token that is not known yet is refused meanwhile as a wrong one is.
//!
//! Limits: [`ADDRESS_FAILURES_MAX`] and [`ALL_FAILURES_MAX`] a minute; [`ADDRESSES_MAX`] are remembered, of
//! more the one that was heard of longest ago is forgotten.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;

/// Failures of one address in a minute.
const ADDRESS_FAILURES_MAX: u32 = 60;
/// Failures of all addresses in a minute.
const ALL_FAILURES_MAX: u32 = 600;
const ADDRESSES_MAX: usize = 4_096;
const MINUTE: Duration = Duration::from_secs(60);

/// What is remembered of logins.
#[derive(Debug, Default)]
pub(super) struct Logins {
    addresses: HashMap<IpAddr, Address>,
    all: Failures,
}

#[derive(Debug, Default)]
struct Address {
    failures: Failures,
    /// The tokens that passed from here, by their number.
    passed: BTreeSet<usize>,
    heard: Duration,
}

/// Each failure takes its share of a minute, behind the ones before it: up to when they reach.
#[derive(Debug, Clone, Copy, Default)]
struct Failures(Duration);

/// What becomes of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    Admitted,
    Refused,
    /// Refused, and the last failure that the address may have for now.
    LastRefused,
    /// There were too many failures; the token does not matter.
    TooMany,
}

impl Logins {
    /// Judges a login from `address` with the token of this number; `None` if it is none of ours.
    pub(super) fn judge(&mut self, address: IpAddr, token: Option<usize>, now: Duration) -> Login {
        if !self.addresses.contains_key(&address) {
            self.make_room(now);
        }
        let limited = self.all.are_too_many(ALL_FAILURES_MAX, now);
        let held = self.addresses.entry(address).or_default();
        held.heard = now;
        let limited = limited || held.failures.are_too_many(ADDRESS_FAILURES_MAX, now);
        match token {
            Some(token) if held.passed.contains(&token) => Login::Admitted,
            Some(_) | None if limited => Login::TooMany,
            Some(token) => {
                held.passed.insert(token);
                Login::Admitted
            }
            None => {
                held.failures.add(ADDRESS_FAILURES_MAX, now);
                self.all.add(ALL_FAILURES_MAX, now);
                if held.failures.are_too_many(ADDRESS_FAILURES_MAX, now) {
                    Login::LastRefused
                } else {
                    Login::Refused
                }
            }
        }
    }

    fn make_room(&mut self, now: Duration) {
        if self.addresses.len() < ADDRESSES_MAX {
            return;
        }
        self.addresses.retain(|_, held| !held.passed.is_empty() || held.failures.0 > now);
        if self.addresses.len() < ADDRESSES_MAX {
            return;
        }
        let oldest = self.addresses.iter().min_by_key(|(_, held)| held.heard);
        if let Some(address) = oldest.map(|(address, _)| *address) {
            self.addresses.remove(&address);
        }
    }
}

impl Failures {
    /// Whether one more would reach beyond a minute from now.
    fn are_too_many(self, most: u32, now: Duration) -> bool {
        self.after_one_more(most, now).saturating_sub(now) > MINUTE
    }

    fn add(&mut self, most: u32, now: Duration) {
        *self = Self(self.after_one_more(most, now));
    }

    fn after_one_more(self, most: u32, now: Duration) -> Duration {
        let share = MINUTE.checked_div(most).unwrap_or(MINUTE);
        self.0.max(now).saturating_add(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn fail(logins: &mut Logins, from: u32, times: usize, at: Duration) -> Login {
        (0..times).map(|_| logins.judge(address(from), None, at)).last().unwrap()
    }

    #[test]
    fn an_address_guesses_only_so_often_and_known_tokens_pass() {
        let mut logins = Logins::default();
        assert_eq!(logins.judge(address(1), Some(7), NOW), Login::Admitted);
        assert_eq!(fail(&mut logins, 1, 59, NOW), Login::Refused);
        assert_eq!(fail(&mut logins, 1, 1, NOW), Login::LastRefused);
        assert_eq!(fail(&mut logins, 1, 1, NOW), Login::TooMany);
        assert_eq!(logins.judge(address(1), Some(8), NOW), Login::TooMany, "a lucky guess");
        assert_eq!(logins.judge(address(1), Some(7), NOW), Login::Admitted, "known from here");
        assert_eq!(logins.judge(address(2), Some(8), NOW), Login::Admitted, "another address");
        let second_later = NOW + Duration::from_secs(1);
        assert_eq!(fail(&mut logins, 1, 1, second_later), Login::LastRefused);
        let minute_later = NOW + Duration::from_secs(61);
        assert_eq!(logins.judge(address(1), Some(8), minute_later), Login::Admitted);
    }

    #[test]
    fn many_addresses_guess_no_more_together() {
        let mut logins = Logins::default();
        assert_eq!(logins.judge(address(0), Some(1), NOW), Login::Admitted);
        for number in 1..=600 {
            assert_eq!(fail(&mut logins, number, 1, NOW), Login::Refused, "{number}");
        }
        assert_eq!(fail(&mut logins, 601, 1, NOW), Login::TooMany);
        assert_eq!(logins.judge(address(0), Some(1), NOW), Login::Admitted);
    }

    #[test]
    fn memory_is_bounded() {
        let mut logins = Logins::default();
        for number in 0..10_000 {
            logins.judge(address(number), Some(1), NOW + Duration::from_millis(number.into()));
        }
        assert_eq!(logins.addresses.len(), ADDRESSES_MAX);
        assert!(logins.addresses.contains_key(&address(9_999)), "the newest is kept");
    }
}
