//! What is archived, and what happens to it in between.

use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::archive::read::Archive;
use crate::archive::store::FolderStore;
use crate::ledger::LedgerOptions;
use crate::ledger::books::{Change, Refused, What};
use crate::ledger::conformance::{Journal, damaged};
use crate::ledger::request::{Reply, Request};
use crate::period::Month;

pub(crate) const OPTIONS: WriterOptions =
    WriterOptions { every: Duration::from_secs(3_600), segment_bytes: 1, bodies_leave_after: None };

/// A ledger, its archive, and an agent's journal.
pub(crate) struct Archived {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ledger: Ledger,
    pub(crate) store: RedbStore,
    pub(crate) journal: Journal,
    posted: usize,
}

impl Archived {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, store) = open(&folder.path().join("ledger")).await;
        let mut journal = Journal::new(1, ledger.ledger());
        greet(&ledger, &mut journal, 0).await;
        Self { folder, ledger, store, journal, posted: 0 }
    }

    pub(crate) fn archive(&self) -> std::path::PathBuf {
        self.folder.path().join("archive")
    }

    pub(crate) async fn writer(&self) -> ArchiveWriter {
        self.writer_to(Arc::new(FolderStore::new(&self.archive()))).await
    }

    async fn writer_to(&self, archive: Arc<dyn ArchiveStore>) -> ArchiveWriter {
        ArchiveWriter::begin(self.ledger.clone(), self.store.clone(), archive, OPTIONS).await
    }

    /// One more batch of one event.
    pub(crate) async fn post(&mut self) {
        self.post_in(3).await;
    }

    /// The same, in this bucket.
    pub(crate) async fn post_in(&mut self, bucket: u32) {
        self.journal.seal(&[("c", "m", bucket, 5)]);
        self.posted += 1;
        let reply = ask(&self.ledger, self.journal.admit(self.posted)).await;
        assert!(format!("{reply:?}").contains("Admit"), "{reply:?}");
    }

    /// Closes a month in the books.
    pub(crate) async fn lock(&self, month: &str) -> Result<u64, Refused> {
        lock(&self.ledger, month).await
    }

    /// Ends, and lets the files go.
    pub(crate) async fn close(&mut self) {
        self.ledger.shutdown().await.unwrap();
        self.store = placeholder().await;
        self.ledger = placeholder_ledger().await;
    }

    /// Ends and opens it anew: nothing is written to the archive meanwhile.
    pub(crate) async fn reopen(&mut self) {
        self.close().await;
        (self.ledger, self.store) = open(&self.folder.path().join("ledger")).await;
    }
}

async fn placeholder() -> RedbStore {
    use redb::backends::InMemoryBackend;
    let memory = InMemoryBackend::new;
    let now = tidemark_common::time::Timestamp(1);
    RedbStore::open_on(memory(), memory(), &Default::default(), now).unwrap().0
}

async fn placeholder_ledger() -> Ledger {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = open(folder.path()).await;
    ledger.shutdown().await.unwrap();
    ledger
}

pub(crate) async fn open(data_dir: &Path) -> (Ledger, RedbStore) {
    Ledger::open_embedded(data_dir, LedgerOptions::default()).await.unwrap()
}

pub(crate) async fn greet(ledger: &Ledger, journal: &mut Journal, posted: usize) {
    match ask(ledger, journal.hello_request(posted, "web-1")).await {
        Reply::Welcomed(welcomed) => journal.fence = welcomed.fence,
        reply => panic!("{reply:?}"),
    }
}

pub(crate) async fn ask(ledger: &Ledger, request: Request) -> Reply {
    ledger.submit(request).await.unwrap().await.unwrap()
}

pub(crate) async fn lock(ledger: &Ledger, month: &str) -> Result<u64, Refused> {
    let what = What::Lock { through: Month::parse(month).unwrap() };
    let change = Change { actor: "ann".to_owned(), reason: None, date: None, request: None, what };
    ledger.book(change).await.unwrap().map(|booked| booked.entry)
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

/// The kinds of an archive's objects and how many records each has: `ledger1 batches2`.
fn shown(archive: &Path) -> String {
    let archive = Archive::in_folder(archive).unwrap();
    let all = archive.manifests().map(|manifest| {
        let manifest = manifest.unwrap();
        archive.object(&manifest).unwrap();
        format!("{}{}", manifest.kind.name(), manifest.count)
    });
    all.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_admitted_and_booked_is_archived_in_order() {
    run(async {
        let mut archived = Archived::new().await;
        archived.post().await;
        archived.lock("2020-01").await.unwrap();
        // What was booked before there was an archive comes too.
        let mut writer = archived.writer().await;
        writer.turn().await.unwrap();
        assert_eq!(shown(&archived.archive()), "ledger1 batches1 books1 streams1");
        archived.post().await;
        let torn = damaged(&archived.journal.seal(&[("c", "m", 4, 5)]));
        ask(&archived.ledger, crate::ledger::conformance::admit(&torn, archived.journal.fence))
            .await;
        archived.lock("2020-02").await.unwrap();
        writer.turn().await.unwrap();
        writer.turn().await.unwrap();
        let now = "ledger1 batches1 books1 streams1 batches1 batches1 books1";
        assert_eq!(shown(&archived.archive()), now);
        let archive = Archive::in_folder(&archived.archive()).unwrap();
        let batches: Vec<_> = archive.batches().map(Result::unwrap).collect();
        let told: Vec<_> = batches
            .iter()
            .map(|batch| (batch.position, batch.agent.as_str(), batch.quarantined.is_some()))
            .collect();
        assert_eq!(told, [(0, "web-1", false), (1, "web-1", false), (2, "web-1", true)]);
        assert_eq!(batches[0].bytes, archived.journal.sealed[0].bytes);
        assert_eq!(batches[2].bytes, torn.bytes);
        let note = archived.store.archive_facts().unwrap().note.unwrap();
        assert_eq!((note.objects, note.position, note.entries), (7, 3, 2));
        assert!(
            archived.store.puts_to_archive(0, 99, 1 << 20).unwrap().is_empty(),
            "what is archived is not noted any more"
        );
    });
}

/// Stops once after so many puts: as if the process had ended there.
#[derive(Debug)]
struct Crashing {
    store: FolderStore,
    puts_left: Mutex<u32>,
}

impl ArchiveStore for Crashing {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Made, ArchiveError> {
        let mut left = self.puts_left.lock().unwrap();
        let crash = || ArchiveError::Store {
            act: "write",
            name: name.to_owned(),
            reason: "a crash".to_owned(),
        };
        match *left {
            0 => Err(crash()),
            // It is written, and nobody hears of it.
            1 => {
                *left = 0;
                self.store.put_new(name, bytes)?;
                Err(crash())
            }
            _ => {
                *left -= 1;
                self.store.put_new(name, bytes)
            }
        }
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        self.store.get(name)
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: u32,
    ) -> Result<Option<Vec<u8>>, ArchiveError> {
        self.store.get_range(name, offset, length)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, ArchiveError> {
        self.store.list(folder)
    }

    fn place(&self) -> String {
        self.store.place()
    }
}

#[test]
fn a_crash_at_any_write_leads_to_the_same_chain() {
    run(async {
        for crash in 1..12 {
            let mut archived = Archived::new().await;
            archived.post().await;
            archived.lock("2020-01").await.unwrap();
            let store = FolderStore::new(&archived.archive());
            let puts_left = Mutex::new(crash);
            let mut writer = archived.writer_to(Arc::new(Crashing { store, puts_left })).await;
            let _crashed = writer.turn().await.is_err();
            drop(writer);
            archived.reopen().await;
            archived.post().await;
            archived.journal.fence = tidemark_common::id::Fence(0);
            let mut writer = archived.writer().await;
            writer.turn().await.unwrap();
            let told = archived.ledger.archive_state();
            assert_eq!(told, ArchiveState::Current { entries: 1, trouble: None }, "{crash}");
            let shown = shown(&archived.archive());
            assert_eq!(shown.matches("batches1").count(), 2, "{crash}: {shown}");
            assert_eq!(shown.matches("books1").count(), 1, "{crash}: {shown}");
        }
    });
}

#[test]
fn a_ledger_that_is_behind_its_archive_books_nothing() {
    run(async {
        let mut archived = Archived::new().await;
        let mut writer = archived.writer().await;
        writer.turn().await.unwrap();
        archived.lock("2020-01").await.unwrap();
        // As a backup has it.
        let older = archived.folder.path().join("older");
        archived.ledger.shutdown().await.unwrap();
        drop(writer);
        std::fs::create_dir(&older).unwrap();
        for file in ["ledger.redb", "totals.redb"] {
            std::fs::copy(archived.folder.path().join("ledger").join(file), older.join(file))
                .unwrap();
        }
        archived.reopen().await;
        let mut writer = archived.writer().await;
        archived.lock("2020-02").await.unwrap();
        writer.turn().await.unwrap();
        let (ledger, store) = open(&older).await;
        let place: Arc<dyn ArchiveStore> = Arc::new(FolderStore::new(&archived.archive()));
        let mut writer =
            ArchiveWriter::begin(ledger.clone(), store, Arc::clone(&place), OPTIONS).await;
        let refused = lock(&ledger, "2020-02").await.unwrap_err().to_string();
        assert!(refused.contains("restore-from-archive"), "{refused}");
        let before = shown(&archived.archive());
        writer.turn().await.unwrap();
        assert_eq!(shown(&archived.archive()), before, "nothing is written either");

        // Nor does a new ledger write there.
        let (ledger, store) = open(&archived.folder.path().join("new")).await;
        let _writer = ArchiveWriter::begin(ledger.clone(), store, place, OPTIONS).await;
        let refused = lock(&ledger, "2020-02").await.unwrap_err().to_string();
        assert!(refused.contains("this ledger has none"), "{refused}");
    });
}

#[test]
fn an_archive_that_is_away_delays_and_then_catches_up() {
    run(async {
        let mut archived = Archived::new().await;
        std::fs::write(archived.archive(), b"no folder").unwrap();
        let mut writer = archived.writer().await;
        let refused = archived.lock("2020-01").await.unwrap_err().to_string();
        assert!(refused.contains("until this ledger is known"), "{refused}");
        assert!(writer.turn().await.is_err());
        std::fs::remove_file(archived.archive()).unwrap();
        writer.turn().await.unwrap();
        assert_eq!(archived.lock("2020-01").await, Ok(1));

        // Once it was compared, books go on without it.
        std::fs::rename(archived.archive(), archived.folder.path().join("away")).unwrap();
        std::fs::write(archived.archive(), b"no folder").unwrap();
        archived.post().await;
        assert!(writer.turn().await.is_err());
        assert!(matches!(
            archived.ledger.archive_state(),
            ArchiveState::Current { trouble: Some(_), .. }
        ));
        assert_eq!(archived.lock("2020-02").await, Ok(2));
        std::fs::remove_file(archived.archive()).unwrap();
        std::fs::rename(archived.folder.path().join("away"), archived.archive()).unwrap();
        writer.turn().await.unwrap();
        assert_eq!(
            archived.ledger.archive_state(),
            ArchiveState::Current { entries: 2, trouble: None }
        );
    });
}
