//! Ids of events in the whole ledger, from one export to the next.

use super::*;
use crate::export::write_rows;
use crate::journal::Leftover;

fn with_id(mut row: EventRow, id: u8, number: Option<u32>) -> Row {
    row.id = Some(format!("{id:02x}").repeat(16));
    row.id_number = number;
    Row::Event(row)
}

fn line_with_id(row: Row, id: u8) -> Row {
    let Row::Line(mut row) = row else { panic!("{row:?}") };
    row.id = Some(format!("{id:02x}").repeat(16));
    row.id_key = Some(1);
    Row::Line(row)
}

/// The first byte of each id that the journal's own export tells, behind it the number of one that has no key yet.
fn ids(journal: &Path) -> Vec<String> {
    let mut out = Vec::new();
    write_rows(&Leftover::open(journal).unwrap(), true, &mut out).unwrap();
    let rows = String::from_utf8(out).unwrap();
    let ids = rows.lines().map(|row| match serde_json::from_str(row).unwrap() {
        Row::Event(EventRow { id: Some(id), id_number, .. }) => {
            let number = id_number.map_or_else(String::new, |number| format!("/{number}"));
            Some(format!("{}{number}", &id[..2]))
        }
        Row::Line(LineRow { id: Some(id), id_key: Some(1), events: 1, .. }) => {
            Some(id[..2].to_owned())
        }
        _ => None,
    });
    ids.flatten().collect()
}

#[test]
fn ids_go_with_their_lines_and_events() {
    let folder = TempDir::new().unwrap();
    let mut rows = rows();
    rows[3] = line_with_id(line(1, 10, "b"), 0xa1);
    rows[4] = with_id(event_row(1, 12), 0xb2, None);
    rows[8] = with_id(EventRow { rules: 0, unique_key: 0, ..event_row(2, 15) }, 0xc3, Some(4));
    let filled = filled(folder.path(), &rows);
    let found: Vec<_> = filled.iter().map(|filled| ids(filled.journal.as_ref().unwrap())).collect();
    assert_eq!(found, [vec!["a1".to_owned(), "b2".to_owned()], vec!["c3/4".to_owned()]]);
}

#[test]
fn an_id_that_cannot_be_one_is_refused() {
    let check = |at: usize, row: Row, expected: &str| {
        let folder = TempDir::new().unwrap();
        let mut rows = rows();
        rows[at] = row;
        let refused = made(folder.path(), &rows, &Told::default()).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    };
    let unread = "its id cannot be read";
    check(4, with_id(event_row(1, 12), 0xb2, Some(0)), unread);
    check(4, with_id(EventRow { rules: 0, unique_key: 0, ..event_row(1, 12) }, 0xb2, None), unread);
    check(4, Row::Event(EventRow { id: Some("b2".to_owned()), ..event_row(1, 12) }), unread);
    let Row::Line(row) = line_with_id(line(1, 10, "b"), 0xa1) else { panic!() };
    check(3, Row::Line(LineRow { id_key: None, ..row }), "its id_key cannot be read");
}
