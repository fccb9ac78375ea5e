//! Readable copies of what is issued: documents and certificates, each a file.
//!
//! **Owns** which rows of the books are copied, and the names. **Does not own** the rows. Nothing is read from the copies: a
//! restore reads the books' own objects. But a copy that is there and is another one means that a number was given twice.

use tidemark_common::hex;

use super::ArchiveError;
use super::segment::{Put, Puts};
use super::store::{ArchiveStore, put_same};
use crate::ledger::books::rows::{self, DOCUMENTS, HEAD, Head};
use crate::ledger::check::LedgerTable;

/// A certificate's row, by its number.
const CERTIFICATES: &[u8] = b"y";

/// Copies to be written.
#[derive(Debug, Default)]
pub(super) struct Copies(pub(super) Vec<(String, Vec<u8>)>);

impl Copies {
    pub(super) fn take(&mut self, puts: &Puts) {
        self.0.extend(puts.0.iter().filter_map(copy_of));
    }

    pub(super) fn write(&self, store: &dyn ArchiveStore) -> Result<(), ArchiveError> {
        self.0.iter().try_for_each(|(name, bytes)| put_same(store, name, bytes))
    }
}

fn copy_of(put: &Put) -> Option<(String, Vec<u8>)> {
    if put.table != LedgerTable::Books.number() {
        return None;
    }
    let (kind, rest) = put.key.split_at_checked(1)?;
    let name = match kind {
        DOCUMENTS => format!("documents/{}.json", plain(rest)),
        CERTIFICATES => match rest.try_into() {
            Ok(number) => format!("certificates/{:012}.json", u64::from_be_bytes(number)),
            Err(_) => format!("certificates/{}.json", hex::encode(rest)),
        },
        _ => return None,
    };
    Some((name, put.value.clone()?))
}

/// A number as a file's name: what is no letter, digit, dot or dash stands as `_` and two digits.
fn plain(number: &[u8]) -> String {
    let mut name = String::new();
    for (index, byte) in number.iter().enumerate() {
        let is_plain =
            byte.is_ascii_alphanumeric() || *byte == b'-' || (*byte == b'.' && index > 0);
        if is_plain {
            name.push(char::from(*byte));
        } else {
            name.push_str(&format!("_{byte:02x}"));
        }
    }
    name
}

/// How many entries the books have after these puts.
pub(super) fn entries_after(puts: &Puts, before: u64) -> u64 {
    let heads =
        puts.0.iter().filter(|put| put.table == LedgerTable::Books.number() && put.key == HEAD);
    let mut read = heads.filter_map(|put| rows::read::<Head>("head", put.value.as_deref()?).ok());
    let head = read.next_back();
    head.map_or(before, |head| head.entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8], value: &str) -> Put {
        let (key, value) = (key.to_vec(), Some(value.as_bytes().to_vec()));
        Put { table: LedgerTable::Books.number(), key, value }
    }

    #[test]
    fn what_is_issued_is_copied_under_a_plain_name() {
        let check = |key: &[u8], expected: Option<&str>| {
            assert_eq!(copy_of(&put(key, "{}")).map(|(name, _)| name).as_deref(), expected);
        };
        check(b"dINV-2026-000001", Some("documents/INV-2026-000001.json"));
        check(b"d../A/1", Some("documents/_2e._2fA_2f1.json"));
        check(b"y\0\0\0\0\0\0\0\x07", Some("certificates/000000000007.json"));
        check(b"yab", Some("certificates/6162.json"));
        check(b"sINV-2026-000001", None);
    }

    #[test]
    fn the_last_head_counts() {
        let head = |entries: u64| put(b"h", &format!("{{\"entries\":{entries},\"digest\":\"\"}}"));
        assert_eq!(entries_after(&Puts(vec![head(3), put(b"l", "1"), head(4)]), 2), 4);
        assert_eq!(entries_after(&Puts(vec![put(b"l", "1")]), 2), 2);
    }
}
