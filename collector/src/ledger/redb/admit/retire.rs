//! Streams that retire and return, in the admitting transaction.

use tidemark_common::id::{Sequence, StreamId};

use super::super::retired::RetiredTables;
use super::super::{Fault, LEDGER_FILE, OPENINGS, STREAMS};
use super::{Group, flush_openings};
use crate::ledger::request::Reply;
use crate::ledger::retired::{self, RetiredStream, RetiredSums};
use crate::ledger::store::StoreError;

impl Group<'_> {
    /// Makes a retired stream live again, as it was.
    pub(super) fn bring_back(&mut self, stream: StreamId) -> Result<(), StoreError> {
        let retired = self.retired.as_ref().unwrap_or(&self.memory.retired);
        if retired.streams == 0 || self.record(stream).is_some() {
            return Ok(());
        }
        let Some(RetiredStream { record, .. }) = RetiredTables::open(self.write)?.take(stream)?
        else {
            return Ok(());
        };
        self.sums().take(&record);
        self.gone.remove(&stream);
        self.rows.insert(stream);
        self.changed.insert(stream, record);
        Ok(())
    }

    /// Retires those that are due. One whose batches are not folded yet is still needed by the next start.
    pub(super) fn retire(
        &mut self,
        streams: &[StreamId],
        after_millis: i64,
    ) -> Result<Reply, StoreError> {
        let write = self.write;
        let mut tables = RetiredTables::open(write)?;
        let mut rows = write.open_table(STREAMS).map_err(Fault::write(LEDGER_FILE))?;
        let mut openings = write.open_table(OPENINGS).map_err(Fault::write(LEDGER_FILE))?;
        let mut count = 0_usize;
        for stream in streams {
            let is_due = |record: &&_| retired::is_due(record, self.at, after_millis);
            let Some(mut record) = self.record(*stream).filter(is_due).cloned() else { continue };
            if self.is_unfolded(*stream) {
                continue;
            }
            flush_openings(&mut openings, &mut record)?;
            tables.insert(self.at, &record)?;
            rows.remove(&stream.0).map_err(Fault::write(LEDGER_FILE))?;
            self.sums().add(&record);
            self.changed.remove(stream);
            self.rows.remove(stream);
            self.gone.insert(*stream);
            count = count.saturating_add(1);
        }
        Ok(Reply::Retired(count))
    }

    fn sums(&mut self) -> &mut RetiredSums {
        self.retired.get_or_insert_with(|| self.memory.retired.clone())
    }

    fn is_unfolded(&self, stream: StreamId) -> bool {
        let all = (stream, Sequence::ZERO)..=(stream, Sequence(u64::MAX));
        let here = self.appended.iter().any(|(_, _, appended)| appended.header.stream == stream);
        here || self.memory.unfolded.range(all).next().is_some()
    }
}
