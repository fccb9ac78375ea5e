//! The rows of streams that retired, and what they come to.

use tidemark_common::id::StreamId;

use super::{Checker, FindingKind, Findings, Place, StreamRow};
use crate::ledger::codec::Fields;
use crate::ledger::redb::FORMAT_WITH_RETIRED;
use crate::ledger::retired::{RetiredSums, may_retire};

/// What the ledger says that they come to, and what they do.
#[derive(Debug, Default)]
pub(super) struct RetiredCheck {
    said: Option<Vec<u8>>,
    found: RetiredSums,
}

impl Checker {
    pub(super) fn retired(&mut self, key: &[u8], value: &[u8]) {
        let place = Place::Table("retired");
        let mut fields = Fields(key);
        let (Some(_), Some(stream), []) = (fields.u64(), fields.array().map(StreamId), fields.0)
        else {
            return self.findings.add(FindingKind::StreamRow, place, None, || {
                "a key is not a time and a stream's id".to_owned()
            });
        };
        let format = self.facts.format;
        if self.retired.found.streams == 0 && format < FORMAT_WITH_RETIRED {
            self.findings.add(FindingKind::StreamRow, place, None, || {
                format!("the ledger's format {format} knows of no retired streams: older collectors would not know these")
            });
        }
        let Some(record) = self.stream(stream, value) else { return };
        let place = Place::Stream(stream);
        if !may_retire(&record) {
            self.findings.add(FindingKind::StreamRow, place.clone(), None, || {
                "it retired, and something of it is still to come".to_owned()
            });
        }
        self.retired.found.add(&record);
        let row = StreamRow { is_retired: true, ..StreamRow::of(&record) };
        if self.rows.insert(stream, row).is_some() {
            let why = || "it has several rows, and retired by one of them".to_owned();
            self.findings.add(FindingKind::StreamRow, place, None, why);
        }
    }
}

impl RetiredCheck {
    pub(super) fn say(&mut self, sums: &[u8]) {
        self.said = Some(sums.to_vec());
    }

    /// How many there are.
    pub(super) fn finish(&self, findings: &mut Findings) -> u64 {
        let found = self.found.write();
        let said = self.said.as_ref().is_none_or(|said| *said == found);
        if !said || (self.said.is_none() && self.found.streams > 0) {
            let streams = self.found.streams;
            findings.add(FindingKind::StreamRow, Place::Table("retired"), None, || {
                format!("its {streams} rows do not come to the sums that the ledger keeps of them")
            });
        }
        self.found.streams
    }
}
