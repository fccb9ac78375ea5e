//! Ids of events, and the lines that they suppress.
//!
//! **Owns** what of them a walk over the rows can tell. Memory holds the suppressed lines of each batch that has some;
//! of ids none: a row tells of a stream that there is.

use std::collections::BTreeMap;

use tidemark_common::batch::Header;
use tidemark_common::id::{Sequence, StreamId};

use super::{FindingKind, Findings, Place, StreamRow};
use crate::ledger::codec::Fields;
use crate::ledger::duplicates::{Known, LinePlace};
use crate::ledger::redb::FORMAT_WITH_IDS;
use crate::ledger::request::Opened;
use crate::usage::Class;

/// Rows of suppressed lines, until their batches come.
#[derive(Debug, Default)]
pub(super) struct SuppressedCheck {
    rows: BTreeMap<u64, Vec<u8>>,
    knows_ids: bool,
}

impl SuppressedCheck {
    pub(super) fn id(
        &mut self,
        key: &[u8],
        value: &[u8],
        format: u16,
        streams: &BTreeMap<StreamId, StreamRow>,
        findings: &mut Findings,
    ) {
        let mut add = |why: String| {
            findings.add(FindingKind::Suppressed, Place::Table("ids"), None, || why);
        };
        if !std::mem::replace(&mut self.knows_ids, true) && format < FORMAT_WITH_IDS {
            add(format!(
                "the ledger's format {format} knows of none: older collectors would bill what came again"
            ));
        }
        match Known::read(value) {
            Err(error) => add(error.to_string()),
            Ok(_) if key.len() != 18 => add("a key is not a span and an id".to_owned()),
            Ok(Known { place: LinePlace { stream, .. }, .. }) if !streams.contains_key(&stream) => {
                add(format!("one is of stream {stream}, which has no row"));
            }
            Ok(_) => {}
        }
    }

    pub(super) fn row(&mut self, key: &[u8], value: &[u8], findings: &mut Findings) {
        match Fields(key).u64() {
            Some(position) => drop(self.rows.insert(position, value.to_vec())),
            None => {
                findings.add(FindingKind::Suppressed, Place::Table("suppressed"), None, || {
                    "a key is not a position".to_owned()
                });
            }
        }
    }

    /// The row of the batch at `position`, as stored.
    pub(super) fn take(&mut self, position: u64) -> Vec<u8> {
        self.rows.remove(&position).unwrap_or_default()
    }

    /// Judges the suppressed lines of an opened batch; `posted` tells how far a stream has come before it.
    pub(super) fn judged(
        &self,
        (header, position): (&Header, u64),
        opened: &Opened,
        posted: impl Fn(&StreamId) -> Sequence,
        findings: &mut Findings,
    ) {
        let Opened::Readable { marks, ids, suppressed, .. } = opened else { return };
        let here = (header.stream, header.sequence);
        for line in suppressed.iter() {
            let LinePlace { stream, sequence, line: first } = line.first;
            let is_before = match (stream, sequence) == here {
                true => first < line.line,
                false => sequence > Sequence::ZERO && sequence <= posted(&stream),
            };
            let index = usize::try_from(line.line).unwrap_or(usize::MAX);
            let has_id = ids.iter().any(|id| id.line == line.line);
            let why = match (has_id, is_before, marks.class(index)) {
                (true, true, Class::Normal | Class::Suppressed) => continue,
                (false, _, _) => "has no id".to_owned(),
                (true, true, Class::Unauthorised) => "is unauthorised".to_owned(),
                (true, false, _) => {
                    format!(
                        "came again of line {first} of batch {sequence} of stream {stream}, which is not before it"
                    )
                }
            };
            let place = Place::Batch { stream: header.stream, sequence: header.sequence, position };
            findings.add(FindingKind::Suppressed, place, Some(1), || {
                format!("its suppressed line {} {why}", line.line)
            });
        }
    }

    pub(super) fn finish(&self, findings: &mut Findings) {
        for position in self.rows.keys() {
            let place = Place::Positions { first: *position, last: *position };
            findings.add(FindingKind::Suppressed, place, None, || {
                "no batch stands where one has suppressed lines".to_owned()
            });
        }
    }
}
