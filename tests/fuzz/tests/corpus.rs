//! Replays each target's corpus, and what was once found, as ordinary tests.

use std::fs;
use std::path::Path;

use tidemark_fuzz::{catalogue, cloud_events, decimals, dogstatsd, frames, json_lines};

fn replay(target: &str, check: fn(&[u8])) {
    let mut replayed = 0;
    for kind in ["corpus", "findings"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target);
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            check(&fs::read(path).unwrap());
            replayed += 1;
        }
    }
    assert!(replayed > 0, "{target} has no corpus");
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
}
