//! Archives that are whole, and those that are not.

use tempfile::TempDir;
use tidemark_common::id::LedgerId;

use super::super::manifest::tests::manifest;
use super::super::manifest::{digest, object_name};
use super::super::segment::SegmentWriter;
use super::*;
use crate::ledger::conformance::Journal;

/// An archive of one batch an object, as the ledger's task writes them.
fn archive(batches: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(folder.path());
    let mut journal = Journal::new(1, LedgerId([1; 16]));
    let mut previous = NO_DIGEST.to_owned();
    for number in 1..=batches {
        let sealed = journal.seal(&[("c", "m", number, 5)]);
        let position = u64::from(number).saturating_sub(1);
        let batch = ArchivedBatch {
            position,
            agent: "web-1".to_owned(),
            marks: Vec::new(),
            quarantined: None,
            judged: Vec::new(),
            header: sealed.header,
            bytes: sealed.bytes,
        };
        let mut segment = SegmentWriter::new(Kind::Batches);
        segment.record(&batch.encode());
        let object = segment.finish().unwrap();
        let sha256 = digest(&object);
        let manifest = Manifest {
            number: number.into(),
            previous,
            object: object_name(Kind::Batches, number.into(), &sha256),
            bytes: object.len() as u64,
            sha256,
            first: position,
            last: position,
            ..manifest()
        };
        store.put_new(&manifest.object, &object).unwrap();
        let encoded = manifest.encode();
        store.put_new(&manifest_name(number.into()), &encoded).unwrap();
        previous = digest(&encoded);
    }
    folder
}

fn read(folder: &TempDir) -> Result<Vec<u64>, ArchiveError> {
    let archive = Archive::in_folder(folder.path())?;
    archive.batches().map(|batch| Ok(batch?.header.sequence.0)).collect()
}

#[test]
fn batches_are_read_in_their_order() {
    assert_eq!(read(&archive(0)), Ok(Vec::new()));
    assert_eq!(read(&archive(3)), Ok(vec![1, 2, 3]));
}

/// Something is done to an archive of three batches -> what is said.
fn check(act: impl FnOnce(&Path), expected: &str) {
    let folder = archive(3);
    act(folder.path());
    let told = read(&folder).unwrap_err().to_string();
    assert!(told.contains(expected), "{told}");
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let manifest = |root: &Path, number| root.join(manifest_name(number));
    check(
        |root| std::fs::remove_file(manifest(root, 2)).unwrap(),
        "000000000002.json of the archive is missing",
    );
    check(
        |root| std::fs::copy(manifest(root, 1), manifest(root, 2)).map(drop).unwrap(),
        "it says that it is another number",
    );
    check(
        |root| {
            let text = std::fs::read_to_string(manifest(root, 1)).unwrap();
            std::fs::write(
                manifest(root, 1),
                text.replace("\"incarnation\":7", "\"incarnation\":8"),
            )
            .unwrap();
        },
        "000000000002.json of the archive is damaged: it does not continue",
    );
    let object = |root: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(root.join("batches")).unwrap().collect();
        names.sort_by_key(|entry| entry.as_ref().unwrap().path());
        names[1].as_ref().unwrap().path()
    };
    check(|root| std::fs::remove_file(object(root)).unwrap(), "batches/000000000002");
    check(
        |root| {
            let mut bytes = std::fs::read(object(root)).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(object(root), bytes).unwrap();
        },
        "its SHA-256 is not the one of its manifest",
    );
}
