//! A copy of the running ledger, over the control socket (`control.rs`).
//!
//! ```text
//! caller -> "rows 1\n"      collector -> the rows (backup/rows.rs), read as of now
//! ```
//! The API's tokens do not open it: whoever has all rows can make the digests of unique values out.

use std::io::{self, BufWriter, Write};
use std::os::unix::net::UnixStream;

use super::rows::{RowWriter, RowsError};
use crate::ledger::redb::RedbStore;
use crate::ledger::store::StoreError;

const REQUEST: &[u8] = b"rows 1";
/// What is written to a caller at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Asks the collector behind `socket` for all rows, which then are to be read from it.
///
/// # Errors
/// If it cannot be asked.
pub(super) fn ask_for_rows(mut socket: UnixStream) -> io::Result<UnixStream> {
    socket.write_all(&[REQUEST, b"\n"].concat())?;
    Ok(socket)
}

/// Sends every row; blocks.
///
/// # Errors
/// An unknown request, another copy under way, or rows that cannot be read or sent.
pub(crate) fn copy_to(
    caller: &UnixStream,
    request: &[u8],
    store: &RedbStore,
    is_alone: bool,
) -> Result<u64, CopyError> {
    let mut writer = RowWriter::new(BufWriter::with_capacity(BUFFER_BYTES, caller))?;
    if request != REQUEST {
        writer.fail("this version answers \"rows 1\" only; use the same version of both")?;
        return Err(CopyError::Request);
    }
    if !is_alone {
        writer.fail("a backup is being made already; try again after it")?;
        return Err(CopyError::Busy);
    }
    let copied = store.export(&mut |table, key, value| -> Result<(), CopyError> {
        writer.row(table, key, value).map_err(CopyError::from)
    });
    match copied {
        Ok(()) => Ok(writer.end()?.1.bytes),
        Err(error) => {
            let _told = writer.fail(&error.to_string()).is_ok();
            Err(error)
        }
    }
}

/// Failed to send a copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("failed to send a copy: {0}")]
    Rows(#[from] RowsError),
    #[error("failed to send a copy: {0}")]
    Store(#[from] StoreError),
    #[error("failed to send a copy: the request is unknown")]
    Request,
    #[error("failed to send a copy: another one is under way")]
    Busy,
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Rows(error.into())
    }
}
