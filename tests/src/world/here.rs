//! The clocks and random numbers that a simulated process reads: those of the host it runs on.
//!
//! **Owns** what `Machine` and `TimeSource` show while a process is stepped. The product reads them through
//! plain functions, so they stand in the thread that steps the world.

use std::cell::{Cell, RefCell};

use tidemark_agent::Machine;
use tidemark_collector::ledger::TimeSource;
use tidemark_collector::ledger::clock::Reading;
use tidemark_common::time::Timestamp;

use crate::random::Random;

thread_local! {
    static CLOCKS: Cell<Clocks> = const { Cell::new(Clocks { wall: Timestamp(0), ticks: 0 }) };
    static RANDOM: RefCell<Random> = RefCell::new(Random::new(0));
}

/// What the clocks of one host show.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    pub wall: Timestamp,
    /// Milliseconds that no step moves.
    pub ticks: u64,
}

/// From now on the thread runs on a host with these clocks.
pub fn enter(clocks: Clocks) {
    CLOCKS.set(clocks);
}

/// From now on random bytes come from here.
pub fn seed(random: Random) {
    RANDOM.replace(random);
}

/// Random bytes, as the product draws them.
///
/// # Errors
/// Never; the product's own source may fail.
pub fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    RANDOM.with_borrow_mut(|random| {
        for chunk in bytes.chunks_mut(8) {
            let drawn = random.next_u64().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    });
    Ok(())
}

/// Sixteen random bytes, for ids.
#[must_use]
pub fn nonce() -> [u8; 16] {
    let mut bytes = [0; 16];
    fill(&mut bytes).expect("the world's random numbers never run out");
    bytes
}

/// The wall clock of the host.
#[must_use]
pub fn wall() -> Timestamp {
    CLOCKS.get().wall
}

fn ticks() -> u64 {
    CLOCKS.get().ticks
}

/// For the agent.
#[must_use]
pub fn machine() -> Machine {
    Machine { wall, ticks, fill }
}

/// For the ledger.
#[must_use]
pub fn time_source() -> TimeSource {
    TimeSource::new(|| Reading { wall: wall(), monotonic_micros: ticks() * 1_000 })
}
