//! Checks a stopped collector's files against each other: exit code 0 sound, 1 findings, 2 cannot be checked.
//!
//! **Owns** the steps and the report. Each step adds to one list of findings: the ledger's rows
//! (`ledger/check.rs`), then the totals against what the batches come to (`ledger/redb/compare.rs`). What
//! else is derived from the ledger, such as balances of money, is a further step.
//!
//! **Does not own** mending: it changes nothing. A file whose last user was killed is brought in order
//! first, as a start would do.
//!
//! Limits: memory as `ledger/check.rs` says; the totals are summed anew in a folder of their size,
//! `fsck` in `data_dir` unless another is named, which is removed at the end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use thiserror::Error;

use crate::backup::{PROGRESS_BYTES, READ_CACHE_BYTES};
use crate::ledger::check::{
    Bodies, Checked, Checker, FINDINGS_MAX, FindingKind, Findings, LedgerCounts, LedgerFacts,
    LedgerTable, Place,
};
use crate::ledger::redb::{
    FoundTotals, LEDGER_FILE, RedbOptions, TOTALS_FILE, TotalsCheck, export_stopped,
};
use crate::ledger::store::{StoreError, StoredBodies};

/// Where the totals are summed anew.
const SCRATCH_FOLDER: &str = "fsck";

/// Failed to check.
#[derive(Debug, Error)]
pub enum FsckError {
    #[error("failed to check: there is no {LEDGER_FILE} in {}; name the collector's data_dir", path.display())]
    NoLedger { path: PathBuf },
    #[error(
        "failed to check: {0}; stop it, or make a backup while it runs and check that with `restore --check`"
    )]
    InUse(StoreError),
    #[error("failed to check: {0}")]
    Store(StoreError),
    #[error("failed to check: cannot write to {}: {source}; name another folder with --scratch", path.display())]
    Scratch { path: PathBuf, source: io::Error },
}

impl From<StoreError> for FsckError {
    fn from(error: StoreError) -> Self {
        match error {
            error @ StoreError::InUse { .. } => Self::InUse(error),
            error => Self::Store(error),
        }
    }
}

/// What a check came to.
#[derive(Debug)]
pub struct Report {
    pub facts: LedgerFacts,
    pub counts: LedgerCounts,
    pub findings: Findings,
    /// Whether there were totals to compare.
    pub with_totals: bool,
}

/// Checks the files in `data_dir`; `bodies` are those that have left the ledger. `progress` is told how many bytes of batches are read.
///
/// # Errors
/// If they cannot be checked: that says nothing of them.
pub fn run(
    data_dir: &Path,
    scratch: Option<&Path>,
    bodies: Option<Arc<dyn StoredBodies>>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Report, FsckError> {
    if !data_dir.join(LEDGER_FILE).exists() {
        return Err(FsckError::NoLedger { path: data_dir.to_owned() });
    }
    let scratch = scratch.unwrap_or(data_dir).join(SCRATCH_FOLDER);
    let failed = |source| FsckError::Scratch { path: scratch.clone(), source };
    clear(&scratch).map_err(failed)?;
    let walked = Mutex::new(Walked::default());
    // A page that was changed on disk may end redb in a panic: that is a finding.
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| walk(data_dir, &scratch, &walked, bodies, progress)).join()
    });
    clear(&scratch).map_err(failed)?;
    let mut walked = walked.into_inner().unwrap_or_else(PoisonError::into_inner);
    let unreadable = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(
            StoreError::Corrupt { reason, .. } | StoreError::Storage { act: "read", reason, .. },
        )) => Some(reason),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => Some("reading it ended in a panic, told above".to_owned()),
    };
    if let Some(reason) = unreadable {
        let kind = match walked.file {
            TOTALS_FILE => FindingKind::Totals,
            _ => FindingKind::File,
        };
        walked.findings.add(kind, Place::File(walked.file), None, || reason);
    }
    let Walked { facts, counts, findings, with_totals, file: _ } = walked;
    Ok(Report { facts, counts, findings, with_totals })
}

/// How far the walk has come: kept outside of it, for the case that it ends in a panic.
#[derive(Debug)]
struct Walked {
    /// The file that is being read.
    file: &'static str,
    facts: LedgerFacts,
    counts: LedgerCounts,
    findings: Findings,
    with_totals: bool,
}

impl Default for Walked {
    fn default() -> Self {
        Self {
            file: LEDGER_FILE,
            facts: LedgerFacts::default(),
            counts: LedgerCounts::default(),
            findings: Findings::default(),
            with_totals: false,
        }
    }
}

fn walk(
    data_dir: &Path,
    scratch: &Path,
    walked: &Mutex<Walked>,
    bodies: Option<Arc<dyn StoredBodies>>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<(), StoreError> {
    let note = |change: &dyn Fn(&mut Walked)| {
        change(&mut walked.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let mut checker = Checker::new(Bodies::Open).with_bodies(bodies);
    let mut totals: Option<FoundTotals> = None;
    let (mut bytes, mut told, mut end) = (0_u64, 0, 0);
    let read = export_stopped(data_dir, READ_CACHE_BYTES, &mut |table, key, value| {
        let batch = checker.row(table, key, value);
        if table != LedgerTable::Batches {
            return Ok(());
        }
        if totals.is_none() {
            note(&|walked| walked.file = TOTALS_FILE);
            totals = Some(open_totals(data_dir, scratch, checker.facts())?);
            note(&|walked| walked.file = LEDGER_FILE);
        }
        bytes = bytes.saturating_add(u64::try_from(value.len()).unwrap_or(u64::MAX));
        if bytes >= PROGRESS_BYTES.saturating_add(told) {
            told = bytes;
            progress(bytes);
        }
        end = key.try_into().map_or(end, u64::from_be_bytes).saturating_add(1);
        match (batch, &mut totals) {
            (Some(batch), Some(FoundTotals::Usable(totals))) => totals.take(batch),
            (Some(_) | None, _) => Ok(()),
        }
    });
    let Checked { facts, counts, findings, chains: _ } = match &read {
        Ok(()) => checker.finish(),
        Err(_) => checker.break_off(),
    };
    note(&|walked| {
        (walked.facts, walked.counts) = (facts, counts);
        walked.findings = findings.clone();
    });
    read?;
    note(&|walked| walked.file = TOTALS_FILE);
    let totals = match totals {
        Some(totals) => totals,
        // A ledger without batches.
        None => open_totals(data_dir, scratch, facts)?,
    };
    // Where a batch is damaged the totals may be right, and the sums are not.
    let is_comparable =
        counts.left_batches == 0 && !findings.iter().any(|finding| finding.kind.is_of_batches());
    let mut found = Findings::default();
    let compared = match totals {
        FoundTotals::None => Ok(()),
        FoundTotals::Unusable(reason) => {
            found.add(FindingKind::Totals, Place::File(TOTALS_FILE), None, || reason);
            Ok(())
        }
        FoundTotals::Usable(_) if !is_comparable => Ok(()),
        FoundTotals::Usable(totals) => {
            note(&|walked| walked.with_totals = true);
            totals.finish(end, &mut found)
        }
    };
    walked.lock().unwrap_or_else(PoisonError::into_inner).findings.extend(found);
    compared
}

fn open_totals(
    data_dir: &Path,
    scratch: &Path,
    facts: LedgerFacts,
) -> Result<FoundTotals, StoreError> {
    match facts.ledger {
        Some(ledger) => TotalsCheck::begin(data_dir, scratch, ledger, &RedbOptions::default()),
        None => Ok(FoundTotals::Unusable("the ledger does not say which it is".to_owned())),
    }
}

/// Removes what this or an earlier check has written.
fn clear(scratch: &Path) -> io::Result<()> {
    for removed in [fs::remove_file(scratch.join(TOTALS_FILE)), fs::remove_dir(scratch)] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

impl Report {
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.count() == 0
    }

    /// For people: each finding and what to do, then what was read.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text = String::new();
        for finding in self.findings.iter() {
            text.push_str(&format!("{finding}\n    {}\n", finding.kind.remedy()));
        }
        let LedgerCounts {
            batches, events, quarantined_events, streams, entries, documents, ..
        } = self.counts;
        text.push_str(&format!(
            "read {batches} batches with {events} events ({quarantined_events} quarantined) in {streams} streams, {entries} entries of the books and {documents} documents; {}\n",
            if self.with_totals {
                "compared every row of the totals"
            } else {
                "no totals were compared: there are none, or the batches do not tell what is right"
            },
        ));
        if self.counts.left_batches > 0 {
            text.push_str(&format!(
                "the bodies of {} batches have left for the archive and were not read: give the configuration that names it\n",
                self.counts.left_batches
            ));
        }
        match self.findings.count() {
            0 => text.push_str("sound\n"),
            count => text.push_str(&format!(
                "{count} findings{}\n",
                if count > FINDINGS_MAX as u64 { ", of which the first are shown" } else { "" }
            )),
        }
        text
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        let counts = &self.counts;
        let shown = ReportShown {
            sound: self.is_sound(),
            ledger: self.facts.ledger.map(|ledger| ledger.to_string()),
            incarnation: self.facts.incarnation,
            batches: counts.batches,
            events: counts.events,
            line_events: counts.line_events,
            quarantined_events: counts.quarantined_events,
            streams: counts.streams,
            entries: counts.entries,
            documents: counts.documents,
            totals_compared: self.with_totals,
            findings_count: self.findings.count(),
            findings: self
                .findings
                .iter()
                .map(|finding| FindingShown {
                    kind: finding.kind.name(),
                    place: finding.place.to_string(),
                    events: finding.events,
                    what: &finding.what,
                    remedy: finding.kind.remedy(),
                })
                .collect(),
        };
        let text = serde_json::to_string_pretty(&shown).expect("a report is text and numbers");
        format!("{text}\n")
    }
}

#[derive(Debug, Serialize)]
struct ReportShown<'r> {
    sound: bool,
    ledger: Option<String>,
    incarnation: u32,
    batches: u64,
    events: u64,
    line_events: u64,
    quarantined_events: u64,
    streams: u64,
    entries: u64,
    documents: u64,
    totals_compared: bool,
    findings_count: u64,
    findings: Vec<FindingShown<'r>>,
}

#[derive(Debug, Serialize)]
struct FindingShown<'r> {
    kind: &'static str,
    place: String,
    events: Option<u64>,
    what: &'r str,
    remedy: &'static str,
}

#[cfg(test)]
mod tests;
