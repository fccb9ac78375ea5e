//! `tidemark-collector archive verify`: everything that an archive says of itself, read and recomputed.
//!
//! **Owns** what holds together in a sound archive. **Does not own** reading it (`read.rs`).
//!
//! Manifests and digests; each stream's chain, each body; the numbers of transactions; the chain of entries, and their
//! balance; readable copies of documents. A manifest that is missing or damaged ends the walk, as nothing behind it is known to
//! be of this chain; a damaged object does not.
//!
//! Limits: memory holds a few words for each stream, and of what was found the first [`FINDINGS_MAX`].

use std::collections::BTreeMap;

use tidemark_common::id::{Digest, LedgerId, Sequence, StreamId};

use super::ArchiveError;
use super::documents::Copies;
use super::manifest::{Kind, Manifest};
use super::read::Archive;
use super::restore::open;
use super::segment::{ArchivedBatch, Puts};
use crate::ledger::books::rows::ENTRIES;
use crate::ledger::check::LedgerTable;
use crate::ledger::entry::{self, LedgerEntry};

/// So many findings are kept; all are counted.
pub const FINDINGS_MAX: usize = 100;

/// What a walk over an archive came to.
#[derive(Debug, Default)]
pub struct Verified {
    pub ledger: Option<String>,
    pub objects: u64,
    pub bytes: u64,
    pub batches: u64,
    pub events: u64,
    pub transactions: u64,
    pub entries: u64,
    pub documents: u64,
    pub streams: u64,
    /// Pieces of raw events, and objects of them that were removed: nothing but looking events up needs these.
    pub raw_pieces: u64,
    pub raw_removed: u64,
    pub findings: Vec<String>,
    pub findings_count: u64,
}

impl Verified {
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings_count == 0
    }

    /// For people: each finding, then what was read.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text: String = self.findings.iter().map(|finding| format!("{finding}\n")).collect();
        let Self { objects, bytes, batches, events, entries, documents, streams, .. } = self;
        text.push_str(&format!(
            "read {objects} objects, {bytes} bytes: {batches} batches with {events} events in {streams} streams, {entries} entries and {documents} documents and certificates\n",
        ));
        if self.raw_pieces > 0 || self.raw_removed > 0 {
            let Self { raw_pieces, raw_removed, .. } = self;
            text.push_str(&format!(
                "raw events: {raw_pieces} pieces; {raw_removed} objects of them were removed\n"
            ));
        }
        match self.findings_count {
            0 => text.push_str("sound\n"),
            count => text.push_str(&format!("{count} findings\n")),
        }
        text
    }
}

/// The walk.
struct Walk {
    verified: Verified,
    streams: BTreeMap<StreamId, (Sequence, Digest)>,
    next_position: u64,
    next_transaction: u64,
    last_entry: Digest,
}

/// Reads all of it. `progress` is told how many bytes of objects are read.
///
/// # Errors
/// If it cannot be read: that says nothing of it.
pub fn verify(archive: &Archive, progress: &mut dyn FnMut(u64)) -> Result<Verified, ArchiveError> {
    let mut walk = Walk {
        verified: Verified::default(),
        streams: BTreeMap::new(),
        next_position: 0,
        next_transaction: 1,
        last_entry: Digest([0; 32]),
    };
    for manifest in archive.manifests() {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                walk.found(error)?;
                walk.say("nothing behind it was read".to_owned());
                break;
            }
        };
        let verified = &mut walk.verified;
        verified.ledger.get_or_insert_with(|| manifest.ledger.clone());
        verified.objects = verified.objects.saturating_add(1);
        verified.bytes = verified.bytes.saturating_add(manifest.bytes);
        progress(verified.bytes);
        if let Err(error) = walk.object(archive, &manifest) {
            walk.found(error)?;
        }
        walk.skip_to(&manifest);
    }
    walk.verified.streams = u64::try_from(walk.streams.len()).unwrap_or(u64::MAX);
    Ok(walk.verified)
}

impl Walk {
    /// What cannot be read is no finding.
    fn found(&mut self, error: ArchiveError) -> Result<(), ArchiveError> {
        match error {
            error @ ArchiveError::Store { .. } => Err(error),
            error => {
                self.say(error.to_string());
                Ok(())
            }
        }
    }

    fn say(&mut self, finding: String) {
        let verified = &mut self.verified;
        verified.findings_count = verified.findings_count.saturating_add(1);
        if verified.findings.len() < FINDINGS_MAX {
            verified.findings.push(finding);
        }
    }

    fn object(&mut self, archive: &Archive, manifest: &Manifest) -> Result<(), ArchiveError> {
        let name = &manifest.object;
        match manifest.kind {
            Kind::Ledger => archive.object(manifest).map(drop),
            Kind::Batches => {
                if manifest.first > self.next_position {
                    self.say(format!(
                        "{name}: it begins at position {}, and those before end at {}",
                        manifest.first, self.next_position
                    ));
                }
                let mut records = archive.records(manifest)?;
                while let Some(batch) = records.batch()? {
                    self.batch(manifest, &batch);
                }
                Ok(())
            }
            Kind::Books => {
                if manifest.first != self.next_transaction {
                    self.say(format!(
                        "{name}: it begins with transaction {}, where {} is due",
                        manifest.first, self.next_transaction
                    ));
                }
                let mut records = archive.records(manifest)?;
                while let Some((number, puts)) = records.puts()? {
                    self.verified.transactions = self.verified.transactions.saturating_add(1);
                    self.puts(archive, number, &puts)?;
                }
                Ok(())
            }
            Kind::Streams => {
                let mut records = archive.records(manifest)?;
                while records.row()?.is_some() {}
                Ok(())
            }
            Kind::Events => {
                let mut records = match archive.records(manifest) {
                    Err(ArchiveError::Missing { .. }) => {
                        self.verified.raw_removed = self.verified.raw_removed.saturating_add(1);
                        return Ok(());
                    }
                    records => records?,
                };
                while records.piece()?.is_some() {
                    self.verified.raw_pieces = self.verified.raw_pieces.saturating_add(1);
                }
                Ok(())
            }
        }
    }

    /// What an object holds is known, though it may be damaged.
    fn skip_to(&mut self, manifest: &Manifest) {
        let next = manifest.last.saturating_add(1);
        match manifest.kind {
            Kind::Batches => self.next_position = next,
            Kind::Books => self.next_transaction = next,
            Kind::Ledger | Kind::Streams | Kind::Events => {}
        }
    }

    fn batch(&mut self, manifest: &Manifest, batch: &ArchivedBatch) {
        let (header, digest) = (&batch.header, batch.header.digest());
        let (stream, sequence) = (header.stream, header.sequence);
        let place = format!("{}: stream {stream}, batch {sequence}", manifest.object);
        if let Err(reason) = open(batch) {
            self.say(format!("{place}: {reason}"));
        }
        let ledger = tidemark_common::hex::decode_array(&manifest.ledger).map(LedgerId);
        let genesis = ledger.map(|ledger| tidemark_common::batch::genesis(ledger, stream));
        let first = (Sequence::ZERO, genesis.unwrap_or(Digest([0; 32])));
        let (held, held_digest) = self.streams.get(&stream).copied().unwrap_or(first);
        if sequence == held && digest != held_digest {
            self.say(format!("{place}: there are two of this number"));
        }
        if sequence <= held {
            return;
        }
        if sequence != held.next() {
            self.say(format!("{place}: it comes after batch {held}"));
        } else if header.previous != held_digest {
            self.say(format!("{place}: it does not continue the batch before"));
        }
        self.streams.insert(stream, (sequence, digest));
        self.verified.batches = self.verified.batches.saturating_add(1);
        self.verified.events = self.verified.events.saturating_add(header.events());
    }

    fn puts(&mut self, archive: &Archive, number: u64, puts: &Puts) -> Result<(), ArchiveError> {
        for put in &puts.0 {
            if let Some(stored) = &put.value
                && put.table == LedgerTable::Books.number()
                && put.key.starts_with(ENTRIES)
            {
                self.entry(number, stored);
            }
        }
        let mut copies = Copies::default();
        copies.take(puts);
        for (name, bytes) in copies.0 {
            self.verified.documents = self.verified.documents.saturating_add(1);
            match archive.store().get(&name)? {
                None => self.say(format!("{name} is missing: the object of the books has it")),
                Some(found) if found != bytes => {
                    self.say(format!("{name} is another one than transaction {number} has issued"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, number: u64, stored: &[u8]) {
        let due = self.verified.entries.saturating_add(1);
        match LedgerEntry::decode(stored) {
            Err(error) => self.say(format!("transaction {number}: {error}")),
            Ok(entry) if entry.number != due || entry.previous != self.last_entry => {
                self.say(format!(
                    "transaction {number}: entry {} does not continue entry {}",
                    entry.number, self.verified.entries
                ));
            }
            Ok(_) => {}
        }
        (self.verified.entries, self.last_entry) = (due, entry::digest(stored));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::archive::writer::tests::{Archived, run};

    fn verified(archive: &Path) -> Verified {
        verify(&Archive::in_folder(archive).unwrap(), &mut |_| ()).unwrap()
    }

    /// Something is done to a sound archive -> what is found.
    fn check(act: impl FnOnce(&Path), expected: &[&str]) {
        run(async {
            let mut archived = Archived::new().await;
            let mut writer = archived.writer().await;
            for month in ["2020-01", "2020-02"] {
                archived.post().await;
                archived.lock(month).await.unwrap();
                writer.turn().await.unwrap();
            }
            act(&archived.archive());
            let found = verified(&archived.archive());
            assert_eq!(found.findings.len(), expected.len(), "{:?}", found.findings);
            for (found, expected) in found.findings.iter().zip(expected) {
                assert!(found.contains(expected), "{found}");
            }
            if expected.is_empty() {
                let told = found.told();
                assert!(told.contains("2 batches with 2 events in 1 streams, 2 entries"), "{told}");
            }
        });
    }

    fn only(root: &Path, folder: &str) -> std::path::PathBuf {
        let mut all: Vec<_> = std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        all.sort();
        all.remove(0)
    }

    #[test]
    fn what_is_wrong_is_found_with_its_place() {
        check(|_| (), &[]);
        check(|root| std::fs::remove_file(only(root, "ledger")).unwrap(), &["ledger/000000000001"]);
        check(
            |root| {
                let path = only(root, "batches");
                let mut bytes = std::fs::read(&path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(path, bytes).unwrap();
            },
            // The second batch has nothing to continue.
            &["batches/000000000002", "it comes after batch 0"],
        );
        check(
            |root| std::fs::remove_file(only(root, "books")).unwrap(),
            &["books/000000000003", "entry 2 does not continue entry 0"],
        );
        check(
            |root| std::fs::write(only(root, "manifests"), b"{}").unwrap(),
            &[
                "manifests/000000000001.json of the archive is damaged",
                "nothing behind it was read",
            ],
        );
    }
}
