//! Pages that were changed on disk: a start ends in the right words, never in a panic.

use super::*;

const PAGE: usize = 4_096;

/// Opens a ledger after `damage` to each page of `file` in turn; says how often it could not be opened.
fn check(file: &str, damage: fn(&mut [u8])) -> usize {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(filled(folder.path()));
    let whole = std::fs::read(folder.path().join(file)).unwrap();
    let mut failed = 0;
    for page in 0..whole.len() / PAGE {
        let copy = tempfile::tempdir().unwrap();
        for name in [LEDGER_FILE, TOTALS_FILE] {
            std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
        }
        let mut bytes = whole.clone();
        damage(&mut bytes[page * PAGE..(page + 1) * PAGE]);
        std::fs::write(copy.path().join(file), bytes).unwrap();
        match RedbStore::open(copy.path(), &options(), NOW) {
            Ok(_) => {}
            Err(error) => {
                failed += 1;
                let told = error.to_string();
                assert!(told.contains(file), "page {page}: {told}");
                assert!(told.contains("tidemark-collector restore"), "page {page}: {told}");
            }
        }
    }
    failed
}

#[test]
fn a_start_survives_the_loss_of_any_page_of_the_totals() {
    assert_eq!(check(TOTALS_FILE, |page| page.fill(0)), 0);
    assert_eq!(check(TOTALS_FILE, |page| page.fill(0x5a)), 0);
    assert_eq!(check(TOTALS_FILE, |page| page[9] ^= 4), 0);
}

#[test]
fn a_start_on_a_damaged_ledger_names_it_and_the_remedy() {
    let failed = check(LEDGER_FILE, |page| page.fill(0));
    assert!(failed > 0, "no page is needed for a start");
    check(LEDGER_FILE, |page| page.fill(0x5a));
    check(LEDGER_FILE, |page| page[9] ^= 4);
}
