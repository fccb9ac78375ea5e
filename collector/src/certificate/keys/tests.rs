//! Keys that are made, rotated, lost, and put back.

use std::fs;

use super::*;
use crate::ledger::LedgerOptions;

async fn open(folder: &Path) -> Ledger {
    Ledger::open(folder, LedgerOptions::default()).await.unwrap()
}

fn keys(ledger: &Ledger) -> Vec<PublishedKey> {
    published(&*ledger.books().unwrap()).unwrap()
}

#[tokio::test]
async fn each_key_is_signed_by_the_one_before_and_stays_published() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).await;
    let signer = ledger.signer().unwrap();
    assert_eq!(signer.sign(b"x"), None);
    signer.ensure(&ledger, "test").await.unwrap();
    let first = signer.key().unwrap();
    signer.ensure(&ledger, "test").await.unwrap();
    signer.rotate(&ledger, "test").await.unwrap();
    let listed = keys(&ledger);
    assert_eq!((listed.len(), &listed[0].key), (2, &first));
    assert_eq!((listed[0].signature.is_some(), listed[0].until), (false, Some(listed[1].from)));
    assert_eq!((Some(&listed[1].key), listed[1].until), (signer.key().as_ref(), None));
    let text = serde_json::to_vec(&shown(ledger.ledger(), &*ledger.books().unwrap()).unwrap());
    // The verifier checks the signature of the second by the first.
    crate::verify::Keys::read(&text.unwrap()).unwrap();
    ledger.shutdown().await.unwrap();
    drop(ledger);
    let ledger = open(folder.path()).await;
    ledger.signer().unwrap().ensure(&ledger, "test").await.unwrap();
    assert_eq!(ledger.signer().unwrap().key().as_ref(), Some(&listed[1].key));
}

#[tokio::test]
async fn a_rotation_that_was_cut_short_is_finished_if_its_key_was_published() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).await;
    let signer = ledger.signer().unwrap();
    signer.ensure(&ledger, "test").await.unwrap();
    let former = fs::read(folder.path().join(FILE)).unwrap();
    signer.rotate(&ledger, "test").await.unwrap();
    // As if the file had not been renamed yet.
    fs::rename(folder.path().join(FILE), folder.path().join(NEW_FILE)).unwrap();
    fs::write(folder.path().join(FILE), former).unwrap();
    let again = Signer::at(folder.path(), ledger.ledger());
    again.ensure(&ledger, "test").await.unwrap();
    assert_eq!(again.key(), signer.key());
    assert!(!folder.path().join(NEW_FILE).exists());
    // One that was never published takes nobody's place.
    let stray = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    fs::write(folder.path().join(NEW_FILE), stray.as_ref()).unwrap();
    let again = Signer::at(folder.path(), ledger.ledger());
    again.ensure(&ledger, "test").await.unwrap();
    assert_eq!(again.key(), signer.key());
}

#[tokio::test]
async fn without_the_newest_key_nothing_is_signed_until_another_one_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).await;
    ledger.signer().unwrap().ensure(&ledger, "test").await.unwrap();
    fs::rename(folder.path().join(FILE), folder.path().join("kept")).unwrap();
    let again = Signer::at(folder.path(), ledger.ledger());
    let told = again.ensure(&ledger, "test").await.unwrap_err().to_string();
    assert!(told.contains("it is not there") && told.contains("keys rotate"), "{told}");
    assert_eq!(again.key(), None);
    fs::copy(folder.path().join("kept"), folder.path().join(FILE)).unwrap();
    again.ensure(&ledger, "test").await.unwrap();
    fs::remove_file(folder.path().join(FILE)).unwrap();
    let lost = Signer::at(folder.path(), ledger.ledger());
    lost.rotate(&ledger, "test").await.unwrap();
    let listed = keys(&ledger);
    assert_eq!((listed.len(), &listed[1].signature), (2, &None));
}
