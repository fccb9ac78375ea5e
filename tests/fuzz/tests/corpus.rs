//! Replays each target's corpus, and what was once found, as ordinary tests; each input also damaged at random,
//! which reaches less than libFuzzer does, but needs nothing.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "all of this is a test; its helpers are not marked as one"
)]

use std::fs;
use std::path::Path;

use tidemark_fuzz::{
    batches, catalogue, cloud_events, decimals, dogstatsd, frames, journal_rows, json_lines,
};

/// Damaged copies of each input.
const DAMAGED: u64 = 300;
/// Printed with each failure; another finds others.
const SEED: u64 = 1;

fn replay(target: &str, check: fn(&[u8])) {
    let mut replayed = 0;
    for kind in ["corpus", "findings"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target);
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            let input = fs::read(path).unwrap();
            check(&input);
            for seed in (0..DAMAGED).map(|nth| SEED * 1_000_000 + nth) {
                let damaged = damage(&input, seed);
                println!("seed {seed}: {:?}", String::from_utf8_lossy(&damaged));
                check(&damaged);
            }
            replayed += 1;
        }
    }
    assert!(replayed > 0, "{target} has no corpus");
}

/// The input with one to four edits: bytes changed, removed, doubled, or moved.
fn damage(input: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let start = random.below(bytes.len());
        let end = start + random.below(bytes.len() - start + 1).min(8);
        let part: Vec<u8> = bytes[start..end].to_vec();
        match random.below(5) {
            0 if !bytes.is_empty() => bytes[start] = random.next().to_le_bytes()[0],
            1 if !bytes.is_empty() => bytes[start] ^= 1 << random.below(8),
            2 => drop(bytes.drain(start..end)),
            _ => {
                let at = random.below(bytes.len() + 1);
                drop(bytes.splice(at..at, part));
            }
        }
    }
    bytes
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap().checked_rem(end).unwrap_or(0)
    }
}

/// One test, since memory is counted for the whole process.
#[test]
fn corpora_and_findings_hold() {
    replay("frames", frames::check);
    replay("decimals", decimals::check);
    replay("dogstatsd", dogstatsd::check);
    replay("json_lines", json_lines::check);
    replay("cloud_events", cloud_events::check);
    replay("catalogue", catalogue::check);
    replay("batches", batches::check);
    replay("journal_rows", journal_rows::check);
}
