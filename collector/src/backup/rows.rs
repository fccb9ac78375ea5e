//! The rows of a ledger as one sequence of bytes: a backup's file, and what a running collector sends.
//!
//! ```text
//! HEAD   "TMLR", version u16 = 1, zero u16
//! ROW    table u8 (1 meta, 2 streams, 8 retired, 3 openings, 4 quarantine, 6 marks,
//!        7 books, 9 ids, 10 suppressed, 11 redo, 5 batches), key length u8,
//!        value length u32, key, value                       as they stand in ledger.redb
//! END    0 u8, rows u64                                     last
//! FAIL   255 u8, reason length u16, reason                  in place of END: there is no more
//! ```
//! Numbers are big-endian; the rows of a table ascend by key.
//!
//! **Owns** these bytes. **Does not own** what they mean. Invariant: bytes without END are not a ledger.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tidemark_common::wire::BATCH_FRAME_BYTES_MAX;

use crate::ledger::check::LedgerTable;

const MAGIC: [u8; 4] = *b"TMLR";
const VERSION: u16 = 1;
const END: u8 = 0;
const FAIL: u8 = 255;
/// A row's value is at most this many bytes: a batch fills a frame.
const VALUE_BYTES_MAX: usize = BATCH_FRAME_BYTES_MAX;

/// Rows that cannot be written or read.
#[derive(Debug, Error)]
pub enum RowsError {
    #[error("failed to read or write the ledger's rows: {0}")]
    Io(#[from] io::Error),
    #[error("failed to read the ledger's rows: they end before their end")]
    Truncated,
    #[error("failed to read the ledger's rows: they begin with {found:02x?}; this is no backup")]
    Magic { found: [u8; 4] },
    #[error(
        "failed to read the ledger's rows: their version {found} is not {VERSION}; use a newer collector"
    )]
    Version { found: u16 },
    #[error("failed to read row {row} of the ledger: {what}")]
    Row { row: u64, what: String },
    #[error("failed to get the ledger's rows: the collector says: {reason}")]
    Told { reason: String },
}

/// Writes rows; counts and hashes what it writes.
#[derive(Debug)]
pub struct RowWriter<W> {
    output: W,
    hash: Sha256,
    bytes: u64,
    rows: u64,
}

/// What was written or read in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    pub sha256: [u8; 32],
}

impl<W: Write> RowWriter<W> {
    /// # Errors
    /// If the head cannot be written.
    pub fn new(output: W) -> io::Result<Self> {
        let mut writer = Self { output, hash: Sha256::new(), bytes: 0, rows: 0 };
        writer.put(&MAGIC)?;
        writer.put(&VERSION.to_be_bytes())?;
        writer.put(&[0, 0])?;
        Ok(writer)
    }

    /// # Errors
    /// If it cannot be written, or is larger than any row.
    pub fn row(&mut self, table: LedgerTable, key: &[u8], value: &[u8]) -> io::Result<()> {
        let large = || io::Error::other(format!("a row of {} is too large", table.name()));
        let key_length = u8::try_from(key.len()).map_err(|_| large())?;
        let value_length = u32::try_from(value.len()).map_err(|_| large())?;
        self.put(&[table.number(), key_length])?;
        self.put(&value_length.to_be_bytes())?;
        self.put(key)?;
        self.put(value)?;
        self.rows = self.rows.saturating_add(1);
        Ok(())
    }

    /// Says that these are all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn end(mut self) -> io::Result<(W, Written)> {
        self.put(&[END])?;
        self.put(&self.rows.to_be_bytes())?;
        self.output.flush()?;
        Ok((self.output, Written { bytes: self.bytes, sha256: self.hash.finalize().into() }))
    }

    /// Says why there are no more.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn fail(mut self, reason: &str) -> io::Result<()> {
        let end = reason.floor_char_boundary(usize::from(u16::MAX));
        let reason = reason.get(..end).unwrap_or_default();
        self.put(&[FAIL])?;
        self.put(&u16::try_from(end).unwrap_or(0).to_be_bytes())?;
        self.put(reason.as_bytes())?;
        self.output.flush()
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.output.write_all(bytes)
    }
}

/// One row as it stands in the ledger's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'r> {
    pub table: LedgerTable,
    pub key: &'r [u8],
    pub value: &'r [u8],
}

/// Reads what [`RowWriter`] wrote; counts and hashes what it reads.
#[derive(Debug)]
pub struct RowReader<R> {
    input: R,
    hash: Sha256,
    bytes: u64,
    rows: u64,
    last: Option<LedgerTable>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<R: Read> RowReader<R> {
    /// # Errors
    /// If these are no rows, or of a newer version.
    pub fn new(input: R) -> Result<Self, RowsError> {
        let (key, value) = (Vec::new(), Vec::new());
        let mut reader =
            Self { input, hash: Sha256::new(), bytes: 0, rows: 0, last: None, key, value };
        let found = reader.array()?;
        if found != MAGIC {
            return Err(RowsError::Magic { found });
        }
        let found = u16::from_be_bytes(reader.array()?);
        if found != VERSION {
            return Err(RowsError::Version { found });
        }
        let _zero: [u8; 2] = reader.array()?;
        Ok(reader)
    }

    /// The next row; `None` at the end, behind which nothing comes.
    ///
    /// # Errors
    /// Bytes that end before their end, hold no row, or say why there is no more.
    pub fn row(&mut self) -> Result<Option<Row<'_>>, RowsError> {
        let [number] = self.array()?;
        match number {
            END => return self.end().map(|()| None),
            FAIL => return Err(self.told()?),
            _ => {}
        }
        let table = LedgerTable::from_number(number)
            .filter(|table| self.last.is_none_or(|last| *table >= last))
            .ok_or_else(|| self.broken(format!("its table {number} does not belong there")))?;
        self.last = Some(table);
        let [key_length] = self.array()?;
        let value_length = u32::from_be_bytes(self.array()?);
        let length = usize::try_from(value_length).unwrap_or(usize::MAX);
        if length > VALUE_BYTES_MAX {
            return Err(self.broken(format!("its value has {length} bytes")));
        }
        self.rows = self.rows.saturating_add(1);
        let (mut key, mut value) = (std::mem::take(&mut self.key), std::mem::take(&mut self.value));
        self.fill(&mut key, usize::from(key_length))?;
        self.fill(&mut value, length)?;
        (self.key, self.value) = (key, value);
        Ok(Some(Row { table, key: &self.key, value: &self.value }))
    }

    /// What was read, once all of it was.
    #[must_use]
    pub fn written(self) -> Written {
        Written { bytes: self.bytes, sha256: self.hash.finalize().into() }
    }

    fn end(&mut self) -> Result<(), RowsError> {
        let said = u64::from_be_bytes(self.array()?);
        if said != self.rows {
            return Err(self.broken(format!("the end tells of {said} rows")));
        }
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(self.broken("something follows the end".to_owned())),
        }
    }

    fn told(&mut self) -> Result<RowsError, RowsError> {
        let length = u16::from_be_bytes(self.array()?);
        let mut reason = Vec::new();
        self.fill(&mut reason, usize::from(length))?;
        Ok(RowsError::Told { reason: String::from_utf8_lossy(&reason).into_owned() })
    }

    fn broken(&self, what: String) -> RowsError {
        RowsError::Row { row: self.rows, what }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RowsError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(truncated)?;
        self.take(&bytes);
        Ok(bytes)
    }

    fn fill(&mut self, into: &mut Vec<u8>, length: usize) -> Result<(), RowsError> {
        into.clear();
        into.resize(length, 0);
        self.input.read_exact(into).map_err(truncated)?;
        self.take(into);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
}

fn truncated(error: io::Error) -> RowsError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RowsError::Truncated,
        _ => RowsError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> (Vec<u8>, Written) {
        let mut writer = RowWriter::new(Vec::new()).unwrap();
        writer.row(LedgerTable::Meta, b"format", &[0, 1]).unwrap();
        writer.row(LedgerTable::Batches, &[0; 8], &[7; 300]).unwrap();
        writer.end().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Vec<LedgerTable>, Written), RowsError> {
        let mut reader = RowReader::new(bytes)?;
        let mut tables = Vec::new();
        while let Some(row) = reader.row()? {
            tables.push(row.table);
        }
        Ok((tables, reader.written()))
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, written) = bytes();
        assert_eq!(written.bytes, bytes.len() as u64);
        let (tables, found) = read(&bytes).unwrap();
        assert_eq!((tables, found), (vec![LedgerTable::Meta, LedgerTable::Batches], written));
    }

    #[test]
    fn frozen_bytes() {
        let mut writer = RowWriter::new(Vec::new()).unwrap();
        writer.row(LedgerTable::Meta, b"format", &[0, 1]).unwrap();
        let (bytes, _) = writer.end().unwrap();
        let expected = b"TMLR\x00\x01\x00\x00\x01\x06\x00\x00\x00\x02format\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn no_part_of_it_is_taken_for_all() {
        let (bytes, _) = bytes();
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).unwrap_err();
            assert!(matches!(error, RowsError::Truncated), "{length}: {error}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(read(&longer).unwrap_err().to_string().contains("follows the end"));
    }

    #[test]
    fn a_reason_comes_across() {
        let mut out = Vec::new();
        let mut writer = RowWriter::new(&mut out).unwrap();
        writer.row(LedgerTable::Meta, b"format", &[0, 1]).unwrap();
        writer.fail("the disk is on fire").unwrap();
        assert!(read(&out).unwrap_err().to_string().contains("on fire"));
    }

    #[test]
    fn rows_that_cannot_be_are_refused() {
        let check = |place: usize, byte: u8, expected: &str| {
            let (mut bytes, _) = bytes();
            bytes[place] = byte;
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{place}: {error}");
        };
        check(0, b'X', "no backup");
        check(5, 9, "version 9");
        check(8, 77, "table 77");
        check(22, 0, "tells of");
        // The second row's length: beyond every batch.
        check(24, 255, "its value has");
    }
}
