//! What is made of an export, before any of it is shipped.

mod ids;

use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;
use tidemark_common::id::{Digest, Sequence};
use tidemark_common::time::Timestamp;

use super::*;
use crate::export::{EXPORT_VERSION, EventRow, LineRow};
use crate::journal::{FreshIds, Journal, JournalState};
use crate::life::journal_options;

fn config(folder: &Path) -> Config {
    let text = "[uplink]\ncollectors = [\"localhost:1\"]\nca_pem = \"x\"\ncertificate_pem = \"x\"\nkey_pem = \"x\"\n\
                [journal]\npath = \"journal.redb\"\n";
    Config::read(text, "agent.toml", folder, &[]).unwrap()
}

fn name(nth: u8) -> String {
    OpeningId([nth; 16]).to_string()
}

fn journal() -> Row {
    Row::Journal {
        version: EXPORT_VERSION,
        stream: StreamId([1; 16]).to_string(),
        ledger: Some(LedgerId([9; 16]).to_string()),
        conflict: Some("cloned".to_owned()),
        moved_to: None,
        salt: Some("5a".repeat(32)),
    }
}

fn opening(nth: u8, first_event: u64, end_event: u64, posted_below: Option<u64>) -> Row {
    let opening = name(nth);
    Row::Opening { opening, first_event, end_event, posted_below, unknown: None }
}

fn event_row(nth: u8, event: u64) -> EventRow {
    EventRow {
        opening: name(nth),
        event,
        rules: 1,
        time: "2026-11-26T12:00:00.000Z".to_owned(),
        meter: "calls".to_owned(),
        customer: format!("c{}", event % 3),
        dimensions: BTreeMap::new(),
        quantity: Some("1.5".to_owned()),
        unique: None,
        unique_digest: None,
        unique_key: 1,
        id: None,
        id_number: None,
    }
}

fn event(nth: u8, event: u64) -> Row {
    Row::Event(event_row(nth, event))
}

/// A line of one event each, of a batch of two.
fn line(nth: u8, first_event: u64, customer: &str) -> Row {
    Row::Line(LineRow {
        opening: name(nth),
        sequence: 7,
        first_event,
        end_event: first_event.saturating_add(2),
        rules: 1,
        salt: "07".repeat(32),
        meter: "calls".to_owned(),
        customer: customer.to_owned(),
        dimensions: BTreeMap::new(),
        bucket: "2026-11-26T12:00:00.000Z".to_owned(),
        part: 0,
        events: 1,
        quantity_events: 1,
        unique_events: 0,
        sum: "2".to_owned(),
        min: "2".to_owned(),
        max: "2".to_owned(),
        latest_time: "2026-11-26T12:00:01.000Z".to_owned(),
        latest: "2".to_owned(),
        unique_key: 0,
        uniques: vec![],
        id: None,
        id_key: None,
    })
}

/// Two openings: a batch of two events and two single ones, of which one is posted; and three events.
fn rows() -> Vec<Row> {
    vec![
        journal(),
        opening(1, 10, 14, Some(10)),
        line(1, 10, "a"),
        line(1, 10, "b"),
        event(1, 12),
        event(1, 13),
        opening(2, 14, 17, Some(15)),
        event(2, 14),
        event(2, 15),
        event(2, 16),
        Row::End { events: 7 },
    ]
}

fn write(folder: &Path, rows: &[Row]) -> PathBuf {
    let path = folder.join("rest.jsonl");
    let lines: Vec<_> = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
    fs::write(&path, lines.concat()).unwrap();
    path
}

fn made(folder: &Path, rows: &[Row], told: &Told) -> Result<Vec<Made>, String> {
    make(&write(folder, rows), told, &config(folder)).map_err(|error| error.to_string())
}

fn filled(folder: &Path, rows: &[Row]) -> Vec<Filled> {
    let made = made(folder, rows, &Told::default()).unwrap();
    made.into_iter()
        .map(|made| match made {
            Made::Filled(filled) => filled,
            left @ Made::LeftOut { .. } => panic!("{left:?}"),
        })
        .collect()
}

fn state(folder: &Path, journal: &Path) -> JournalState {
    let fresh = FreshIds { stream: StreamId([0; 16]), opening: OpeningId([8; 16]) };
    let options = journal_options(&config(folder), journal);
    Journal::open_left_behind(options, fresh, Timestamp(0)).unwrap().0.state().clone()
}

/// Sequence, digest and events of each journal.
fn sealed(folder: &Path, filled: &[Filled]) -> Vec<(Sequence, Digest, u64)> {
    let states = filled.iter().map(|filled| state(folder, filled.journal.as_ref().unwrap()));
    states.map(|state| (state.sealed_sequence, state.sealed_digest, state.sealed_events)).collect()
}

#[test]
fn an_export_makes_the_same_batches_everywhere() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let made = filled(here.path(), &rows());
    let counts: Vec<_> =
        made.iter().map(|made| (made.accepted, made.skipped, made.whole)).collect();
    assert_eq!(counts, [(4, 0, 0), (2, 1, 0)]);
    let batches = sealed(here.path(), &made);
    let figures: Vec<_> =
        batches.iter().map(|(sequence, _, events)| (sequence.0, *events)).collect();
    assert_eq!(figures, [(2, 4), (1, 2)], "nothing is left to be sealed later");
    assert_eq!(sealed(there.path(), &filled(there.path(), &rows())), batches);
    // The journals are there: another time makes nothing new.
    assert_eq!(sealed(here.path(), &filled(here.path(), &rows())), batches);
}

#[test]
fn an_export_that_is_not_whole_makes_nothing() {
    let check = |change: fn(&mut Vec<Row>), expected: &str| {
        let folder = TempDir::new().unwrap();
        let mut rows = rows();
        change(&mut rows);
        let refused = made(folder.path(), &rows, &Told::default()).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
    };
    check(|rows| rows.truncate(10), "line 11 of");
    check(|rows| rows.truncate(10), "without the row of its end: it was cut off");
    check(|rows| rows.truncate(9), "it was cut off");
    check(|rows| drop(rows.remove(9)), "ends with event 17, and 16 is due");
    check(|rows| drop(rows.remove(8)), "line 9 of");
    check(|rows| drop(rows.remove(8)), "event 15 is due here, not 16");
    check(|rows| rows.insert(8, event(2, 14)), "event 15 is due here, not 14");
    check(|rows| drop(rows.remove(3)), "the lines of batch 7 before it hold 1 events, not 2");
    check(|rows| drop(rows.drain(2..4)), "event 10 is due here, not 12");
    check(|rows| rows.insert(4, line(1, 10, "c")), "hold 3 events, not 2");
    check(|rows| drop(rows.remove(6)), "it is not below the row of its opening");
    check(|rows| drop(rows.drain(6..10)), "speaks of 7 events, and the rows before it are 4");
    check(|rows| drop(rows.remove(0)), "the row of the journal is not before it");
    check(|rows| rows.insert(6, journal()), "a second export begins");
    check(|rows| rows.push(event(2, 17)), "it is behind the end");
}

/// The rows with a second opening of which the export does not know how far it is posted.
fn rows_unknown(why: Unknown) -> Vec<Row> {
    let mut rows = rows();
    let Row::Opening { posted_below, unknown, .. } = &mut rows[6] else { panic!() };
    (*posted_below, *unknown) = (None, Some(why));
    rows
}

#[test]
fn what_nobody_knows_to_be_unposted_is_left_out() {
    let check = |why: Unknown, told: &Told, expected: Option<(u64, u64)>| {
        let folder = TempDir::new().unwrap();
        let made = made(folder.path(), &rows_unknown(why), told).unwrap();
        let found = match &made[1] {
            Made::Filled(filled) => Some((filled.accepted, filled.skipped)),
            Made::LeftOut { events, why: told, .. } => {
                assert_eq!((*events, *told), (3, why));
                None
            }
        };
        assert_eq!(found, expected, "{why:?} {told:?}");
        assert!(matches!(&made[0], Made::Filled(filled) if filled.accepted == 4));
    };
    let below = |events| Told { posted_below: Some(events), unposted: vec![] };
    let unposted = Told { posted_below: None, unposted: vec![OpeningId([2; 16])] };
    for why in [Unknown::Moves, Unknown::Sound] {
        check(why, &Told::default(), None);
        check(why, &below(14), None);
    }
    for why in [Unknown::Elsewhere, Unknown::Unanswered] {
        check(why, &Told::default(), None);
        check(why, &below(14), None);
        check(why, &unposted, Some((3, 0)));
    }
    check(Unknown::Damaged, &Told::default(), None);
    check(Unknown::Damaged, &below(16), Some((1, 2)));
}

#[test]
fn what_a_person_says_must_fit_the_export() {
    let check = |why: Unknown, told: Told, expected: &str| {
        let folder = TempDir::new().unwrap();
        let refused = made(folder.path(), &rows_unknown(why), &told).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    };
    for events in [13, 18] {
        let told = Told { posted_below: Some(events), unposted: vec![] };
        check(Unknown::Damaged, told, "holds 14 to 17, and knows that those before are posted");
    }
    // It is in the export, but its posted events are known.
    for nth in [1, 7] {
        let told = Told { posted_below: None, unposted: vec![OpeningId([nth; 16])] };
        check(Unknown::Elsewhere, told, "is no opening of this export that is left out");
    }
}

#[test]
fn what_a_damaged_journal_has_lost_is_told() {
    let folder = TempDir::new().unwrap();
    let mut rows = rows();
    rows[8] = Row::Missing { opening: name(2), first_event: 15, end_event: 16 };
    let filled = filled(folder.path(), &rows);
    assert_eq!((filled[1].accepted, filled[1].skipped, filled[1].missing), (1, 1, 1));
}

#[test]
fn a_pipe_is_refused_as_it_can_be_read_once() {
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A writer, so that opening it does not wait.
    let _writer = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let refused = make(&pipe, &Told::default(), &config(folder.path())).unwrap_err();
    assert!(matches!(refused, ImportError::NotAFile { .. }), "{refused}");
}

#[test]
fn events_from_before_there_were_rules_are_kept_in_order() {
    let folder = TempDir::new().unwrap();
    let of_rules = |event: u64, rules: u64| {
        let unique_key = u16::from(rules > 0);
        Row::Event(EventRow { rules, unique_key, ..event_row(1, event) })
    };
    let rows = [
        journal(),
        opening(1, 0, 3, Some(0)),
        of_rules(0, 0),
        of_rules(1, 1),
        of_rules(2, 2),
        Row::End { events: 3 },
    ];
    let filled = filled(folder.path(), &rows);
    let state = state(folder.path(), filled[0].journal.as_ref().unwrap());
    assert_eq!((state.accepted, state.events_in_chunks), (3, 3));
}

#[test]
fn a_batch_that_is_posted_in_part_is_left_out() {
    let folder = TempDir::new().unwrap();
    let mut rows = rows();
    rows[1] = opening(1, 10, 14, Some(11));
    let filled = filled(folder.path(), &rows);
    assert_eq!((filled[0].accepted, filled[0].skipped, filled[0].whole), (2, 0, 2));
}

#[test]
fn a_working_file_of_other_rows_is_told() {
    let folder = TempDir::new().unwrap();
    let check = |change: fn(&mut Vec<Row>), expected: [(u64, bool); 2]| {
        let mut rows = rows();
        change(&mut rows);
        let filled = filled(folder.path(), &rows);
        let found = filled.iter().map(|made| (made.accepted, made.differs));
        assert_eq!(found.collect::<Vec<_>>(), expected);
        // What is there is shipped, whatever this export has for it.
        assert!(filled.iter().all(|made| made.journal.is_some()));
    };
    check(|_| (), [(4, false), (2, false)]);
    check(|_| (), [(4, false), (2, false)]);
    let longer: fn(&mut Vec<Row>) = |rows| {
        rows[6] = opening(2, 14, 18, Some(15));
        rows[10] = event(2, 17);
        rows.push(Row::End { events: 8 });
    };
    check(longer, [(4, false), (3, true)]);
    // As many, but others.
    check(
        |rows| rows[9] = Row::Event(EventRow { meter: "other".to_owned(), ..event_row(2, 16) }),
        [(4, false), (2, true)],
    );
    check(|rows| rows[6] = opening(2, 14, 17, Some(17)), [(4, false), (0, true)]);
}

#[test]
fn a_batch_ends_before_its_body_is_too_long() {
    const EVENTS: u64 = 6_000;
    let folder = TempDir::new().unwrap();
    for rules in [0, 1] {
        let long = |event: u64| {
            let mut row = event_row(1, event);
            (row.rules, row.customer) = (rules, format!("c{event}"));
            row.unique_key = u16::try_from(rules).unwrap();
            let dimension = |nth| (format!("{nth:064}"), "v".repeat(128));
            row.dimensions = (0..16).map(dimension).collect();
            Row::Event(row)
        };
        let mut rows = vec![journal(), opening(1, 0, EVENTS, Some(0))];
        rows.extend((0..EVENTS).map(long));
        rows.push(Row::End { events: EVENTS });
        let made = filled(folder.path(), &rows);
        let place = made[0].journal.clone().unwrap();
        let state = state(folder.path(), &place);
        assert_eq!(state.accepted, EVENTS);
        let batches = match rules {
            0 => u64::try_from(groups(folder.path(), &place)).unwrap(),
            _ => state.sealed_sequence.0,
        };
        assert_eq!(batches, 2, "rules {rules}");
        fs::remove_file(place).unwrap();
    }
}

fn groups(folder: &Path, journal: &Path) -> usize {
    let fresh = FreshIds { stream: StreamId([0; 16]), opening: OpeningId([8; 16]) };
    let options = journal_options(&config(folder), journal);
    Journal::open_left_behind(options, fresh, Timestamp(0)).unwrap().1.groups.len()
}

#[test]
fn one_import_at_a_time_works_in_a_folder() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journals/journal.redb");
    let first = lock(&path).unwrap();
    assert!(matches!(lock(&path), Err(ImportError::Busy { .. })));
    drop(first);
    lock(&path).unwrap();
}
