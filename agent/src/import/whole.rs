//! Whether an export is whole, before anything is made of it.
//!
//! **Owns** the order of rows: the journal's first, below each opening's its events from the first to the last,
//! each once or said to be missing, and the end last. **Does not own** what stands in them (`read.rs`).

use super::RowError;
use crate::export::{EXPORT_VERSION, LineRow, Row};

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Whole {
    begun: bool,
    opening: Option<Opening>,
    events: u64,
    ended: bool,
}

#[derive(Debug)]
struct Opening {
    name: String,
    first: u64,
    /// The event that is due.
    next: u64,
    end: u64,
    batch: Option<Batch>,
}

/// A batch whose lines are being read.
#[derive(Debug)]
struct Batch {
    sequence: u64,
    first: u64,
    end: u64,
    /// Events of the lines so far.
    held: u64,
}

impl Whole {
    /// The next row, or the file's end.
    ///
    /// # Errors
    /// If it does not follow from the rows before it.
    pub(super) fn take(&mut self, row: Option<&Row>) -> Result<(), RowError> {
        let Some(row) = row else { return self.end() };
        match row {
            _ if self.ended => Err(refused("it is behind the end")),
            Row::Journal { version, .. } if *version != EXPORT_VERSION => {
                Err(refused(format!("version {version} is unknown")))
            }
            Row::Journal { .. } if self.begun => {
                Err(refused("a second export begins in this file"))
            }
            Row::Journal { .. } => {
                self.begun = true;
                Ok(())
            }
            _ if !self.begun => Err(refused("the row of the journal is not before it")),
            Row::Opening { opening, first_event, end_event, .. } => {
                self.end_opening()?;
                let (first, end) = (*first_event, *end_event);
                let name = opening.clone();
                self.opening = Some(Opening { name, first, next: first, end, batch: None });
                Ok(())
            }
            Row::Event(row) => {
                let opening = self.opening(&row.opening)?;
                opening.end_batch()?;
                opening.pass(row.event, row.event.saturating_add(1))
            }
            Row::Line(row) => self.opening(&row.opening)?.line(row),
            Row::Missing { opening, first_event, end_event } => {
                let opening = self.opening(opening)?;
                opening.end_batch()?;
                opening.pass(*first_event, *end_event)
            }
            Row::End { events } => {
                self.end_opening()?;
                self.ended = true;
                match self.events == *events {
                    true => Ok(()),
                    false => Err(refused(format!(
                        "it speaks of {events} events, and the rows before it are {}",
                        self.events
                    ))),
                }
            }
        }
    }

    fn end(&self) -> Result<(), RowError> {
        match self.ended {
            true => Ok(()),
            false => Err(refused("the file ends here, without the row of its end: it was cut off")),
        }
    }

    fn opening(&mut self, name: &str) -> Result<&mut Opening, RowError> {
        let below = self.opening.as_mut().filter(|opening| opening.name == name);
        below.ok_or_else(|| refused("it is not below the row of its opening"))
    }

    fn end_opening(&mut self) -> Result<(), RowError> {
        let Some(mut opening) = self.opening.take() else { return Ok(()) };
        opening.end_batch()?;
        let Opening { name, first, next, end, .. } = opening;
        if next != end {
            let reason =
                format!("opening {name} before it ends with event {end}, and {next} is due");
            return Err(refused(reason));
        }
        self.events = self.events.saturating_add(end.saturating_sub(first));
        Ok(())
    }
}

impl Opening {
    fn pass(&mut self, first: u64, end: u64) -> Result<(), RowError> {
        if first != self.next || end < first {
            let reason = format!(
                "event {} is due here, not {first}: rows are missing, or stand twice",
                self.next
            );
            return Err(refused(reason));
        }
        self.next = end;
        Ok(())
    }

    fn line(&mut self, row: &LineRow) -> Result<(), RowError> {
        let LineRow { sequence, first_event, end_event, events, .. } = *row;
        let of = (sequence, first_event, end_event);
        let same = |batch: &Batch| (batch.sequence, batch.first, batch.end) == of;
        if !self.batch.as_ref().is_some_and(same) {
            self.end_batch()?;
            self.pass(first_event, end_event)?;
            self.batch = Some(Batch { sequence, first: first_event, end: end_event, held: 0 });
        }
        if let Some(batch) = &mut self.batch {
            batch.held = batch.held.saturating_add(events);
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), RowError> {
        let Some(Batch { sequence, first, end, held }) = self.batch.take() else { return Ok(()) };
        let events = end.saturating_sub(first);
        if held == events {
            return Ok(());
        }
        let reason =
            format!("the lines of batch {sequence} before it hold {held} events, not {events}");
        Err(refused(reason))
    }
}

fn refused(reason: impl Into<String>) -> RowError {
    RowError::Row(reason.into())
}
