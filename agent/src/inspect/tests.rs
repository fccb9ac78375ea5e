//! The texts for people.

use super::*;
use crate::fsck::{Damage, Fsck, Pages};

#[test]
fn an_inspection_for_people() {
    let inspection = Inspection {
        format: Some(1),
        stream: Some("aa".to_owned()),
        accepted: 1_234,
        openings: vec![Opening { opening: "bb".to_owned(), first_event: 5, end_event: 9 }],
        dead_letters: [("sampled".to_owned(), 2)].into(),
        conflict: Some(Conflict { time: "T".to_owned(), reason: "cloned".to_owned() }),
        damages: 1,
        room: Room { file_bytes: 4_096, live_bytes: 1_024, ..Room::default() },
        ..Inspection::default()
    };
    let text = inspection.text();
    for line in [
        "CONFLICT      since T: cloned",
        "DAMAGED       1 thing is wrong; `tidemark-agent fsck` names them",
        "stream        aa",
        "ledger        none yet: no collector has answered",
        "accepted      1,234 events",
        "openings held bb: events 5 to 9",
        "              sampled 2",
        "room          the file has 4.0 KiB, its rows need 1.0 KiB",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let json = serde_json::to_string(&inspection).unwrap();
    assert_eq!(serde_json::from_str::<Inspection>(&json).unwrap(), inspection);
}

#[test]
fn a_check_for_people() {
    let mut fsck = Fsck::of_damaged_pages("page 7 has rotted");
    assert!(fsck.text().contains("DAMAGED: 1 thing is wrong"), "{}", fsck.text());
    assert!(fsck.text().contains("\npages: page 7 has rotted\n    The agent's"), "{}", fsck.text());
    fsck =
        Fsck { sound: true, pages: Pages::CheckedAtStart, damages: Vec::<Damage>::new(), ..fsck };
    assert!(fsck.text().starts_with("journal       sound\n"), "{}", fsck.text());
}

#[test]
fn a_batch_that_cannot_be_read_says_why() {
    let shown = batch::BatchShown::of(&[0; 192]);
    assert!(shown.problem.as_deref().is_some_and(|problem| problem.contains("TMBH")), "{shown:?}");
    assert!(shown.text().starts_with("DAMAGED"));
}
