//! When the collector is pressed, and for how long an agent is asked to pause.
//!
//! Pressure reaches agents by itself: their frames wait in the transports. But then every session holds a
//! full window in the collector's memory, and agents seal small batches into it. A Throttle leaves the
//! backlog where it is cheap: on the agents' disks, summed up.
//!
//! **Owns** the thresholds and the pauses. **Does not own** the figures, the clock, or random numbers.

/// A ledger whose writer lets a request wait for longer is pressed.
const WAITED_MILLIS_MAX: u64 = 1_000;
/// Pressed, if less than this part of a room is free.
const FREE_PART: u64 = 8;
/// A session is asked to pause for at most this long at first, and twice as long each time after that, up to
/// half of what an agent grants.
const PAUSE_MILLIS_FIRST: u32 = 500;
const PAUSE_MILLIS_MAX: u32 = 16_000;

/// What one session sees of the collector as a batch comes in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pressure {
    /// What is not folded yet, and how much of that may be.
    pub(super) tail_bytes: u64,
    pub(super) tail_bytes_max: u64,
    /// Room for batches that wait for their commit: what there is, what is free, and what this one needs.
    pub(super) room_bytes_max: u64,
    pub(super) room_bytes_free: u64,
    pub(super) room_bytes_needed: u64,
    /// How long the session's oldest request has waited.
    pub(super) waited_millis: u64,
}

impl Pressure {
    pub(super) fn is_high(&self) -> bool {
        let part = |whole: u64| whole.checked_div(FREE_PART).unwrap_or(0);
        let tail_free = self.tail_bytes_max.saturating_sub(self.tail_bytes);
        tail_free < part(self.tail_bytes_max).max(1)
            || self.room_bytes_free < part(self.room_bytes_max).max(self.room_bytes_needed)
            || self.waited_millis >= WAITED_MILLIS_MAX
    }
}

/// What a session was asked for.
#[derive(Debug, Default)]
pub(super) struct Throttling {
    /// Pauses in a row.
    pauses: u32,
    /// Until then, what still comes was sent before the agent heard of the pause.
    until_millis: u64,
}

impl Throttling {
    /// How long the agent is asked to pause, if at all, as a batch comes in so long after the session began.
    /// `random` is uniform over its range.
    pub(super) fn pause_millis(
        &mut self,
        pressure: &Pressure,
        now_millis: u64,
        random: u32,
    ) -> Option<u32> {
        if now_millis < self.until_millis {
            return None;
        }
        if !pressure.is_high() {
            self.pauses = 0;
            return None;
        }
        let doubled = PAUSE_MILLIS_FIRST.saturating_mul(1 << self.pauses.min(16));
        self.pauses = self.pauses.saturating_add(1);
        let most = doubled.min(PAUSE_MILLIS_MAX);
        let half = most / 2;
        let spread = half.checked_add(1).and_then(|values| random.checked_rem(values)).unwrap_or(0);
        let pause = most.saturating_sub(spread);
        self.until_millis = now_millis.saturating_add(pause.into());
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Pressure = Pressure {
        tail_bytes: 700,
        tail_bytes_max: 1_000,
        room_bytes_max: 800,
        room_bytes_free: 400,
        room_bytes_needed: 100,
        waited_millis: 20,
    };

    #[test]
    fn what_presses() {
        let check =
            |pressure: Pressure, expected| assert_eq!(pressure.is_high(), expected, "{pressure:?}");
        check(CALM, false);
        check(Pressure { tail_bytes: 875, ..CALM }, false);
        check(Pressure { tail_bytes: 876, ..CALM }, true);
        check(Pressure { tail_bytes: 0, tail_bytes_max: 0, ..CALM }, true);
        check(Pressure { room_bytes_free: 100, ..CALM }, false);
        check(Pressure { room_bytes_free: 99, ..CALM }, true);
        // A batch that needs all the room there is may wait for it; others need not pile up behind.
        check(Pressure { room_bytes_needed: 401, ..CALM }, true);
        check(Pressure { waited_millis: WAITED_MILLIS_MAX, ..CALM }, true);
    }

    #[test]
    fn pauses_grow_while_the_pressure_lasts() {
        let mut throttling = Throttling::default();
        let pressed = Pressure { waited_millis: WAITED_MILLIS_MAX, ..CALM };
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let pause = throttling.pause_millis(&pressed, now, 0).unwrap();
            // What was on its way is no reason to ask again.
            assert_eq!(throttling.pause_millis(&pressed, now, 0), None);
            now += u64::from(pause);
            pauses.push(pause);
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 16_000]);
        assert_eq!(throttling.pause_millis(&CALM, now, 0), None);
        assert_eq!(throttling.pause_millis(&pressed, now, 250), Some(250));
        assert_eq!(throttling.pause_millis(&pressed, now + 1_000, 251), Some(749));
    }
}
